"""The answer of `status`.

Without settings that can be read there is nothing to compare with, but much to see: what runs, which rules are
live, who the agents are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt, WithJsonSchema

from clawker_fw.agents import judge
from clawker_fw.agents.exposure import HINT, exposures
from clawker_fw.denials.refusal import Counted
from clawker_fw.errors import FirewallError
from clawker_fw.model import Observed, Role, Sibling, Verdict
from clawker_fw.reconcile import records
from clawker_fw.reconcile.advice import Advice
from clawker_fw.reconcile.desired import Blueprint
from clawker_fw.reconcile.lock import at_work
from clawker_fw.reconcile.pipeline import Comparison, agents_of, summary_of
from clawker_fw.report import facts, summary
from clawker_fw.report.denials import RefusalDocument, refused
from clawker_fw.report.documents import Document
from clawker_fw.report.documents.parts import (
    AgentDocument,
    Busy,
    EngineVersion,
    SettingsUsed,
    StackVerdict,
    Warnings,
)
from clawker_fw.report.siblings import SiblingStatus
from clawker_fw.stack import rule_record
from clawker_fw.stack.topology import network_names

MOST_REFUSALS = 5
"""How many of the last refusals are shown. `denials` has all."""


@dataclass(frozen=True, slots=True)
class StatusEngine(EngineVersion):
    """The engine of a stack."""

    architecture: str


@dataclass(frozen=True, slots=True)
class AttachmentDocument:
    """How agents are attached."""

    network: str
    """For `docker run --network`."""
    dns: Annotated[str, WithJsonSchema({"type": "string", "format": "ipv4"})]
    """For `docker run --dns`."""
    attached: list[str]
    """Containers on the agent network."""


@dataclass(frozen=True, slots=True)
class RefusedAgent(AgentDocument):
    """An agent, how well it is confined, and how often it was refused something."""

    refused: NonNegativeInt
    """How often it was refused something in the last hour, since it was started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRefusal(RefusalDocument):
    """One of the last refusals."""

    agent: str | None
    """The name of the container, if one that is attached now had this address at the time."""
    address: str
    """The agent's address."""
    tried: Annotated[str, Field(exclude=True)]

    @classmethod
    def of(cls, counted: Counted, who: str) -> "LastRefusal":
        """Return a refusal. `who` is the agent's name, or empty."""
        refusal = counted.refusal
        return cls(**refused(counted), agent=who or None, address=refusal.agent, tried=refusal.tried)


