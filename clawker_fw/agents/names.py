"""The names of agents by their addresses, also of agents that are gone, if this machine has seen them before.

An engine tells the address of a container only while it runs, and gives it to another one later. So whoever looks
at the agents remembers them in a file of the user's state: `denials`, and a watcher that counts refusals. (A
service has no cache of the user's.) A file that can't be read or written is ignored.

An agent has an address from when its container was started, or from when another one was last seen with it, until
it was last seen itself. One that was connected to the network by hand has it from when it was first seen: engines
don't say since when. What was refused at any other time is nobody's: it is better not to know than to blame.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, NamedTuple

from clawker_fw.model.stacks import Sibling
from clawker_fw.private_files import make_private, state_folder
from clawker_fw.stack.container import trial_name
from clawker_fw.stack.topology import Addressing

_MOST_REMEMBERED = 1_000
"""Of each stack, those that were seen last."""


class Attached(NamedTuple):
    """An agent that has an address now, and when its container was started, in seconds since 1970.

    `since_start` is whether it was on the network by then.
    """

    name: str
    started: float
    since_start: bool = True


@dataclass(slots=True)
class _Seen:
    """An agent, and from when until when it certainly had its address, in seconds since 1970."""

    address: str
    name: str
    first: float
    last: float


def own_names(project: str, subnets: Iterable[IPv4Network]) -> dict[str, str]:
    """Return the names of ours by the addresses from which they ask, on the agent network with these subnets.

    They are the siblings, and the container in which `conformance` tries what no agent should. The engine gives
    these addresses to nobody else, and a replacement has the same. A name is looked up from the service address,
    which CoreDNS asks as agents do.
    """
    names: dict[str, str] = {}
    for addressing in (Addressing(each, each) for each in subnets):
        for slot in (0, 1):
            names[str(addressing.envoy(slot))] = f"{project}-{Sibling.ENVOY}"
            names[str(addressing.coredns(slot))] = f"{project}-{Sibling.COREDNS}"
        names[str(addressing.service)] = f"{project}-{Sibling.COREDNS}"
        names[str(addressing.trial)] = trial_name(project)
    return names


def remembered_at() -> Path:
    """Return the path of the file."""
    return state_folder().parent / "agents.json"


def forget(engine: str, project: str) -> None:
    """Forget the agents of a project's stack at an engine's address, and remove the file if no others are left."""
    _write(f"{engine} {project}", [])


class AgentNames:
    """The agents of one stack."""

    def __init__(
        self, engine: str, project: str, own: Mapping[str, str] | None = None, *, keeps: bool = True
    ) -> None:
        """Read what is remembered of a project's stack at an engine's address. `own` are the siblings' names.

        Without `keeps`, nothing is written: the file is for one writer at a time.
        """
        self._keeps = keeps
        self._own = own or {}
        self.trial = trial_name(project)
        self._stack = f"{engine} {project}"
        self._seen = _read(self._stack)
        self._having = _by_address(self._seen)
        self._there: dict[str, _Seen] = {}
        """Those of the last look, by address. They have their addresses until the next one."""

    def is_own(self, address: str) -> bool:
        """Whether an address is a sibling's, so that we have tried ourselves what was refused to it."""
        return address in self._own

    def is_trial(self, address: str) -> bool:
        """Whether an address is that from which `conformance` tries."""
        return self._own.get(address) == self.trial

    def look(self, agents: Mapping[str, Attached], now: float) -> None:
        """Remember the agents that have addresses now."""
        for each in self._seen:  # with a clock that was ahead, and was put back since
            each.first, each.last = min(each.first, now), min(each.last, now)
        latest = {each.address: each for each in self._seen}
        self._there = {}
        for address, (name, started, since_start) in agents.items():
            known = latest.get(address)
            if known and known.name == name and started <= known.last:
                known.last = now
            else:
                first = started if since_start else now
                known = _Seen(address, name, max(first, known.last) if known else first, now)
                self._seen.append(known)
            self._there[address] = known
        self._seen = sorted(self._seen, key=lambda each: each.last)[-_MOST_REMEMBERED:]
        self._having = _by_address(self._seen)
        if self._keeps:
            _write(self._stack, self._seen)

    @property
    def known(self) -> frozenset[str]:
        """The names of all agents and siblings that are known, also of agents that are gone."""
        return frozenset({*self._own.values(), *(each.name for each in self._seen)})

    def of(self, address: str, moment: str) -> str:
        """Return the name of the agent that had an address at a moment (RFC 3339), or "" if nobody knows."""
        if address in self._own:
            return self._own[address]
        when = datetime.fromisoformat(moment).timestamp()
        there = self._there.get(address)
        then = (
            each.name
            for each in self._having.get(address, ())
            if each.first <= when and (each.last >= when or each is there)
        )
        return next(then, "")


def _by_address(seen: Iterable[_Seen]) -> dict[str, list[_Seen]]:
    """Return who has had each address, in the order of time: thousands of refusals are looked up."""
    found: defaultdict[str, list[_Seen]] = defaultdict(list)
    for each in sorted(seen, key=lambda each: each.first):
        found[each.address].append(each)
    return found


def _read(stack: str) -> list[_Seen]:
    with suppress(OSError, ValueError, TypeError, AttributeError):
        return [_Seen(**each) for each in json.loads(remembered_at().read_bytes()).get(stack, [])]
    return []


def _write(stack: str, seen: list[_Seen]) -> None:
    path = remembered_at()
    whole: Any = {}
    with suppress(OSError, ValueError):
        whole = json.loads(path.read_bytes())
    whole = {**(whole if isinstance(whole, dict) else {}), stack: [asdict(each) for each in seen]}
    whole = {name: those for name, those in whole.items() if those}
    with suppress(OSError):
        if not whole:
            path.unlink(missing_ok=True)
            return
        make_private(path.parent)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(whole))
        fresh.replace(path)
