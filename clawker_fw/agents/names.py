"""Names of agents by address, also of agents that are gone, if this machine has seen them.

An engine reports an address only while a container runs, and reuses it. So `denials`, and watchers that count
refusals, record the agents in a file of the user's state (services have no user cache). An unusable file is
ignored.

An agent holds an address from its container's start, or from when another agent was last seen with it, until it
was last seen itself. If it was connected later, it holds the address from when it was first seen, because engines
don't report the time. Refusals at other times stay unattributed.
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
"""Per stack, the most recently seen."""


class Attached(NamedTuple):
    """An agent that has an address now, and its container's start, in seconds since 1970.

    `since_start` is whether it has been on the network since then.
    """

    name: str
    started: float
    since_start: bool = True


@dataclass(slots=True)
class _Seen:
    """An agent, and the period in which it certainly had its address, in seconds since 1970."""

    address: str
    name: str
    first: float
    last: float


def own_names(project: str, subnets: Iterable[IPv4Network]) -> dict[str, str]:
    """Return the names of our containers by their addresses on an agent network with these subnets.

    These are the firewall containers and that of `conformance`. The engine gives the addresses to nobody else, and
    replacements reuse them. CoreDNS's own queries come from the service address.
    """
    names: dict[str, str] = {}
    for addressing in (Addressing(subnet, subnet) for subnet in subnets):
        for slot in (0, 1):
            names[str(addressing.envoy(slot))] = f"{project}-{Sibling.ENVOY}"
            names[str(addressing.coredns(slot))] = f"{project}-{Sibling.COREDNS}"
        names[str(addressing.service)] = f"{project}-{Sibling.COREDNS}"
        names[str(addressing.trial)] = trial_name(project)
    return names


def remembered_at() -> Path:
    """Return the file's path."""
    return state_folder().parent / "agents.json"


def forget(engine: str, project: str) -> None:
    """Forget the agents of a project's stack on an engine. Remove the file if it is empty then."""
    _write(f"{engine} {project}", [])


class AgentNames:
    """The agents of one stack."""

    def __init__(self, engine: str, project: str, own: Mapping[str, str] | None = None) -> None:
        """Read the known agents of a project's stack on an engine. `own` are the firewall containers' names."""
        self._own = own or {}
        self.trial = trial_name(project)
        self._stack = f"{engine} {project}"
        self._seen = _read(self._stack)
        self._having = _by_address(self._seen)
        self._present: dict[str, _Seen] = {}
        """The agents of the last `look` by address. They hold their addresses until the next one."""

    def is_own(self, address: str) -> bool:
        """Whether an address belongs to the firewall, so that its refusals come from our own attempts."""
        return address in self._own

    def is_trial(self, address: str) -> bool:
        """Whether an address is the one from which `conformance` tries."""
        return self._own.get(address) == self.trial

    def look(self, agents: Mapping[str, Attached], now: float) -> None:
        """Record the agents that have addresses now."""
        for entry in self._seen:  # the clock may have been ahead and set back
            entry.first, entry.last = min(entry.first, now), min(entry.last, now)
        latest = {entry.address: entry for entry in self._seen}
        self._present = {}
        for address, (name, started, since_start) in agents.items():
            holder = latest.get(address)
            if holder and holder.name == name and started <= holder.last:
                holder.last = now
            else:
                first = started if since_start else now
                holder = _Seen(address, name, max(first, holder.last) if holder else first, now)
                self._seen.append(holder)
            self._present[address] = holder
        self._seen = sorted(self._seen, key=lambda entry: entry.last)[-_MOST_REMEMBERED:]
        self._having = _by_address(self._seen)
        _write(self._stack, self._seen)

    @property
    def known(self) -> frozenset[str]:
        """The names of all known agents and firewall containers, also of agents that are gone."""
        return frozenset({*self._own.values(), *(entry.name for entry in self._seen)})

    def of(self, address: str, moment: str) -> str:
        """Return the agent that had an address at a time (RFC 3339), or "" if unknown."""
        if address in self._own:
            return self._own[address]
        when = datetime.fromisoformat(moment).timestamp()
        present = self._present.get(address)
        then = (
            entry.name
            for entry in self._having.get(address, ())
            if entry.first <= when and (entry.last >= when or entry is present)
        )
        return next(then, "")


def _by_address(entries: Iterable[_Seen]) -> dict[str, list[_Seen]]:
    """Return the holders of each address in order of time, for fast lookups of many refusals."""
    by_address: defaultdict[str, list[_Seen]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: entry.first):
        by_address[entry.address].append(entry)
    return by_address


def _read(stack: str) -> list[_Seen]:
    with suppress(OSError, ValueError, TypeError, AttributeError):
        return [_Seen(**fields) for fields in json.loads(remembered_at().read_bytes()).get(stack, [])]
    return []


def _write(stack: str, entries: list[_Seen]) -> None:
    path = remembered_at()
    whole: Any = {}
    with suppress(OSError, ValueError):
        whole = json.loads(path.read_bytes())
    whole = {**(whole if isinstance(whole, dict) else {}), stack: [asdict(entry) for entry in entries]}
    whole = {name: those for name, those in whole.items() if those}
    with suppress(OSError):
        if not whole:
            path.unlink(missing_ok=True)
            return
        make_private(path.parent)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(whole))
        fresh.replace(path)
