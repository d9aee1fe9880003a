"""What `fleet status` knows: a row for each host, and what all of them mean together."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property

from clawker_fw.errors import EngineError, FirewallError
from clawker_fw.fleet.hosts import Host, LeftOut
from clawker_fw.fleet.row import HostVerdict, Proof, Row, StackRelease, Trouble, majority
from clawker_fw.model import Observed, Sibling
from clawker_fw.reconcile import records
from clawker_fw.reconcile.pipeline import Comparison, summary_of
from clawker_fw.reconcile.summary import release_version
from clawker_fw.report import facts, summary, verdict
from clawker_fw.stack import labels
from clawker_fw.stack.release import Release

AWAY = frozenset({"engine-unreachable", "engine-silent", "engine-denied", "host-late"})
"""The codes of errors that mean that the host itself was not reached. Others are about what it answered."""


@dataclass(frozen=True)
class Fleet:
    """All hosts, in the order of their names, and the contexts that are left out."""

    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def current(self) -> int:
        """How many hosts are current."""
        return sum(each.verdict is HostVerdict.CURRENT for each in self.rows)

    @cached_property
    def usual_rules(self) -> str | None:
        """The digest of the rules that most hosts serve; None if no digest is ahead."""
        return majority(self.rows)

    def other_rules(self, row: Row) -> bool:
        """Whether a host serves other rules than most."""
        return row.rules is not None and self.usual_rules not in {None, row.rules.digest}

    @property
    def asked(self) -> bool:
        """Whether any host could be asked."""
        return any(each.verdict is not HostVerdict.UNREACHABLE for each in self.rows)

    @property
    def summary(self) -> str:
        """How many hosts are current, and how many are in another state."""
        counts = Counter(each.verdict for each in self.rows)
        total, current = len(self.rows), counts[HostVerdict.CURRENT]
        bad = [each for each in HostVerdict if counts[each] and each is not HostVerdict.CURRENT]
        others = [f"{counts[each]:,} {WORDS[each]}" for each in bad]
        if not others:
            return "The host is current." if total == 1 else f"All {total:,} hosts are current."
        of = "host is" if total == 1 else "hosts are"
        return f"{current:,} of {total:,} {of} current; {', '.join(others)}."


WORDS = {each: each.value.replace("-", " ") for each in HostVerdict}
"""Verdicts for people."""


def of_comparison(host: Host, seen: Comparison, release: Release, seconds: float) -> Row:
    """Return the row of a host that was compared with the settings."""
    observed, engine = seen.observed, seen.observed.engine
    found = HostVerdict(seen.verdict.value)
    if observed.absent and found is HostVerdict.DRIFTED:
        found = HostVerdict.NO_STACK
    said = summary_of(seen) if seen.diff.findings else None
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Row(
        name=host.name,
        verdict=found,
        endpoint=engine.endpoint,
        source=engine.named_by,
        engine=engine.version,
        release=_release(observed, release),
        rules=facts.live_rules(observed),
        agents=len(seen.agents),
        open_agents=tuple(each.name for each in seen.agents if each.openings),
        proof=Proof(now, "comparison") if found is HostVerdict.CURRENT else None,
        busy=verdict.busy(seen.busy).plain if seen.busy else "",
        said=tuple(summary.lines(said)) if said else (),
        findings=tuple(replace(each, contents=None) for each in seen.diff.findings),
        siblings=dict(seen.diff.verdicts),
        made_from=tuple(str(each) for each in records.other_origins(observed, seen.blueprint.origin)),
        node=host.node,
        seconds=seconds,
    )


def _release(observed: Observed, installed: Release) -> StackRelease | None:
    """Return the release that has made a stack. If the siblings differ, it is that of neither."""
    builds = {each.container.labels.get(labels.STACK_BUILD_SHA) for each in observed.siblings.values()}
    if not builds:
        return None
    whole = len(observed.siblings) == len(Sibling) and builds == {installed.build_sha}
    version = installed.version if whole else release_version(observed)
    return StackRelease(version, builds.pop() if len(builds) == 1 else None, whole)


def failed(host: Host, error: FirewallError, seconds: float) -> Row:
    """Return the row of a host that could not be asked, or whose answers could not be used."""
    away = isinstance(error, EngineError) and error.code in AWAY
    return _without_answer(
        host, Trouble.of(error), HostVerdict.UNREACHABLE if away else HostVerdict.UNKNOWN, seconds
    )


def nonsense(host: Host, error: Exception, seconds: float) -> Row:
    """Return the row of a host that answers what no engine does."""
    trouble = Trouble(
        "host-unintelligible",
        "What this host answers can't be understood.",
        (f"{type(error).__name__}: {error}",),
        "Ask it alone, with `clawker-fw --debug drift`. If it is a Docker engine, this is a bug.",
    )
    return _without_answer(host, trouble, HostVerdict.UNKNOWN, seconds)


def nowhere(host: Host) -> Row:
    """Return the row of a host that nobody has to ask."""
    return _without_answer(host, host.trouble, HostVerdict.UNREACHABLE, 0.0)


def late(host: Host, seconds: float) -> Row:
    """Return the row of a host that has not answered everything within its time."""
    trouble = Trouble(
        "host-late",
        f"This host has not answered everything within {seconds:g} s.",
        (),
        "Allow it more time with --timeout, or see what keeps its engine busy.",
    )
    return _without_answer(host, trouble, HostVerdict.UNREACHABLE, seconds)


def _without_answer(host: Host, trouble: Trouble | None, found: HostVerdict, seconds: float) -> Row:
    """Return what is known without the host: where it is, and what the manager of its swarm knows."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Row(
        name=host.name,
        verdict=found,
        endpoint=host.place.address if host.place else "",
        source=host.place.source if host.place else "",
        trouble=trouble,
        proof=Proof(now, "watcher") if host.node and host.node.proven else None,
        node=host.node,
        seconds=seconds,
    )