@dataclass(frozen=True, slots=True)
class Ending:
    """A rule that ends."""

    rule: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Unread:
    """Why the settings can't be read."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusDocument(Document):
    """The answer of `status`."""

    verdict: StackVerdict
    summary: list[str]
    """What the next `run` means, as lines for people: what happens and what agents notice, then why, as `drift`
    says it. Empty for a stack that is current, and while the settings can't be read."""
    busy: Busy
    warnings: Warnings
    project: str
    engine: StatusEngine
    settings: SettingsUsed
    agent: AttachmentDocument | None
    """null while no agent can be attached, also because the settings ask for another `network.subnet`."""
    agents: list[RefusedAgent]
    """The agents, sorted by name."""
    refusals: Annotated[list[LastRefusal], Field(max_length=MOST_REFUSALS)]
    """The last refusals of the last hour, the latest last. `denials` has all."""
    siblings: Annotated[list[SiblingStatus], Field(min_length=2, max_length=2)]
    rules: NonNegativeInt | None
    """How many rules the settings have; null if they can't be read."""
    live_rules: NonNegativeInt | None
    """The number of rules that the siblings serve; null if unknown."""
    live_protocols: dict[str, PositiveInt]
    """How many of the live rules there are of each protocol (`deny` for those that deny). Empty if that is
    unknown."""
    ending: list[Ending]
    """The rules that end, soonest first, and the seconds that are left of each."""
    other_rules: bool | None
    """Whether the settings have different rules than the siblings serve; null if unknown."""
    leftovers: facts.Leftovers
    """What earlier runs and releases have left behind; `run` removes it."""
    unread: Unread | None
    """Why the settings can't be read, if so; else null."""
    said: Annotated[Sequence[str], Field(exclude=True)]
    """The lines of `summary` for people, for whom changed rules have a line of their own in every status."""
    notices: Annotated[Sequence[Advice], Field(exclude=True)]
    """The warnings that the settings do not acknowledge."""
    labels: Annotated[Mapping[Sibling, tuple[Mapping[str, str], Mapping[str, str]]], Field(exclude=True)]
    """The labels that each sibling has, and those that it should have."""
    attached: Annotated[int, Field(exclude=True)]
    """How many agents there are on the agent network."""
    absent: Annotated[bool, Field(exclude=True)]
    """Whether no part of the stack exists."""
    sources: Annotated[Sequence[str], Field(exclude=True)]
    """The lines that say which settings and which engine this is about, and who can write the settings."""

    @classmethod
    def of(
        cls,
        observed: Observed,
        project: str,
        now: float,
        seen: Comparison | FirewallError,
        *,
        refusals: Sequence[tuple[Counted, str]] = (),
        further: Sequence[Advice] = (),
    ) -> "StatusDocument":
        """Return the answer that follows from a comparison, or what can be known without, and why there is none.

        `now` is in seconds since 1970. `refusals` are those of the last hour, the latest last, with the name of
        the agent or sibling if it is known. `further` are warnings that a comparison has not.
        """
        compared, unread = (None, seen) if isinstance(seen, FirewallError) else (seen, None)
        desired, blueprint = (compared.desired, compared.blueprint) if compared else (None, None)
        resolver = judge.running_resolver(observed)
        if compared and desired:
            agents, verdict, verdicts = compared.agents, compared.verdict, compared.diff.verdicts
            network, dns = desired.networks[Role.AGENTS].name, str(desired.service_address)
        else:
            agents = agents_of(observed, project)
            verdict, verdicts = judge.verdict(Verdict.UNKNOWN, agents), dict.fromkeys(Sibling, Verdict.UNKNOWN)
            network, dns = network_names(project)[Role.AGENTS], resolver
        said = summary_of(compared) if compared and compared.diff.findings else None
        shown = said is not None and not said.absent and not summary.is_about_rules(said)
        warnings = (*(compared.advice if compared else ()), *further)
        known = blueprint.settings.acknowledged if blueprint else ()
        live = facts.live_rules(observed)
        attached = sorted(observed.attached.get(Role.AGENTS, ()))
        attachable = facts.attachable(observed) and dns == resolver
        often: Counter[str] = Counter()
        for each, name in refusals:
            often[name] += each.times
        engine = observed.engine
        return cls(
            verdict=verdict,
            summary=summary.lines(said),
            busy=at_work(observed.lock),
            warnings=warnings,
            project=project,
            engine=StatusEngine(engine.endpoint, engine.named_by, engine.version, engine.architecture),
            settings=SettingsUsed.of(blueprint, observed),
            agent=AttachmentDocument(network, dns, attached) if attachable else None,
            agents=[RefusedAgent.of(each, often[each.name]) for each in agents],
            refusals=[LastRefusal.of(*each) for each in refusals[-MOST_REFUSALS:]],
            siblings=[SiblingStatus.of(each, observed, network, verdicts[each]) for each in Sibling],
            rules=desired.rules.count if desired else None,
            live_rules=live.count if live else None,
            live_protocols=_protocols(observed) if live else {},
            ending=[Ending(rule, round(left)) for rule, left in blueprint.rules.ending(now)] if blueprint else [],
            other_rules=live != desired.rules if live and desired else None,
            leftovers=facts.leftovers(observed, desired),
            unread=Unread(unread.code, unread.message) if unread else None,
            said=summary.lines(said, rules=False) if shown else (),
            notices=[each for each in warnings if each.code not in known],
            labels={
                each: (there.container.labels, desired.siblings[each].labels if desired else {})
                for each, there in observed.siblings.items()
            },
            attached=len(attached),
            absent=observed.absent,
            sources=_sources(observed, blueprint),
        )


def _protocols(observed: Observed) -> dict[str, int]:
    """Return how many of the live rules there are of each protocol."""
    resolver = observed.siblings.get(Sibling.COREDNS)
    rules = rule_record.recorded(resolver.files) if resolver else None
    return dict(sorted(Counter(rule.split(" ")[0] for rule in rules or ()).items()))


def _sources(observed: Observed, blueprint: Blueprint | None) -> tuple[str, ...]:
    engine = f"Engine    {observed.engine.endpoint} ({observed.engine.named_by})"
    if blueprint is None:
        made_from = (f"Made from {each}" for each in records.recorded_origins(observed))
        return ("Settings  can't be used, so differences from them are unknown", engine, *made_from)
    now = blueprint.origin
    path = (now.path if now else "") or "none: only environment variables"
    found = exposures(observed, blueprint.files)
    return (
        f"Settings  {path} ({blueprint.named_by})",
        engine,
        *(f"Made from another settings file: {each}" for each in records.other_origins(observed, now)),
        *(f"The settings are open: {each}." for each in found),
        *([HINT] if found else []),
    )
