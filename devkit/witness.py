"""What the other side saw: whether somebody was refused is decided by those who should not have been reached.

That a request fails proves little. It may fail because nobody is there, because a name is mistyped, because a
program has died. So every attempt is followed by a control: a request that is allowed, made in the same way, which
has to arrive. When it stands in the log of an origin, whatever the attempt has led to stands there, too.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from devkit.peers import Answer, Peer
from devkit.waiting import until

Event = dict[str, Any]


class Teller(Protocol):
    """An origin that tells what it sees (`--tell`)."""

    def said(self) -> tuple[Event, ...]:
        """Return all that it has told so far."""


@dataclass(frozen=True)
class Seen:
    """What an attempt was answered, and the connections and requests that it has led to anywhere."""

    answer: Answer
    events: Sequence[Event]

    @property
    def requests(self) -> list[Event]:
        """The requests that arrived somewhere."""
        return [event for event in self.events if event["event"] == "request"]


@dataclass(frozen=True)
class Witnesses:
    """Origins whose logs decide. The first of them is the one that the control reaches."""

    tellers: Sequence[Teller]

    def watch(self, attempt: Callable[[], Answer], agent: Peer, control: str, *options: str) -> Seen:
        """Make an attempt, then a request that is allowed, and return what the attempt has led to.

        `control` is the URL of the allowed request, without a path, and `options` are those of `get`.

        Raises:
            AssertionError: when the control does not arrive: nothing would be proven by an attempt that fails.
        """
        before = [len(teller.said()) for teller in self.tellers]
        answer = attempt()
        target = f"/control-{secrets.token_hex(4)}"
        arrived = agent.get(f"{control}{target}", *options)
        if not arrived.ok:
            raise AssertionError(f"the control {control} does not arrive: {arrived.last}")

        def events() -> list[Event]:
            return [
                event
                for teller, known in zip(self.tellers, before, strict=True)
                for event in teller.said()[known:]
                if event["event"] in {"connection", "request"}
            ]

        def told() -> Event | None:
            return next((event for event in events() if event.get("target") == target), None)

        mine = until(told)
        return Seen(answer, [event for event in events() if not _of(event, mine)])

    def refused(self, attempt: Callable[[], Answer], agent: Peer, control: str, *options: str) -> Answer:
        """Make an attempt that must reach nobody, and return what it was answered."""
        seen = self.watch(attempt, agent, control, *options)
        if seen.events:
            raise AssertionError(f"somebody was reached: {seen.events}; the answer was {seen.answer.last}")
        return seen.answer


def _of(event: Event, request: Event) -> bool:
    """Whether an event is a request itself, or the connection that it came over."""
    if event["event"] == "request":
        return bool(event["target"] == request["target"])
    return bool(event["remote_address"] == request["remote_address"])
