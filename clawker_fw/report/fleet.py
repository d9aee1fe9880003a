"""The answer of `fleet status`, and its text form: a row for each host, and a summary."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt
from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.errors import EngineError, FirewallError
from clawker_fw.fleet.hosts import Host, HostVerdict, LeftOut, StackRelease, Trouble
from clawker_fw.model.differences import Diff, Finding
from clawker_fw.model.json_types import Moment
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import records
from clawker_fw.reconcile.pipeline import Comparison, summary_of
from clawker_fw.reconcile.summary import release_version
from clawker_fw.report import facts, summary, text
from clawker_fw.report.commands import named
from clawker_fw.report.documents import Document, SiblingVerdict
from clawker_fw.report.documents.parts import FileFinding, FindingDocument, ImageFinding, SettingsNamed, finding
from clawker_fw.report.terminal import visible
from clawker_fw.stack import labels
from clawker_fw.stack.release import Release, build_name

AWAY = frozenset({"engine-unreachable", "engine-silent", "engine-denied", "host-late"})
"""The codes of errors for hosts that were not reached. Other errors are about a host's answers."""


@dataclass(frozen=True, slots=True)
class ReleaseUsed:
    """The release of this command."""

    version: str
    build: str


@dataclass(frozen=True, slots=True)
class LiveRules:
    """The rules that a host serves."""

    count: NonNegativeInt
    digest: str
    others_than_most: bool = False
    """Whether most hosts serve rules with another digest."""


@dataclass(frozen=True, slots=True)
class Proof:
    """When the stack was known to be current the last time."""

    at: Moment
    by: Literal["comparison"]
    """`comparison`: by this command."""


@dataclass(frozen=True, slots=True)
class SiblingFinding:
    """A difference, and of which sibling."""

    sibling: Sibling
    finding: FindingDocument | ImageFinding | FileFinding


@dataclass(frozen=True, slots=True)
class Row:
    """One host: its verdict, and what led to it. What is unknown is null."""

    name: str
    verdict: HostVerdict
    """As of `drift`; `no-stack` where nothing is up, and `unreachable` where nobody could ask."""
    endpoint: str | None = None
    """The engine's address."""
    source: str | None = None
    """What named it: a docker context or an option."""
    error: Trouble | None = None
    """Why the host could not be asked, or its answers not be used."""
    engine: str | None = None
    """The engine's version."""
    release: StackRelease | None = None
    """The release that has made the stack."""
    rules: LiveRules | None = None
    agents: NonNegativeInt | None = None
    open_agents: tuple[str, ...] = ()
    """The agents that have a way around the firewall."""
    proven: Proof | None = None
    busy: str | None = None
    """Who is changing the stack at the moment."""
    summary: tuple[str, ...] = ()
    """What closing the differences means, as lines for people."""
    made_from: tuple[str, ...] = ()
    """The other settings files that the stack was made from."""
    seconds: float = 0.0
    """How long it took to ask."""
    findings: list[SiblingFinding] | None = None
    """How it differs; null without `--diff`."""
    differences: Annotated[tuple[Finding, ...], Field(exclude=True)] = ()
    """The findings, without the contents of files."""
    siblings: Annotated[Mapping[Sibling, SiblingVerdict], Field(exclude=True)] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatusDocument(Document):
    """The answer of `fleet status`."""

    current: NonNegativeInt
    """How many hosts are current."""
    total: NonNegativeInt
    """How many hosts there are."""
    summary: str
    """The same in a sentence."""
    settings: SettingsNamed
    """The settings with which each host was compared."""
    release: ReleaseUsed
    left_out: tuple[LeftOut, ...]
    """Docker contexts of the same engine as another one, and `default` without an engine (`same_as` is "")."""
    hosts: list[Row]
    """Sorted by name."""

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        left_out: tuple[LeftOut, ...],
        settings: SettingsNamed,
        release: ReleaseUsed,
        *,
        findings: bool = False,
    ) -> "FleetStatusDocument":
        """Return the answer, with each host's differences if `findings` is true."""
        usual = _majority(rows)
        counts = Counter(row.verdict for row in rows)
        return cls(
            current=counts[HostVerdict.CURRENT],
            total=len(rows),
            summary=_summary(counts),
            settings=settings,
            release=release,
            left_out=left_out,
            hosts=[_shown(row, usual, findings=findings) for row in rows],
        )

    @property
    def asked(self) -> bool:
        return any(host.verdict is not HostVerdict.UNREACHABLE for host in self.hosts)


