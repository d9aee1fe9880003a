"""The status of a stack for people: it fits 80 columns unless a name or a path does not."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.agents.judge import Confinement
from clawker_fw.model import Verdict
from clawker_fw.report import verdict
from clawker_fw.report.commands import in_text
from clawker_fw.report.siblings import SiblingStatus
from clawker_fw.report.spans import counted, remaining
from clawker_fw.report.status import RefusedAgent, StatusDocument
from clawker_fw.report.summary import PREFIX
from clawker_fw.report.terminal import visible
from clawker_fw.report.text import Rows, styled_verdict
from clawker_fw.stack import labels
from clawker_fw.stack.capacity import written

_MOST = 20
"""How many rules or agents a person reads."""

_STATES = {Confinement.FENCED: "green", Confinement.WEAK: "yellow", Confinement.OPEN: "bold red"}


def status_report(
    status: StatusDocument,
    now: float,
    options: Sequence[str] = (),
    *,
    verbose: bool = False,
) -> RenderableType:
    """Return the state of the stack, and what it is about. `now` is in seconds since 1970.

    Commands need `options` for the same stack. With `verbose`, the drift labels follow the siblings.
    """
    engine = visible(f"{status.project} on engine {status.engine.version}")
    left = [
        Text(visible(f"Left over, to be removed by `run`: {kind.removesuffix('s')} {name}"))
        for kind, names in asdict(status.leftovers).items()
        for name in names
    ]
    sources = [Text(visible(line)) for line in status.sources]
    notices = [verdict.busy(status.busy)] if status.busy else []
    notices += [verdict.warning(each, in_text(each.message, options)) for each in status.notices]
    if status.absent:
        start = in_text("Start it with `clawker-fw run`.", options)
        return Group(Text.assemble(("not up", "bold"), f"  {engine}. {start}"), *notices, *left, *sources)
    live = "live rules unknown" if status.live_rules is None else f"{counted(status.live_rules, 'rule')} live"
    attached = counted(status.attached, "agent")
    parts: list[RenderableType] = [
        Text.assemble(styled_verdict(status.verdict), f"  {engine}: {live}, {attached} attached"),
        *_todo(status, options),
        *notices,
        *(Text(line) for line in status.said),
        *_rules(status, options),
        Text(""),
        _siblings(status, now),
        *(_labels(status) if verbose else ()),
        *_records(status),
        *_limited(status),
    ]
    if status.agents:
        parts += [Text(""), *_agents(status.agents, now)]
    if status.refusals:
        parts += [Text(""), *_refusals(status, options)]
    parts += [Text(""), *left]
    if status.agent and not status.unread:  # its flags need the settings
        command = in_text("docker run --rm -it $(clawker-fw agent flags) IMAGE", options)
        parts.append(Text.assemble("Attach an agent:  ", (visible(command), "bold"), no_wrap=True))
    return Group(*parts, *sources)


def _todo(status: StatusDocument, options: Sequence[str]) -> Iterator[Text]:
    differing = [each.verdict for each in status.siblings if each.verdict is not Verdict.CURRENT]
    words = verdict.todo(status.verdict, differing[0] if differing and not status.unread else Verdict.CURRENT)
    if words:
        yield Text(in_text(f"{words[:1].upper()}{words[1:]}.", options))


def _rules(status: StatusDocument, options: Sequence[str]) -> Iterator[Text]:
    """Yield the live rules by protocol, whether the settings have others, and those that end."""
    if protocols := status.live_protocols:
        yield Text(visible("Rules: " + ", ".join(f"{number:,} {name}" for name, number in protocols.items())))
    if status.other_rules and status.rules is not None:
        other = counted(status.rules, "rule")
        apply = in_text("Apply them with `clawker-fw reload`.", options)
        yield Text(f"The settings have different rules ({other}). {apply}")
    for each in status.ending[:_MOST]:
        yield Text(visible(f"{remaining(each.seconds)} left of {each.rule}"))


def _siblings(status: StatusDocument, now: float) -> RenderableType:
    rows: list[list[Text | str]] = [
        [
            each.name.value,
            styled_verdict(each.verdict),
            each.version or "-",
            f"{each.state} {each.health or ''}".strip(),
            _age(each.since or "", now) if each.state == "running" else "-",
            each.live_version or "-",
        ]
        for each in status.siblings
    ]
    table = Rows(("container", "verdict", "version", "state", "up", "live version"), rows)
    details = [
        Text(visible(f"  {each.name}: {_details(each)}"), "dim") for each in status.siblings if each.container
    ]
    return Group(table, *details)


def _labels(status: StatusDocument) -> Iterator[Text]:
    """Yield the drift labels of each sibling, with the value that it should have where that is another one."""
    for each, (there, wanted) in status.labels.items():
        for name in labels.DRIFT_LABELS:
            running = there.get(name, "nothing")
            desired = wanted.get(name, running)
            value = running if running == desired else f"{running} → {desired}"
            yield Text(visible(f"  {each}: {name.removeprefix(PREFIX)}: {value}"), "dim")


def _details(sibling: SiblingStatus) -> str:
    parts = [sibling.address or "no address"]
    if has := sibling.resources:
        parts += [
            counted(has.processors, "processor"),
            written(has.memory),
            counted(has.connections, "connection"),
        ]
    return ", ".join(parts)


def _refusals(status: StatusDocument, options: Sequence[str]) -> Iterator[RenderableType]:
    """Yield the last refusals of the last hour, the latest last."""
    rows = [
        [
            f"{datetime.fromisoformat(each.last).astimezone():%H:%M:%S}",
            each.agent or each.address,
            f"{each.protocol} {each.name or each.tried or '-'}:{each.port}",
            each.reason,
            f"{each.times:,}",
        ]
        for each in status.refusals
    ]
    yield Rows(("refused", "agent", "what", "reason", "times"), rows)
    yield Text(in_text("  `clawker-fw denials` has all of them, and what would allow each.", options), "dim")


def _agents(agents: Sequence[RefusedAgent], now: float) -> Iterator[RenderableType]:
    """Yield the agents, those that are least confined first, and why."""
    worst = sorted(agents, key=lambda each: -list(Confinement).index(each.state))
    rows: list[list[Text | str]] = [
        [
            each.name,
            Text(each.state.value, _STATES[each.state]),
            each.address or "-",
            _age(each.since or "", now),
            f"{each.refused:,}",
            each.image.rpartition("/")[2].partition("@")[0],
        ]
        for each in worst[:_MOST]
    ]
    yield Rows(("agent", "state", "address", "up", "refused", "image"), rows)
    for each in worst[:_MOST]:
        for reason in each.reasons:
            yield Text(visible(f"  {each.name}: {reason.text}"))
        if each.published:
            yield Text(visible(f"  {each.name}: published at {', '.join(each.published)}"))
    if len(agents) > _MOST:
        yield Text(f"  and {len(agents) - _MOST:,} more")


def _records(status: StatusDocument) -> list[RenderableType]:
    """Return a line for each sibling that has sent records to a collector, or lost some."""
    return [
        Text(f"{each.name} has sent {records.sent:,} records to the collector; {records.lost:,} were lost.")
        for each in status.siblings
        if (records := each.telemetry) and (records.sent or records.lost)
    ]


def _limited(status: StatusDocument) -> list[RenderableType]:
    return [
        Text(
            visible(
                f"{sibling.name} has refused {counted(each.connections, 'connection')}, "
                f"{counted(each.queries, 'query', 'queries')} and {counted(each.datagrams, 'datagram')} "
                f"beyond the limits of {each.agent or each.address}."
            )
        )
        for sibling in status.siblings
        for each in sibling.limited
    ]


def _age(started: str, now: float) -> str:
    """Return for how long something has been running, by the engine's record of its start (RFC 3339)."""
    try:
        return remaining(now - datetime.fromisoformat(started).timestamp())
    except ValueError:
        return "-"
