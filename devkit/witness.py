"""Evidence of refusals from the logs of origins, which should not have been reached.

A failed request proves little. It may fail because there is no server, because a name is mistyped, or because a
program has died. Therefore every attempt is followed by a positive control: an allowed request, sent in the same
way, which must arrive. When an origin has logged the control, it has also logged every effect of the attempt. What
it logs late of something that happened before is told apart by its time.
"""

import secrets
import time
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
        waits for further evidence, before the effects are read.

        Raises:
            AssertionError: when the control does not arrive, because a failed attempt would then prove nothing.
        """
        began = int(time.time() * 1000)
        answer = attempt()
        target = f"/control-{secrets.token_hex(4)}"
        arrived = agent.get(f"{control}{target}", *options)
        if not arrived.ok:
            raise AssertionError(f"the control {control} does not arrive: {arrived.last}")

        def events() -> list[Event]:
            return [
                event
                for origin in self.origins
                for event in origin.said()
                if event["event"] in {"connection", "request", "query"} and event["at_ms"] >= began
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
