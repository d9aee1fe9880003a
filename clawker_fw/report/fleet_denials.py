"""The answer of `fleet denials`, and how people see it: what agents of many hosts were refused, merged."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import NonNegativeInt, PositiveInt
from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.denials.answer import Denial, DenialsAnswer
from clawker_fw.fleet.hosts import Trouble
from clawker_fw.report.commands import named
from clawker_fw.report.denials import AdvisedRefusal, advised, to_do, within
from clawker_fw.report.documents import Document
from clawker_fw.report.fleet import Row
from clawker_fw.report.spans import counted
from clawker_fw.report.terminal import visible

_MOST_NAMED = 5

HostDenials = tuple[Row, DenialsAnswer | None]
"""A host, and what its agents were refused; None where nothing is up, or nobody could ask."""

EngineOptions = Mapping[str, tuple[str, str]]
"""By the name of a host, the option that chooses its engine, and the option's value."""


@dataclass(frozen=True, slots=True)
class RefusingHost:
    """A host where something was refused."""

    host: str
    times: PositiveInt
    last: str
    agents: tuple[str, ...]
    """The agents' names, or addresses where nobody knows a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDenial(AdvisedRefusal):
    """One thing that agents were refused, on one host or several: how often on all together, and when last."""

    remedy: str | None
    command: str | None
    """The command that would allow it, if one is enough."""
    hosts: tuple[RefusingHost, ...]

    @classmethod
    def of(cls, by_host: dict[str, list[Denial]], engines: EngineOptions) -> "FleetDenial":
        hosts = tuple(_on_host(name, denials) for name, denials in by_host.items())
        *others, latest_host = by_host
        latest = by_host[latest_host][-1]
        remedy = latest.advice.remedy
        reloads = [named("`clawker-fw reload`", engines[name]) for name in others[:_MOST_NAMED] if remedy.command]
        elsewhere = f"Then apply it elsewhere: {', '.join(reloads)}." if reloads else ""
        last = max((each.last for each in hosts), key=datetime.fromisoformat)
        return cls(
            **{**advised(latest), "last": last, "times": sum(each.times for each in hosts)},
            remedy=" ".join(filter(None, (named(remedy.text or "", engines[latest_host]), elsewhere))) or None,
            command=named(remedy.command or "", engines[latest_host]) or None,
            hosts=hosts,
        )


def _on_host(name: str, denials: Sequence[Denial]) -> RefusingHost:
    agents = dict.fromkeys(each.agent or each.counted.refusal.agent for each in denials)
    times = sum(each.counted.times for each in denials)
    return RefusingHost(name, times, denials[-1].counted.last, tuple(agents))


@dataclass(frozen=True, slots=True)
class HostNotAsked:
    """A host whose refusals are not in the answer."""

    name: str
    error: Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDenialsDocument(Document):
    """The answer of `fleet denials`."""

    denials: list[FleetDenial]
    """The latest last; with `--top`, the most frequent first."""
    left_out: NonNegativeInt
    """Different refusals that `--top` has left out."""
    uncounted: NonNegativeInt
    """Refusals that were too many, or too fast, to be told apart."""
    hosts: NonNegativeInt
    """How many hosts there are."""
    not_asked: list[HostNotAsked]

    @classmethod
    def of(
        cls, hosts: Sequence[HostDenials], engines: EngineOptions, top: int | None = None
    ) -> "FleetDenialsDocument":
        same: defaultdict[tuple[object, ...], dict[str, list[Denial]]] = defaultdict(dict)
        uncounted = 0
        for row, answer in hosts:
            for each in answer.denials if answer else ():
                refusal = each.counted.refusal
                what = (refusal.protocol, refusal.name, refusal.tried, refusal.port, refusal.reason)
                same[refusal.sibling, *what].setdefault(row.name, []).append(each)
            if answer:
                uncounted += answer.more + answer.unattributed + sum(each.times for each in answer.suppressed)
        found = [FleetDenial.of(by_host, engines) for by_host in same.values()]
        found.sort(key=lambda denial: datetime.fromisoformat(denial.last))
        chosen = found if top is None else sorted(found, key=lambda each: -each.times)[:top]
        return cls(
            denials=chosen,
            left_out=len(found) - len(chosen),
            uncounted=uncounted,
            hosts=len(hosts),
            not_asked=[HostNotAsked(row.name, row.error) for row, _ in hosts if row.error],
        )


def report(found: FleetDenialsDocument, since: float | None) -> RenderableType:
    """Return the refusals for people, each with its hosts, then the hosts that could not be asked.

    `since` is the time that was asked for, in seconds.
    """
    lines = [line for each in found.denials for line in _lines(each)]
    return Group(
        Text(_verdict(found, within(since)), "bold"),
        *lines,
        *(Text(visible(each), "dim") for each in _notes(found)),
    )


def _verdict(found: FleetDenialsDocument, when: str) -> str:
    silent = len(found.not_asked)
    missing = f"; {counted(silent, 'host')} did not answer" if silent else ""
    if found.denials:
        times = sum(each.times for each in found.denials)
        hosts = {one.host for each in found.denials for one in each.hosts}
        where = f"{len(hosts):,} of {counted(found.hosts, 'host')}"
        advice = to_do(each.command for each in found.denials)
        return f"{counted(times, 'refusal')} on {where}{when}{advice}{missing}."
    if found.hosts == silent:
        return f"Nothing is known of refusals{missing}."
    if found.uncounted:
        return f"No refusal{when} can be told apart from others{missing}."
    return f"Nothing was refused on {counted(found.hosts - silent, 'host')}{when}{missing}."


def _lines(each: FleetDenial) -> Iterator[Text]:
    moment = datetime.fromisoformat(each.last).astimezone()
    name = each.name or each.tried or "no name"
    asked = f"dns {name}" if each.protocol == "dns" else f"{each.protocol} {name}:{each.port}"
    yield Text.assemble(
        (f"{moment:%m-%d %H:%M:%S}  ", "dim"),
        (visible(asked), "bold"),
        (f"  {each.times:,} times" if each.times > 1 else "", "dim"),
    )
    named = [f"{one.host} ({', '.join(one.agents[:_MOST_NAMED])})" for one in each.hosts[:_MOST_NAMED]]
    more = len(each.hosts) - len(named)
    yield Text(visible(f"  on {', '.join(named)}" + (f" and {more:,} more hosts" if more else "")))
    yield Text(visible(f"  {each.sibling}: {each.message} ({each.reason})"), "yellow" if each.failed else "red")
    if each.remedy:
        yield Text(visible(f"  {each.remedy}"))


def _notes(found: FleetDenialsDocument) -> Iterator[str]:
    if found.left_out:
        yield f"{found.left_out:,} more different refusals; leave out --top for all."
    if found.uncounted:
        yield f"{found.uncounted:,} more refusals, too many or too fast to be told apart."
    for each in found.not_asked:
        yield f"Not in this answer: {each.name}: {each.error.message}"
