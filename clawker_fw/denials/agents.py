"""The names of agents by their addresses, also of agents that are gone, if this machine has seen them before.

An engine tells the address of a container only while it runs, and gives it to another one later. So whoever looks
at the agents remembers them in a file of the user's cache: `denials`, and a watcher that counts refusals. A file
that can't be read or written is ignored.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import platformdirs

_MOST_REMEMBERED = 1_000
"""Of each stack, those that were seen last."""


@dataclass(slots=True)
class _Seen:
    """An agent, and when it was seen with its address first and last, in seconds since 1970."""

    address: str
    name: str
    first: float
    last: float


def remembered_at() -> Path:
    """Return the path of the file."""
    return platformdirs.user_cache_path("clawker-fw") / "agents.json"


def forget() -> None:
    """Remove the file."""
    with suppress(OSError):
        remembered_at().unlink(missing_ok=True)


class AgentNames:
    """The agents of one stack."""

    def __init__(self, engine: str, project: str) -> None:
        """Read what is remembered of the stack of a project at an engine's address."""
        self._stack = f"{engine} {project}"
        self._seen = _read(self._stack)

    def look(self, agents: Mapping[str, str], now: float) -> None:
        """Remember the names of the agents that have addresses now."""
        latest = {each.address: each for each in self._seen}
        for address, name in agents.items():
            known = latest.get(address)
            if known and known.name == name:
                known.last = now
            else:
                self._seen.append(_Seen(address, name, now, now))
        self._seen = sorted(self._seen, key=lambda each: each.last)[-_MOST_REMEMBERED:]
        _write(self._stack, self._seen)

    def of(self, address: str, moment: str) -> str:
        """Return the name of the agent that had an address at a moment (RFC 3339), or "" if nobody knows."""
        when = datetime.fromisoformat(moment).timestamp()
        having = sorted((each for each in self._seen if each.address == address), key=lambda each: each.first)
        still = (each.name for each in having if each.last >= when)
        return next(still, having[-1].name if having else "")


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
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(whole))
        fresh.replace(path)
