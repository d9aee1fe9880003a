"""The last good bundle of each reference, kept in the user's state folder.

It is what is in force while a registry is away, or has something under the tag that is refused. It is where the
user's keys are: whoever can write there needs no bundle.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from clawker_fw.private_files import locked, write_private

_UNUSABLE = (OSError, ValueError, TypeError, LookupError)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a bundle could not be confirmed, or what is under its tag is not used, since when."""

    code: str
    message: str
    since: float


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that is, or could be, in force. It stays the same, however often it is confirmed.

    `created` is in seconds since 1970. `key` is the fingerprint of the key that has signed it.
    """

    reference: str
    digest: str
    layer: str
    created: float
    key: str

    @property
    def name(self) -> str:
        """What its lines are called in sentences: the reference, pinned."""
        return self.reference if self.digest in self.reference else f"{self.reference}@{self.digest[:19]}"


@dataclass(frozen=True, slots=True)
class Kept:
    """The last good bundle of a reference, and its text.

    `confirmed` is when the registry last had it under the tag, `problem` what is wrong since.
    Times are in seconds since 1970.
    """

    bundle: Bundle
    text: str
    confirmed: float
    problem: Problem | None = None


@dataclass(frozen=True)
class Store:
    """The last good bundles of a project, a file for each reference."""

    folder: Path

    def read(self, reference: str) -> Kept | None:
        """Return the last good bundle of a reference, or None if there is none that can be used."""
        try:
            found = json.loads(self._path(reference).read_bytes())
            bundle = Bundle(**found["bundle"])
            problem = Problem(**found["problem"]) if found["problem"] else None
            kept = Kept(bundle, str(found["text"]), float(found["confirmed"]), problem)
        except _UNUSABLE:
            return None
        whole = bundle.reference == reference and _digest(kept.text) == bundle.layer
        return kept if whole else None

    def write(self, kept: Kept) -> None:
        """Keep a bundle. Under `exclusive`.

        Raises:
            OSError: when it can't be written.
        """
        write_private(self._path(kept.bundle.reference), json.dumps(asdict(kept)).encode())

    def note(self, reference: str, problem: Problem | None, confirmed: float | None = None) -> None:
        """Note of the last good bundle what is wrong, or that it was confirmed. Nothing, if there is none.

        Raises:
            OSError: when it can't be written.
        """
        with self.exclusive():
            if kept := self.read(reference):
                same = problem and kept.problem and problem.code == kept.problem.code
                noted = (
                    replace(problem, since=kept.problem.since) if same and problem and kept.problem else problem
                )
                self.write(replace(kept, problem=noted, confirmed=confirmed or kept.confirmed))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the store against other processes: what is in force must not change between a look and a write."""
        with locked(self.folder, writing=True):
            yield

    def forget(self) -> None:
        """Remove all bundles of the project, and the folder."""
        if self.folder.is_dir():
            for each in self.folder.iterdir():
                each.unlink(missing_ok=True)
            self.folder.rmdir()

    def _path(self, reference: str) -> Path:
        return self.folder / f"{hashlib.sha256(reference.encode()).hexdigest()[:32]}.json"


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
