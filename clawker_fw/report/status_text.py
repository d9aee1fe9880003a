"""The status of a stack for people: it fits 80 columns unless a name or a path does not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from clawker_fw.agents.judge import Agent, Confinement
from clawker_fw.agents.trust import roots_of
from clawker_fw.model import Role, Verdict
from clawker_fw.report import verdict
from clawker_fw.report.commands import in_text
from clawker_fw.report.siblings import SiblingStatus
from clawker_fw.report.spans import counted, remaining
from clawker_fw.report.status import MOST_REFUSALS, Status
from clawker_fw.report.summary import PREFIX
from clawker_fw.report.terminal import visible
from clawker_fw.report.text import Rows, styled_verdict
from clawker_fw.stack import labels
from clawker_fw.stack.capacity import written

_MOST = 20
"""How many rules or agents a person reads."""

_STATES = {Confinement.FENCED: "green", Confinement.WEAK: "yellow", Confinement.OPEN: "bold red"}


def status_report(
    status: Status,
    now: float,
    short: str = "",
    options: Sequence[str] = (),
    *,
    verbose: bool = False,
) -> RenderableType:
    """Return the state of the stack. `now` is in seconds since 1970.

    `short` is a form of the command that attaches an agent for terminals that are too narrow for its flags.
    Commands need `options` for the same stack. With `verbose`, the drift labels follow the siblings.
    """
    observed = status.observed
    engine = visible(f"{status.project} on engine {observed.engine.version}")
    left = [
        Text(visible(f"Left over, to be removed by `run`: {kind.removesuffix('s')} {name}"))
        for kind, names in asdict(status.leftovers).items()
        for name in names
    ]
    notices = [verdict.busy(status.busy)] if status.busy else []
    notices += [verdict.warning(each, in_text(each.message, options)) for each in status.notices]
    if observed.absent:
        start = in_text("Start it with `clawker-fw run`.", options)
        return Group(Text.assemble(("not up", "bold"), f"  {engine}. {start}"), *notices, *left)
    live = "live rules unknown" if status.live is None else f"{counted(status.live.count, 'rule')} live"
    attached = counted(len(observed.attached.get(Role.AGENTS, ())), "agent")
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
        parts += [Text(""), *_agents(status.agents, status.refused, now)]
    if status.refusals:
        parts += [Text(""), *_refusals(status, options)]
    parts += [Text(""), *left]
    # Where connections are inspected, only the commands that attach agents know, and make, all that they need.
    full = f"docker run --rm -it {' '.join(status.attached.flags)} IMAGE"
    if status.attachable:
        parts.append(_Attach(short if roots_of(observed) else full, short))
    return Group(*parts)


def with_sources(report: RenderableType, status: Status) -> RenderableType:
    """Return a report, followed by the settings and the engine that it is about."""
    return Group(report, *(Text(visible(line)) for line in status.source_lines))


class _Attach:
    """The command that attaches an agent, always in one line, to be copied."""

    def __init__(self, full: str, short: str) -> None:
        self._full, self._short = full, short

    def __rich_console__(self, target: Console, options: ConsoleOptions) -> Iterator[Text]:
        words = "Attach an agent:  "
        fits = len(words) + len(self._full) <= options.max_width or not self._short
        yield Text.assemble(words, (visible(self._full if fits else self._short), "bold"), no_wrap=True)


def _todo(status: Status, options: Sequence[str]) -> Iterator[Text]:
    siblings = next((each for each in status.verdicts.values() if each is not Verdict.CURRENT), Verdict.CURRENT)
    words = verdict.todo(status.verdict, siblings if status.blueprint else Verdict.CURRENT)
    if words:
        yield Text(in_text(f"{words[:1].upper()}{words[1:]}.", options))


def _rules(status: Status, options: Sequence[str]) -> Iterator[Text]:
    """Yield the live rules by protocol, whether the settings have others, and those that end."""
    if protocols := status.protocols:
        yield Text(
            visible("Rules: " + ", ".join(f"{number:,} {name}" for name, number in sorted(protocols.items())))
        )
    if status.live is not None and status.wanted is not None and status.live != status.wanted:
        other = counted(status.wanted.count, "rule")
        apply = in_text("Apply them with `clawker-fw reload`.", options)
        yield Text(f"The settings have different rules ({other}). {apply}")
    for rule, seconds in status.ending[:_MOST]:
        yield Text(visible(f"{remaining(seconds)} left of {rule}"))


def _siblings(status: Status, now: float) -> RenderableType:
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


def _labels(status: Status) -> Iterator[Text]:
    """Yield the drift labels of each sibling, with the value that it should have where that is another one."""
    for each, seen in status.observed.siblings.items():
        for name in labels.DRIFT_LABELS:
            running = seen.container.labels.get(name, "nothing")
            desired = status.labels.get(each, {}).get(name, running)
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


def _refusals(status: Status, options: Sequence[str]) -> Iterator[RenderableType]:
    """Yield the last refusals of the last hour, the latest last."""
    rows = [
        [
            f"{datetime.fromisoformat(each.last).astimezone():%H:%M:%S}",
            name or each.refusal.agent,
            f"{each.refusal.protocol} {each.refusal.name or each.refusal.tried or '-'}:{each.refusal.port}",
            each.refusal.reason,
            f"{each.times:,}",
        ]
        for each, name in status.refusals[-MOST_REFUSALS:]
    ]
    yield Rows(("refused", "agent", "what", "reason", "times"), rows)
    yield Text(in_text("  `clawker-fw denials` has all of them, and what would allow each.", options), "dim")


def _agents(agents: Sequence[Agent], refused: Mapping[str, int], now: float) -> Iterator[RenderableType]:
    """Yield the agents, those that are least confined first, and why."""
    worst = sorted(agents, key=lambda each: -list(Confinement).index(each.confinement))
    rows: list[list[Text | str]] = [
        [
            each.name,
            Text(each.confinement.value, _STATES[each.confinement]),
            each.address or "-",
            _age(each.since, now),
            f"{refused.get(each.name, 0):,}",
            each.image.rpartition("/")[2].partition("@")[0],
        ]
        for each in worst[:_MOST]
    ]
    yield Rows(("agent", "state", "address", "up", "refused", "image"), rows)
    for each in worst[:_MOST]:
        for reason in (*each.openings, *each.weaknesses):
            yield Text(visible(f"  {each.name}: {reason.phrase}"))
        if each.published:
            yield Text(visible(f"  {each.name}: published at {', '.join(each.published)}"))
    if len(agents) > _MOST:
        yield Text(f"  and {len(agents) - _MOST:,} more")


def _records(status: Status) -> list[RenderableType]:
    """Return a line for each sibling that has sent records to a collector, or lost some."""
    return [
        Text(f"{each.name} has sent {records.sent:,} records to the collector; {records.lost:,} were lost.")
        for each in status.siblings
        if (records := each.telemetry) and (records.sent or records.lost)
    ]


def _limited(status: Status) -> list[RenderableType]:
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