def _majority(rows: Sequence[Row]) -> str | None:
    """Return the digest of the most common rules, or None after a tie."""
    ranked = Counter(row.rules.digest for row in rows if row.rules).most_common(2)
    ahead = len(ranked) == 1 or (len(ranked) > 1 and ranked[0][1] > ranked[1][1])
    return ranked[0][0] if ahead else None


def _shown(row: Row, usual: str | None, *, findings: bool) -> Row:
    if usual and row.rules and row.rules.digest != usual:
        row = replace(row, rules=replace(row.rules, others_than_most=True))
    if findings:
        row = replace(
            row,
            findings=[SiblingFinding(difference.sibling, finding(difference)) for difference in row.differences],
        )
    return row


def _summary(counts: Counter[HostVerdict]) -> str:
    total, current = counts.total(), counts[HostVerdict.CURRENT]
    others = [
        f"{counts[verdict]:,} {verdict}"
        for verdict in HostVerdict
        if counts[verdict] and verdict is not HostVerdict.CURRENT
    ]
    if not others:
        return "The host is current." if total == 1 else f"All {total:,} hosts are current."
    of = "host is" if total == 1 else "hosts are"
    return f"{current:,} of {total:,} {of} current; {', '.join(others)}."


def of_comparison(host: Host, comparison: Comparison, release: Release, seconds: float) -> Row:
    """Return the row of a compared host."""
    observed, engine = comparison.observed, comparison.observed.engine
    verdict = HostVerdict(comparison.verdict.value)
    if observed.absent and verdict is HostVerdict.DRIFTED:
        verdict = HostVerdict.NO_STACK
    run_summary = summary_of(comparison) if comparison.diff.findings else None
    live = facts.live_rules(observed)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Row(
        name=host.name,
        verdict=verdict,
        endpoint=engine.endpoint,
        source=engine.named_by,
        engine=engine.version,
        release=_release(observed, release),
        rules=LiveRules(live.count, live.digest) if live else None,
        agents=len(comparison.agents),
        open_agents=tuple(agent.name for agent in comparison.agents if agent.openings),
        proven=Proof(now, "comparison") if verdict is HostVerdict.CURRENT else None,
        busy=text.busy_line(comparison.busy).plain if comparison.busy else None,
        summary=tuple(summary.lines(run_summary)),
        differences=tuple(replace(finding, contents=None) for finding in comparison.diff.findings),
        siblings=dict(comparison.diff.verdicts),
        made_from=tuple(str(origin) for origin in records.other_origins(observed, comparison.blueprint.origin)),
        seconds=round(seconds, 3),
    )


def _release(observed: Observed, installed: Release) -> StackRelease | None:
    """Return the release that made a stack, or none if its siblings differ."""
    builds = {sibling.container.labels.get(labels.STACK_BUILD_SHA) for sibling in observed.siblings.values()}
    if not builds:
        return None
    whole = len(observed.siblings) == len(Sibling) and builds == {installed.build_sha}
    version = installed.version if whole else release_version(observed)
    return StackRelease(version, builds.pop() if len(builds) == 1 else None, whole)


