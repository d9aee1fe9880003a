"""Which agents come, move to another address, and leave, so that addresses in records have names. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from clawker_fw.agents.judge import Agent


class Change(StrEnum):
    """What an agent has done."""

    CAME = "came"
    MOVED = "moved"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Presence:
    """One change. An agent that has left is as it was last seen; `before` is the address of one that has moved."""

    change: Change
    agent: Agent
    before: str = ""


class ChangeAttribute(NamedTuple):
    """An attribute of the record of a change: its name, the field of the log, and what it says."""

    name: str
    field: str
    meaning: str


ATTRIBUTES = (
    ChangeAttribute("client.address", "address", "the agent's address, as in the records of Envoy and CoreDNS"),
    ChangeAttribute("container.name", "agent", "the name of its container"),
    ChangeAttribute("container.id", "id", "the container's id"),
    ChangeAttribute("container.image.name", "image", "the image that it is made from"),
    ChangeAttribute("clawker_fw.change", "change", "`came`, `moved` to another address, or `left`"),
    ChangeAttribute("clawker_fw.since", "since", "when the container was started"),
    ChangeAttribute("clawker_fw.address_before", "address_before", "the former address of one that has moved"),
)


def fields(seen: Presence) -> dict[str, str]:
    """Return the fields of the record of a change. Empty ones are left out."""
    agent = seen.agent
    found = {
        "change": seen.change.value,
        "agent": agent.name,
        "id": agent.id,
        "image": agent.image,
        "address": agent.address,
        "address_before": seen.before,
        "since": agent.since,
    }
    return {name: value for name, value in found.items() if value}


def attributes(found: dict[str, str]) -> dict[str, str]:
    """Return the attributes of the record of a change, from its fields."""
    return {each.name: found[each.field] for each in ATTRIBUTES if each.field in found}


class Register:
    """The agents whose presence has been reported."""

    def __init__(self) -> None:
        self._known: dict[str, Agent] = {}

    def changes(self, agents: Iterable[Agent]) -> Iterator[Presence]:
        """Yield what has changed since the last look."""
        before, self._known = self._known, {each.id: each for each in agents}
        yield from (Presence(Change.LEFT, each) for id_, each in before.items() if id_ not in self._known)
        for id_, each in self._known.items():
            known = before.get(id_)
            if known is None or known.since != each.since:
                yield Presence(Change.CAME, each)
            elif known.address != each.address:
                yield Presence(Change.MOVED, each, known.address)
