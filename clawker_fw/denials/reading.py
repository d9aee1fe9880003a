"""Reads refusals from the logs of Envoy and CoreDNS, and from the records that replacements handed over.

An engine reads a log quickly from its end, but scans all of it for a time. So ever more lines are requested until
they are old enough. Fewer lines than requested mean the whole log, or a truncated line
(`clawker_fw/engine/newest.py`). Then the lines from the whole log count, and all lines after the last truncation.
The lines between them form a gap in the numbering.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from clawker_fw.agents.names import Attached, own_names
from clawker_fw.background import in_background, shared_out
from clawker_fw.denials.refusal import Refusals
from clawker_fw.denials.tally import Tally, together
from clawker_fw.engine.newest import newest_lines
from clawker_fw.engine.outputs import stamp
from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import EngineError, NotFoundError, RefusedError
from clawker_fw.fwctl import NO_ANSWER, HelperReader, Suppressed
from clawker_fw.model.containers import ContainerSummary
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.reconcile.handed_over import handed_over
from clawker_fw.stack.labels import sibling_of
from clawker_fw.stack.topology import network_names

_ARRIVES_WITHIN, _LOOK_EVERY = 1.0, 0.2
"""The delay until a line is in the engine's log, and the interval of checks, in seconds."""

_FIRST_LINES, _FURTHER = 10_000, 4
"""The number of lines requested first, and its factor while they are not old enough."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The containers with logs, and the names behind addresses: agents, and our containers (`own`).

    `doctor` and `explain --live` try names from CoreDNS's container.
    """

    containers: tuple[tuple[Sibling, str], ...]
    agents: Mapping[str, Attached]
    own: Mapping[str, str]

    def name_of(self, address: str, moment: str) -> str:
        """Return who had an address at a time (RFC 3339), or "" if no current container ran then."""
        if address in self.own:
            return self.own[address]
        agent = self.agents.get(address)
        return agent.name if agent and agent.started <= _seconds(moment) else ""


def sources(reader: EngineReader, project: str) -> Sources:
    """Find a project's containers, also replaced ones, and its agents. Raise RefusedError if it is not up."""
    network = network_names(project)[Role.AGENTS]
    firewall: list[tuple[Sibling, str]] = []
    attached: list[ContainerSummary] = []
    for container in reader.listing():
        sibling = sibling_of(container, project)
        if sibling is not None:
            firewall.append((sibling, container.id))
        elif container.attached and network in container.networks and container.networks[network].address:
            attached.append(container)
    if not firewall:
        raise RefusedError(
            "not-up", f"{project} is not up, so nothing is on record.", hint="Start it with `clawker-fw run`."
        )
    networks = [view for view in reader.networks() if view.name == network]
    subnets = (subnet for view in networks for subnet in view.subnets)
    words = {network, *(view.id for view in networks)}
    return Sources(tuple(firewall), _attached(reader, network, words, attached), own_names(project, subnets))


def _attached(
    reader: EngineReader, network: str, words: Collection[str], containers: Sequence[ContainerSummary]
) -> dict[str, Attached]:
    """Return agents by address. Each is inspected, because a list does not say when a container was started.

    `words` are the ways to name the network when creating a container.
    """

    def read(some: Sequence[ContainerSummary]) -> dict[str, Attached]:
        agents: dict[str, Attached] = {}
        for container in some:
            with suppress(EngineError):  # the refusals are shown without its name
                if view := reader.container(container.id):
                    agent = Attached(view.name, _seconds(view.started), view.network_mode in words)
                    agents[container.networks[network].address] = agent
        return agents

    return {
        address: agent for future in shared_out(read, containers) for address, agent in future.result().items()
    }


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


class Reading:
    """The logs of containers, read in the background from the start."""

    def __init__(self, reader: EngineReader, log_sources: Sources, since: float | None = None) -> None:
        """Read the refusals since a time in seconds since 1970, or all that are stored."""
        begin = b"" if since is None else stamp(since)
        self._begun: list[Future[Tally]] = [
            in_background(_to_the_end, reader, sibling, container, begin)
            for sibling, container in log_sources.containers
        ]

    def refusals(self) -> Refusals:
        """Return the refusals. Raise EngineError if a log can't be read."""
        tallies = []
        for future in self._begun:
            with suppress(NotFoundError):  # replaced meanwhile
                tallies.append(future.result())
        return together(tallies)


def _to_the_end(reader: EngineReader, sibling: Sibling, container: str, since: bytes) -> Tally:
    """Count a container's refusals, with a gap if the last lines are missing. Some wait for room in its log."""
    asking = in_background(_suppressed, reader, container)
    tally = records(reader, sibling, container, since, asking)
    end = time.monotonic() + _ARRIVES_WITHIN
    while gap := tally.numbering.missing_after(tally.reported.lines):
        if time.monotonic() > end:
            tally.gaps.append(gap)
            break
        time.sleep(_LOOK_EVERY)
        tally = records(reader, sibling, container, since, asking)
    tally.add_waiting(since)
    return tally


def _suppressed(reader: EngineReader, container: str) -> Suppressed | None:
    """Return a helper's counts of refusals, or None if it has none to report."""
    try:
        return HelperReader(reader, container).suppressed()
    except NO_ANSWER:
        return None
    except EngineError:
        view = reader.container(container)
        if view and view.running:
            raise
        return None  # replaced meanwhile


def records(
    reader: EngineReader,
    sibling: Sibling,
    container: str,
    since: bytes,
    asking: Future[Suppressed | None] | None = None,
) -> Tally:
    """Count a container's lines since an engine's time, or all, except those that its helper's answer includes.

    Raises:
        EngineError: when they are unreadable.
    """
    number = _FIRST_LINES if since else None
    earlier = in_background(handed_over, reader, container)
    while True:
        first, last, lines = b"", b"", 0
        with reader.log(container, number) as log:
            suppressed = asking.result() if asking else None
            tally = Tally(sibling, suppressed)
            tally.add(earlier.result(), since)
            for some in log:
                first, last = first or some[0], some[-1]
                lines += len(some)
                tally.add(some, since, own=True)
        if number is None or first < since:
            break
        number = number * _FURTHER if lines >= number else None
    complete_to = tally.gaps[-1].since.encode() if tally.gaps else last
    newest = newest_lines(reader, container, complete_to)
    if newest and newest[0] <= complete_to:
        return tally
    tally = Tally(sibling, suppressed)
    tally.add(earlier.result(), since)
    with reader.log(container, None) as log:
        before = [line for some in log for line in some if not newest or line < newest[0]]
    tally.add(before + newest, since, own=True)
    return tally