def failed(host: Host, error: FirewallError, seconds: float) -> Row:
    """Return the row of an unreachable host, or of one with unusable answers."""
    place = None if isinstance(host.place, EngineError) else host.place
    away = place is None or (isinstance(error, EngineError) and error.code in AWAY)
    return Row(
        name=host.name,
        verdict=HostVerdict.UNREACHABLE if away else HostVerdict.UNKNOWN,
        endpoint=place.address if place else None,
        source=place.source if place else None,
        error=replace(Trouble.of(error), hint=named(error.hint, host.option)),
        seconds=round(seconds, 3),
    )


def nonsense(error: Exception) -> EngineError:
    """Return the error of a host that does not answer like an engine."""
    return EngineError(
        "host-unintelligible",
        "The host did not answer like a Docker engine.",
        context=[f"{type(error).__name__}: {error}"],
        hint="Ask it alone, with `clawker-fw --debug drift`. If it is a Docker engine, this is a bug.",
    )


def late(seconds: float) -> EngineError:
    """Return the error of a host that exceeded its time."""
    return EngineError(
        "host-late",
        f"This host has not answered everything within {seconds:g} s.",
        hint="Allow it more time with --timeout, or see what keeps its engine busy.",
    )


_DIGEST_SHOWN = 7
_MARK = " !"

_STYLES = {
    HostVerdict.CURRENT: "bold green",
    HostVerdict.DRIFTED: "bold yellow",
    HostVerdict.NO_STACK: "bold yellow",
}
_BAD = "bold red"


def status_report(fleet: FleetStatusDocument) -> RenderableType:
    """Return the number of current hosts, a table of all, then why others are not current, with findings."""
    rows: list[list[Text | str]] = [
        [
            host.name,
            _verdict(host),
            _shown_release(host),
            _shown_rules(host),
            _agents(host),
            "now" if host.proven else "-",
        ]
        for host in fleet.hosts
    ]
    left_out = (
        f"Left out: the context {left_out.name} is of the same engine as {left_out.same_as}."
        if left_out.same_as
        else f"Left out: the context {left_out.name} has no engine, and none was named for it."
        for left_out in fleet.left_out
    )
    parts: list[RenderableType] = [
        Text(fleet.summary),
        *(Text(visible(line), "dim") for line in left_out),
        Text(""),
        text.Rows(("host", "verdict", "release", "rules", "agents", "proven"), rows),
    ]
    if any(_MARK in str(cell) for row in rows for cell in row[2:4]):
        parts.append(Text("  ! not the installed release, or other rules than most hosts serve", "dim"))
    for host in fleet.hosts:
        if host.verdict is not HostVerdict.CURRENT:
            parts += [Text(""), Text.assemble((visible(host.name), "bold"), "  ", _verdict(host))]
            parts += [Text(visible(f"  {line}")) for line in _reasons(host)]
            if host.findings and host.verdict is not HostVerdict.NO_STACK:
                parts.append(text.fields_report(Diff(host.differences, host.siblings), host.differences))
    return Group(*parts)


def _reasons(row: Row) -> Iterator[str]:
    if row.error:
        yield row.error.message
        context = (line for text in (*row.error.context, row.error.hint) for line in text.splitlines())
        yield from (f"  {line}" for line in context)
    if row.busy:
        yield row.busy
    yield from (f"Agent {open_agent} has a way around the firewall." for open_agent in row.open_agents)
    yield from row.summary
    yield from (f"Made from another settings file: {source}" for source in row.made_from)


def _verdict(row: Row) -> Text:
    return Text(row.verdict.value, _STYLES.get(row.verdict, _BAD))


def _shown_release(row: Row) -> str:
    if row.release is None:
        return "-"
    if row.release.installed:
        return row.release.version or "installed"
    return build_name(row.release.version, row.release.build) + _MARK


def _shown_rules(row: Row) -> str:
    if row.rules is None:
        return "-"
    return row.rules.digest[:_DIGEST_SHOWN] + (_MARK if row.rules.others_than_most else "")


def _agents(row: Row) -> str:
    if row.agents is None:
        return "-"
    return f"{row.agents:,}" + (f", {len(row.open_agents):,} open" if row.open_agents else "")
