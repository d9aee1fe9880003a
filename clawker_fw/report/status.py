"""What `status` knows.

Without settings that can be read there is nothing to compare with, but much to see: what runs, which rules are
live, who the agents are.
"""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clawker_fw.agents import judge
from clawker_fw.agents.attachment import Attachment
from clawker_fw.agents.exposure import HINT, exposures
from clawker_fw.agents.judge import Agent
from clawker_fw.denials.refusal import Counted
from clawker_fw.errors import FirewallError
from clawker_fw.model import Observed, Role, Rules, Sibling, Verdict
from clawker_fw.reconcile import records
from clawker_fw.reconcile.advice import Advice
from clawker_fw.reconcile.desired import Blueprint
from clawker_fw.reconcile.lock import Holder, at_work
from clawker_fw.reconcile.pipeline import Comparison, agents_of, summary_of
from clawker_fw.reconcile.summary import Summary
from clawker_fw.report import facts, summary
from clawker_fw.report.siblings import SiblingStatus
from clawker_fw.report.terminal import visible
from clawker_fw.stack import rule_record
from clawker_fw.stack.topology import network_names

MOST_REFUSALS = 5
"""How many of the last refusals are shown. `denials` has all."""


@dataclass(frozen=True)
class Status:
    """The state of a stack at one moment.

    `attached` is how agents are attached. `wanted` are the rules of the settings, `ending` those that end, with
    the seconds left of each. `unread` is why settings or secrets can't be used: then there is no comparison.
    `said` is what the next run would mean, if anything but the rules differs; `summary` is all of it, for
    programs. `labels` are those that each sibling should have. `refusals` are those of the last hour, the latest
    last, with the name of the agent or sibling if it is known. `blueprint` are the settings and the engine that
    this is about, if there is a comparison.
    """

    project: str
    observed: Observed
    verdict: Verdict
    verdicts: Mapping[Sibling, Verdict]
    attached: Attachment
    agents: tuple[Agent, ...]
    leftovers: facts.Leftovers
    wanted: Rules | None = None
    ending: Sequence[tuple[str, float]] = ()
    busy: Holder | None = None
    warnings: Sequence[Advice] = ()
    unread: FirewallError | None = None
    said: Sequence[str] = ()
    summary: Sequence[str] = ()
    refusals: Sequence[tuple[Counted, str]] = ()
    blueprint: Blueprint | None = None
    labels: Mapping[Sibling, Mapping[str, str]] = field(default_factory=dict)

    @property
    def notices(self) -> Sequence[Advice]:
        """The warnings that the settings do not acknowledge."""
        known = self.blueprint.settings.acknowledged if self.blueprint else ()
        return [each for each in self.warnings if each.code not in known]

    @property
    def live(self) -> Rules | None:
        """The rules that the siblings serve, or None if that is unknown."""
        return facts.live_rules(self.observed)

    @functools.cached_property
    def siblings(self) -> list[SiblingStatus]:
        """Both siblings, also one that is missing."""
        return [
            SiblingStatus.of(each, self.observed, self.attached.network, self.verdicts[each]) for each in Sibling
        ]

    @property
    def protocols(self) -> Mapping[str, int]:
        """How many of the live rules there are of each protocol; empty if that is unknown."""
        resolver = self.observed.siblings.get(Sibling.COREDNS)
        rules = rule_record.recorded(resolver.files) if resolver and self.live else None
        return Counter(rule.split(" ")[0] for rule in rules or ())

    @functools.cached_property
    def refused(self) -> Mapping[str, int]:
        """How often each agent was refused something in the last hour since it was started, by its name."""
        counts: Counter[str] = Counter()
        for each, name in self.refusals:
            counts[name] += each.times
        return counts

    @property
    def source_lines(self) -> Sequence[str]:
        """The lines that say which settings and which engine this is about, and who can write the settings."""
        engine = f"Engine    {self.observed.engine.endpoint} ({self.observed.engine.named_by})"
        if self.blueprint is None:
            made_from = (f"Made from {each}" for each in records.recorded_origins(self.observed))
            return ("Settings  can't be used, so differences from them are unknown", engine, *made_from)
        now = self.blueprint.origin
        path = (now.path if now else "") or "none: only environment variables"
        found = exposures(self.observed, self.blueprint.files)
        return (
            f"Settings  {path} ({self.blueprint.named_by})",
            engine,
            *(f"Made from another settings file: {each}" for each in records.other_origins(self.observed, now)),
            *(visible(f"The settings are open: {each}.") for each in found),
            *([HINT] if found else []),
        )

    @property
    def attachable(self) -> bool:
        """Whether agents can be attached: the stack is up, at the addresses that the settings ask for."""
        return facts.attachable(self.observed) and self.attached.dns == judge.running_resolver(self.observed)


def of_comparison(seen: Comparison, now: float) -> Status:
    """Return the status that follows from a comparison. `now` is in seconds since 1970."""
    said = summary_of(seen) if seen.diff.findings else None
    return Status(
        project=seen.desired.project,
        observed=seen.observed,
        verdict=seen.verdict,
        verdicts=seen.diff.verdicts,
        attached=Attachment(seen.desired.networks[Role.AGENTS].name, str(seen.desired.service_address)),
        agents=seen.agents,
        wanted=seen.desired.rules,
        ending=seen.blueprint.rules.ending(now),
        leftovers=facts.leftovers(seen.observed, seen.desired),
        busy=seen.busy,
        warnings=seen.advice,
        said=_said(said),
        summary=summary.lines(said),
        blueprint=seen.blueprint,
        labels={each: wanted.labels for each, wanted in seen.desired.siblings.items()},
    )


def _said(said: Summary | None) -> Sequence[str]:
    """Return what the next run would mean. Changed rules have a line of their own in every status."""
    if said is None or said.absent:
        return ()
    return () if summary.is_about_rules(said) else summary.lines(said, rules=False)


def without_settings(observed: Observed, project: str, unread: FirewallError) -> Status:
    """Return what can be known of a stack whose settings can't be read."""
    resolver = judge.running_resolver(observed)
    agents = agents_of(observed, project)
    return Status(
        project=project,
        observed=observed,
        verdict=judge.verdict(Verdict.UNKNOWN, agents),
        verdicts=dict.fromkeys(Sibling, Verdict.UNKNOWN),
        attached=Attachment(network_names(project)[Role.AGENTS], resolver),
        agents=agents,
        leftovers=facts.leftovers(observed, None),
        busy=at_work(observed.lock),
        unread=unread,
    )
