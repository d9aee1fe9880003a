"""Evidence of refusals from the logs of origins, which should not have been reached.

A failed request proves little: the server may be missing, or a name mistyped. So each attempt is followed by an
allowed request in the same way, which must arrive. Then the origin has logged every effect of the attempt.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from devkit.peers import Answer, Peer
from devkit.waiting import until
from devkit.world import Program

Event = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """The result of an attempt, and the connections, requests and queries that arrived anywhere because of it."""

    answer: Answer
    events: Sequence[Event]


@dataclass(frozen=True)
class Witnesses:
    """Origins whose logs are evidence (`--tell`). The control reaches the first of them."""

    origins: Sequence[Program | Peer]

    def watch(
        self,
        attempt: Callable[[], Answer],
        agent: Peer,
        control: str,
        *options: str,
        settle: Callable[[], object] = lambda: None,
    ) -> Seen:
        """Make an attempt, then an allowed request, and return the effects of the attempt.

        `control` is the URL of the allowed request, without a path, and `options` are those of `get`. `settle`
        waits for further evidence. Raises AssertionError if the control does not arrive.
        """
        before = [len(origin.said()) for origin in self.origins]
        answer = attempt()
        target = f"/control-{secrets.token_hex(4)}"
        arrived = agent.get(f"{control}{target}", *options)
        if not arrived.ok:
            raise AssertionError(f"the control {control} does not arrive: {arrived.last}")

        def events() -> list[Event]:
            return [
                event
                for origin, earlier in zip(self.origins, before, strict=True)
                for event in origin.said()[earlier:]
                if event["event"] in {"connection", "request", "query"}
            ]

        def control_event() -> Event | None:
            return next((event for event in events() if event.get("target") == target), None)

        mine = until(control_event)
        settle()
        return Seen(answer, [event for event in events() if not _of(event, mine)])

    def refused(self, attempt: Callable[[], Answer], agent: Peer, control: str, *options: str) -> Answer:
        seen = self.watch(attempt, agent, control, *options)
        if seen.events:
            raise AssertionError(f"somebody was reached: {seen.events}; the answer was {seen.answer.last}")
        return seen.answer


def _of(event: Event, request: Event) -> bool:
    if event["event"] == "request":
        return bool(event["target"] == request["target"])
    return bool(event.get("remote_address") == request["remote_address"])
