"""What agents of many hosts were refused, merged by what they had asked for."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import NonNegativeInt, PositiveInt
from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.denials.answer import Denial, DenialsAnswer
from clawker_fw.fleet.row import Row
from clawker_fw.model import Sibling
from clawker_fw.report.denials import is_failure
from clawker_fw.report.terminal import visible

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for, and the reason why it was refused."""

    sibling: Sibling
    protocol: str
    name: str
    tried: str
    port: int
    reason: str


@dataclass(frozen=True, slots=True)
class RefusedHere:
    """One thing that agents of a host were refused."""

    wanted: Wanted
    times: int
    last: str
    agents: tuple[str, ...]
    message: str
    remedy: str
    command: str
    allowed: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class HostDenials:
    """What agents of one host were refused. The row says who it is, and why it was not asked, if so."""

    row: Row
    refused: tuple[RefusedHere, ...] = ()
    uncounted: int = 0
    """Refusals that were too many, or too fast, to be told apart."""


@dataclass(frozen=True, slots=True)
class RefusingHost:
    """A host where something was refused."""

    host: str
    times: PositiveInt
    last: str
    agents: tuple[str, ...]
    """The agents' names, or addresses where nobody knows a name."""


@dataclass(frozen=True, slots=True)
class Merged:
    """One thing that agents were refused, and where: the hosts in the order of their names."""

    refused: RefusedHere
    hosts: tuple[RefusingHost, ...]

    @property
    def times(self) -> int:
        """How often it was refused on all hosts."""
        return sum(each.times for each in self.hosts)

    @property
    def last(self) -> str:
        """When it was refused last, on any host (RFC 3339)."""
        return max((each.last for each in self.hosts), key=datetime.fromisoformat)


@dataclass(frozen=True, slots=True)
class FleetDenials:
    """What agents of all hosts were refused, the latest last, or with `--top` the most frequent first."""

    merged: tuple[Merged, ...]
    rows: tuple[Row, ...]
    left_out: NonNegativeInt
    uncounted: NonNegativeInt


def of_host(row: Row, found: DenialsAnswer) -> HostDenials:
    """Return what agents of a host were refused, whoever they are."""
    by_wanted: defaultdict[Wanted, list[Denial]] = defaultdict(list)
    for each in found.denials:
        refusal = each.counted.refusal
        wanted = (refusal.sibling, refusal.protocol, refusal.name, refusal.tried, refusal.port, refusal.reason)
        by_wanted[Wanted(*wanted)].append(each)
    uncounted = found.more + found.unattributed + sum(each.times for each in found.suppressed)
    return HostDenials(row, tuple(_together(wanted, those) for wanted, those in by_wanted.items()), uncounted)


def _together(wanted: Wanted, denials: Sequence[Denial]) -> RefusedHere:
    latest = denials[-1]
    return RefusedHere(
        wanted=wanted,
        times=sum(each.counted.times for each in denials),
        last=latest.counted.last,
        agents=tuple(dict.fromkeys(each.agent or each.counted.refusal.agent for each in denials)),
        message=latest.advice.message,
        remedy=latest.advice.remedy.text or "",
        command=latest.advice.remedy.command or "",
        allowed=latest.advice.allowed,
        failed=is_failure(latest.counted.refusal),
    )


def merged(hosts: Sequence[HostDenials], top: int | None = None) -> FleetDenials:
    """Return what was refused on any host, each thing once."""
    found: defaultdict[Wanted, list[tuple[str, RefusedHere]]] = defaultdict(list)
    for host in hosts:
        for each in host.refused:
            found[each.wanted].append((host.row.name, each))
    all_ = [
        Merged(
            replace(those[-1][1]),
            tuple(RefusingHost(name, each.times, each.last, each.agents) for name, each in those),
        )
        for those in found.values()
    ]
    all_.sort(key=lambda each: datetime.fromisoformat(each.last))
    chosen = all_ if top is None else sorted(all_, key=lambda each: -each.times)[:top]
    return FleetDenials(
        tuple(chosen),
        tuple(each.row for each in hosts),
        len(all_) - len(chosen),
        sum(each.uncounted for each in hosts),
    )


def report(found: FleetDenials) -> RenderableType:
    """Return the refusals for people, each with its hosts, then the hosts that could not be asked."""
    lines = [line for each in found.merged for line in _lines(each)]
    return Group(*lines, *(Text(visible(each), "dim") for each in _notes(found)))


def _lines(each: Merged) -> Iterator[Text]:
    wanted = each.refused.wanted
    moment = datetime.fromisoformat(each.last).astimezone()
    name = wanted.name or wanted.tried or "no name"
    asked = f"dns {name}" if wanted.protocol == "dns" else f"{wanted.protocol} {name}:{wanted.port}"
    yield Text.assemble(
        (f"{moment:%m-%d %H:%M:%S}  ", "dim"),
        (visible(asked), "bold"),
        (f"  {each.times:,} times" if each.times > 1 else "", "dim"),
    )
    named = [f"{one.host} ({', '.join(one.agents[:_MOST_NAMED])})" for one in each.hosts[:_MOST_NAMED]]
    more = len(each.hosts) - len(named)
    yield Text(visible(f"  on {', '.join(named)}" + (f" and {more:,} more hosts" if more else "")))
    why = f"  {wanted.sibling}: {each.refused.message} ({wanted.reason})"
    yield Text(visible(why), "yellow" if each.refused.failed else "red")
    if each.refused.remedy:
        yield Text(visible(f"  {each.refused.remedy}"))


def _notes(found: FleetDenials) -> Iterator[str]:
    if found.left_out:
        yield f"{found.left_out:,} more different refusals; leave out --top for all."
    if found.uncounted:
        yield f"{found.uncounted:,} more refusals, too many or too fast to be told apart."
    if not (found.merged or found.left_out or found.uncounted):
        yield "Nothing was refused."
    for each in found.rows:
        if each.trouble:
            yield f"Not in this answer: {each.name}: {each.trouble.message}"
