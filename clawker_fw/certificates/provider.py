"""What a stack should inspect connections with, recalled where it is known: reading it takes a slow library.

What was provided is remembered if it is just what the stack has, until the next certificate is due, and at most
for an hour: then roots may be announced, or forgotten.
"""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from clawker_fw.certificates.credentials import NO_AUTHORITIES, Authorities, Provided
from clawker_fw.digests import Digests

if TYPE_CHECKING:
    from clawker_fw.certificates.inspection import InspectionStore

_SECONDS = 3600.0
_KIND = "inspection"
_REMEMBERED = 20


@dataclass(frozen=True)
class Provider:
    """The authorities of one project, whose roots are in a folder. Only one that `keeps` writes there."""

    folder: Path
    project: str
    keeps: bool = False
    digests: Digests | None = field(default=None, compare=False, repr=False)
    clock: Callable[[], float] = field(default=time.time, compare=False, repr=False)

    def provide(self, names: Collection[str], live: Authorities = NO_AUTHORITIES) -> Provided:
        """Return what a stack needs to inspect connections to these names and those below. Never raises.

        A stack that inspects nothing needs nothing.
        """
        if not names:
            return Provided()
        now, key = self.clock(), self._key(names, live)
        known = self._recalled(key, live, now)
        if known is not None:
            return known
        found = self._store.provide(names, live)
        if self.digests is not None and found.authorities == live and not found.reason:
            until = min(
                now + _SECONDS, *(each for each in (found.renewed_at, found.root_ends) if each is not None)
            )
            noted = {"from": now, "until": until, "ends": found.root_ends, "due": found.root_due}
            noted["renewed_at"] = found.renewed_at
            # What a run has written into its folder meanwhile is looked up by the next command.
            self.digests.remember(self._key(names, live), json.dumps(noted), _REMEMBERED)
        return found

    @cached_property
    def _store(self) -> "InspectionStore":
        from clawker_fw.certificates.inspection import InspectionStore  # noqa: PLC0415 - `cryptography`: 75 ms

        return InspectionStore(self.folder, self.project, self.keeps, self.clock)

    def _recalled(self, key: str, live: Authorities, now: float) -> Provided | None:
        """Return what was provided for equal names, with equal files, to a stack that had the same."""
        if self.digests is None or (text := self.digests.recall(key)) is None:
            return None
        with suppress(ValueError, TypeError, KeyError):
            noted = json.loads(text)
            if float(noted["from"]) <= now < float(noted["until"]):
                renewed_at, ends = (None if noted[each] is None else float(noted[each]) for each in _TIMES)
                return Provided(live.trust, live.intermediates, "", renewed_at, ends, noted["due"] is True)
        return None

    def _key(self, names: Collection[str], live: Authorities) -> str:
        """Return what identifies all that decides what is provided, but the time."""
        sums = hashlib.sha256()
        for part in self._parts(names, live):
            sums.update(hashlib.sha256(part).digest())
        return f"{_KIND} {sums.hexdigest()}"

    def _parts(self, names: Collection[str], live: Authorities) -> Iterator[bytes]:
        yield json.dumps([self.project, *sorted(names)]).encode()
        yield live.trust
        for pair in live.intermediates:
            yield pair.certificate
            yield pair.key
        yield str(self.folder).encode()
        for path in sorted(self.folder.glob("inspection-*")):
            yield path.name.encode()
            with suppress(OSError):
                yield path.read_bytes()


_TIMES = ("renewed_at", "ends")
