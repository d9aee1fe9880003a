"""The answers of `status` and `status --all`, and their text form.

Without readable settings there is no comparison, but they still show containers, live rules and agents.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt, WithJsonSchema
from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.agents import judge
from clawker_fw.agents.exposure import HINT, exposures
from clawker_fw.agents.judge import Confinement
from clawker_fw.denials.refusal import Counted
from clawker_fw.errors import FirewallError
from clawker_fw.model.containers import ContainerView
from clawker_fw.model.desired import Desired, DesiredSibling
from clawker_fw.model.differences import Verdict
from clawker_fw.model.engines import EngineFacts
from clawker_fw.model.json_types import Moment
from clawker_fw.model.observed import Observed
from clawker_fw.model.probes import Records
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.reconcile import records
from clawker_fw.reconcile.advice import Advice
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.lock import at_work
from clawker_fw.reconcile.pipeline import Comparison, agents_of, summary_of
from clawker_fw.report import facts, summary, text
from clawker_fw.report.documents import Document, SiblingVerdict
from clawker_fw.report.documents.parts import (
    AgentDocument,
    Busy,
    EngineVersion,
    RefusalDocument,
    SettingsUsed,
    StackVerdict,
    Warnings,
    refused,
)
from clawker_fw.report.facts import live_version
from clawker_fw.report.spans import counted, remaining
from clawker_fw.report.terminal import visible
from clawker_fw.report.text import Rows, styled_verdict
from clawker_fw.stack import name_list, versions
from clawker_fw.stack.capacity import Capacity, running, written
from clawker_fw.stack.labels import DRIFT_LABELS
from clawker_fw.stack.release import SHORT_BUILD
from clawker_fw.stack.topology import network_names


@dataclass(frozen=True, slots=True)
class Limited:
    """What the limits of a sibling have refused of one agent."""

    agent: str | None
    """The container's name, or null if none with this address is attached."""
    address: str
    connections: NonNegativeInt
    queries: NonNegativeInt
    datagrams: NonNegativeInt


@dataclass(frozen=True, slots=True)
class LabelStatus:
    """A drift label. Either value is null if it is unknown, `desired` also without settings."""

    running: str | None
    desired: str | None

    def __str__(self) -> str:
        """Return the running value, and the desired one if it differs. Digests are shortened."""
        values = (self.running, self.desired if self.desired is not None else self.running)
        running, desired = (value[:SHORT_BUILD] if value else "none" for value in values)
        return running if values[0] == values[1] else f"{running} → {desired}"


@dataclass(frozen=True, slots=True)
class LabelsStatus:
    """The three drift labels of a container."""

    infra_certs_ready: LabelStatus
    otel_infra_port: LabelStatus
    stack_build_sha: LabelStatus

    @classmethod
    def of(cls, container: ContainerView, desired: DesiredSibling | None) -> "LabelsStatus":
        return cls(
            *(
                LabelStatus(container.labels.get(label), desired.labels[label] if desired else None)
                for label in DRIFT_LABELS
            )
        )


@dataclass(frozen=True, slots=True)
class SiblingStatus:
    """A sibling. Without a container, most is null."""

    name: Sibling
    verdict: SiblingVerdict
    container: str | None
    state: Annotated[
        str,
        WithJsonSchema(
            {"enum": ["missing", "created", "running", "paused", "restarting", "removing", "exited", "dead"]}
        ),
    ]
    health: Annotated[str | None, WithJsonSchema({"enum": ["starting", "healthy", "unhealthy", None]})]
    labels: LabelsStatus | None
    image: str | None
    """The id of the image."""
    build: str | None
    """The version string that the program reports."""
    version: str | None
    """The version that the program reports; null if that is unknown."""
    address: str | None
    """On the agent network."""
    since: Moment | None
    live_version: str | None
    """The version of the rules that the process serves; null when there is no single one."""
    resources: Capacity | None
    """What the running container may use of the Docker host; null if it is missing or does not say."""
    telemetry: Records | None
    """Records since the sibling started: those that the collector has taken, and those that were lost; null if the
    sibling does not run."""
    limited: list[Limited]
    """What the limits have refused of each agent since the sibling started."""

    @classmethod
    def of(
        cls, sibling: Sibling, observed: Observed, desired: Desired | None, network: str, verdict: Verdict
    ) -> "SiblingStatus":
        """Return a sibling's state. `network` is the name of the agent network."""
        present = observed.siblings.get(sibling)
        container, probe = (present.container, present.probe) if present else (None, None)
        names = {endpoint.address: name for name, endpoint in observed.attached.get(Role.AGENTS, {}).items()}
        return cls(
            name=sibling,
            verdict=verdict,
            container=container.name if container else None,
            state=container.status if container else "missing",
            health=(container.health or None) if container else None,
            labels=LabelsStatus.of(container, desired.siblings[sibling] if desired else None)
            if container
            else None,
            image=container.image if container else None,
            build=(probe.build or None) if probe else None,
            version=versions.of_build(probe.build) if probe else None,
            address=(container.connected.get(network) or None) if container else None,
            since=(container.started or None) if container else None,
            live_version=live_version(observed, sibling),
            resources=running(present) if present else None,
            telemetry=probe.records if probe else None,
            limited=[
                Limited(
                    names.get(refused.source),
                    refused.source,
                    refused.connections,
                    refused.queries,
                    refused.datagrams,
                )
                for refused in (probe.refused if probe else ())
            ],
        )


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
    notices: Annotated[Sequence[Advice], Field(exclude=True)]
    """The warnings that the settings do not acknowledge."""
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
        result: Comparison | FirewallError,
        *,
        refusals: Sequence[tuple[Counted, str]] = (),
        further: Sequence[Advice] = (),
    ) -> "StatusDocument":
        """Return the answer of a comparison, or of the error that prevented it.

        `now` is in seconds since 1970. `refusals` are the last hour's, the latest last, with the name of the agent
        or sibling if known. `further` are warnings that a comparison lacks.
        """
        compared, unread = (None, result) if isinstance(result, FirewallError) else (result, None)
        desired, blueprint = (compared.desired, compared.blueprint) if compared else (None, None)
        resolver = judge.running_resolver(observed)
        if compared and desired:
            agents, verdict, verdicts = compared.agents, compared.verdict, compared.diff.verdicts
            network, dns = desired.networks[Role.AGENTS].name, str(desired.service_address)
        else:
            agents = agents_of(observed, project)
            verdict, verdicts = judge.verdict(Verdict.UNKNOWN, agents), dict.fromkeys(Sibling, Verdict.UNKNOWN)
            network, dns = network_names(project)[Role.AGENTS], resolver
        run_summary = summary_of(compared) if compared and compared.diff.findings else None
        warnings = (*(compared.advice if compared else ()), *further)
        live = facts.live_rules(observed)
        attached = sorted(observed.attached.get(Role.AGENTS, ()))
        attachable = Role.AGENTS in observed.networks and len(observed.siblings) == len(Sibling)
        often: Counter[str] = Counter()
        for refusal, name in refusals:
            often[name] += refusal.times
        engine = observed.engine
        return cls(
            verdict=verdict,
            summary=summary.lines(run_summary),
            busy=at_work(observed.lock),
            warnings=warnings,
            project=project,
            engine=StatusEngine(engine.endpoint, engine.named_by, engine.version, engine.architecture),
            settings=SettingsUsed.of(blueprint, observed),
            agent=AttachmentDocument(network, dns, attached) if attachable and dns == resolver else None,
            agents=[RefusedAgent.of(agent, often[agent.name]) for agent in agents],
            refusals=[LastRefusal.of(*refusal) for refusal in refusals[-MOST_REFUSALS:]],
            siblings=[
                SiblingStatus.of(sibling, observed, desired, network, verdicts[sibling]) for sibling in Sibling
            ],
            rules=desired.rules.count if desired else None,
            live_rules=live.count if live else None,
            live_protocols=_protocols(observed) if live else {},
            ending=[Ending(rule, round(left)) for rule, left in blueprint.rules.ending(now)] if blueprint else [],
            other_rules=live != desired.rules if live and desired else None,
            leftovers=facts.leftovers(observed, desired),
            unread=Unread(unread.code, unread.message) if unread else None,
            notices=[*(compared.notices if compared else ()), *further],
            absent=observed.absent,
            sources=_sources(observed, blueprint),
        )


def _protocols(observed: Observed) -> dict[str, int]:
    resolver = observed.siblings.get(Sibling.COREDNS)
    rules = name_list.recorded(resolver.files) if resolver else None
    return dict(sorted(Counter(rule.split(" ")[0] for rule in rules or ()).items()))


def _sources(observed: Observed, blueprint: Blueprint | None) -> tuple[str, ...]:
    engine = f"Engine    {observed.engine.endpoint} ({observed.engine.named_by})"
    if blueprint is None:
        made_from = (f"Made from {origin}" for origin in records.recorded_origins(observed))
        return ("Settings  can't be used, so differences from them are unknown", engine, *made_from)
    now = blueprint.origin
    path = (now.path if now else "") or "none: only environment variables"
    openings = exposures(observed, blueprint.files)
    return (
        f"Settings  {path} ({blueprint.named_by})",
        engine,
        *(f"Made from another settings file: {origin}" for origin in records.other_origins(observed, now)),
        *(f"The settings are open: {exposure}." for exposure in openings),
        *([HINT] if openings else []),
    )


_MOST_LISTED = 20

_STATES = {Confinement.FENCED: "green", Confinement.WEAK: "yellow", Confinement.OPEN: "bold red"}


def status_report(status: StatusDocument, now: float) -> RenderableType:
    """Return the state of the stack, with settings and engine. `now` is in seconds since 1970."""
    engine = visible(f"{status.project} on engine {status.engine.version}")
    left = [
        Text(visible(f"Left over, to be removed by `run`: {kind.removesuffix('s')} {name}"))
        for kind, names in asdict(status.leftovers).items()
        for name in names
    ]
    sources = [Text(visible(line)) for line in status.sources]
    notices = [text.busy_line(status.busy)] if status.busy else []
    notices += [text.warning_line(notice) for notice in status.notices]
    if status.absent:
        start = "Start it with `clawker-fw run`."
        return Group(Text.assemble(("not up", "bold"), f"  {engine}. {start}"), *notices, *left, *sources)
    live = "live rules unknown" if status.live_rules is None else f"{counted(status.live_rules, 'rule')} live"
    attached = counted(len(status.agents), "agent")
    parts: list[RenderableType] = [
        Text.assemble(styled_verdict(status.verdict), f"  {engine}: {live}, {attached} attached"),
        *_todo(status),
        *notices,
        *(Text(line) for line in status.summary),
        *_rules(status),
        Text(""),
        _siblings(status, now),
    ]
    if status.agents:
        parts += [Text(""), *_agents(status.agents, now)]
    if status.refusals:
        parts += [Text(""), *_refusals(status)]
    parts += [Text(""), *left]
    if status.agent and not status.unread:  # it needs the settings
        command = "clawker-fw agent run --rm -it IMAGE"
        parts.append(Text.assemble("Attach an agent:  ", (visible(command), "bold")))
    return Group(*parts, *sources)


def _todo(status: StatusDocument) -> Iterator[Text]:
    differing = [sibling.verdict for sibling in status.siblings if not sibling.verdict.settled]
    words = text.todo(status.verdict, differing[0] if differing and not status.unread else Verdict.CURRENT)
    if words:
        yield Text(f"{words[:1].upper()}{words[1:]}.")


def _rules(status: StatusDocument) -> Iterator[Text]:
    if protocols := status.live_protocols:
        yield Text(visible("Rules: " + ", ".join(f"{number:,} {name}" for name, number in protocols.items())))
    for ending in status.ending[:_MOST_LISTED]:
        yield Text(visible(f"{remaining(ending.seconds)} left of {ending.rule}"))


def _siblings(status: StatusDocument, now: float) -> RenderableType:
    rows: list[list[Text | str]] = [
        [
            sibling.name.value,
            styled_verdict(sibling.verdict),
            sibling.version or "-",
            f"{sibling.state} {sibling.health or ''}".strip(),
            _age(sibling.since or "", now) if sibling.state == "running" else "-",
            sibling.live_version or "-",
        ]
        for sibling in status.siblings
    ]
    table = Rows(("container", "verdict", "version", "state", "up", "live version"), rows)
    present = [sibling for sibling in status.siblings if sibling.container]
    details = [Text(visible(f"  {sibling.name}: {_details(sibling)}"), "dim") for sibling in present]
    labels = [
        Text(visible(f"  {sibling.name}: {_labels(sibling.labels)}"), "dim")
        for sibling in present
        if sibling.labels
    ]
    return Group(table, *details, *labels)


def _labels(labels: LabelsStatus) -> str:
    """Return the drift labels in one line, even if they agree."""
    certificates, port, build = labels.infra_certs_ready, labels.otel_infra_port, labels.stack_build_sha
    return f"infra_certs_ready {certificates}, otel_infra_port {port}, stack_build_sha {build}"


def _details(sibling: SiblingStatus) -> str:
    parts = [sibling.address or "no address"]
    if has := sibling.resources:
        parts += [
            counted(has.processors, "processor"),
            written(has.memory),
            counted(has.connections, "connection"),
        ]
    return ", ".join(parts)


def _refusals(status: StatusDocument) -> Iterator[RenderableType]:
    rows = [
        [
            f"{datetime.fromisoformat(refusal.last).astimezone():%H:%M:%S}",
            refusal.agent or refusal.address,
            f"{refusal.protocol} {refusal.name or refusal.tried or '-'}:{refusal.port}",
            refusal.reason,
            f"{refusal.times:,}",
        ]
        for refusal in status.refusals
    ]
    yield Rows(("refused", "agent", "what", "reason", "times"), rows)
    yield Text("  `clawker-fw denials` has all of them, and what would allow each.", "dim")


def _agents(agents: Sequence[RefusedAgent], now: float) -> Iterator[RenderableType]:
    worst = sorted(agents, key=lambda agent: -list(Confinement).index(agent.state))
    rows: list[list[Text | str]] = [
        [
            agent.name,
            Text(agent.state.value, _STATES[agent.state]),
            agent.address or "-",
            _age(agent.since or "", now),
            f"{agent.refused:,}",
            agent.image.rpartition("/")[2].partition("@")[0],
        ]
        for agent in worst[:_MOST_LISTED]
    ]
    yield Rows(("agent", "state", "address", "up", "refused", "image"), rows)
    for agent in worst[:_MOST_LISTED]:
        for reason in agent.reasons:
            yield Text(visible(f"  {agent.name}: {reason.text}"))
        if agent.published:
            yield Text(visible(f"  {agent.name}: published at {', '.join(agent.published)}"))
    if len(agents) > _MOST_LISTED:
        yield Text(f"  and {len(agents) - _MOST_LISTED:,} more")


def _age(started: str, now: float) -> str:
    """Return the time since a start in the engine's form (RFC 3339)."""
    try:
        return remaining(now - datetime.fromisoformat(started).timestamp())
    except ValueError:
        return "-"


@dataclass(frozen=True, slots=True)
class Stack:
    """One stack in the list."""

    project: str
    verdict: Verdict
    running: tuple[Sibling, ...] = ()
    """The siblings that run."""
    live_rules: NonNegativeInt | None = None
    agents: NonNegativeInt = 0
    open_agents: tuple[str, ...] = ()
    settings: str | None = None
    """The file that the stack was made from, if it is on this machine."""
    reason: str | None = None
    """Why it can't be compared, if so."""

    @classmethod
    def of(cls, status: StatusDocument, settings: str | None) -> "Stack":
        """Return a stack from its status. `settings` is the file that it was made from."""
        return cls(
            status.project,
            status.verdict,
            tuple(sibling.name for sibling in status.siblings if sibling.state == "running"),
            status.live_rules,
            len(status.agents),
            tuple(agent.name for agent in status.agents if agent.state is Confinement.OPEN),
            settings,
            status.unread.message if status.unread else None,
        )


def unreadable(project: str, error: FirewallError) -> Stack:
    """Return a stack that can't be observed."""
    return Stack(project, Verdict.UNKNOWN, reason=error.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class StacksAnswer(Document):
    """The answer of `status --all`."""

    engine: EngineVersion
    stacks: list[Stack]

    @classmethod
    def of(cls, stacks: list[Stack], facts: EngineFacts) -> "StacksAnswer":
        return cls(engine=EngineVersion(facts.endpoint, facts.named_by, facts.version), stacks=stacks)


def stacks_report(stacks: Sequence[Stack]) -> RenderableType:
    """Return the list of stacks as text."""
    rows: list[list[Text | str]] = [
        [
            stack.project,
            styled_verdict(stack.verdict),
            "-" if stack.live_rules is None else f"{stack.live_rules:,}",
            f"{stack.agents:,}" + (f", {len(stack.open_agents)} open" if stack.open_agents else ""),
            " ".join(stack.running) or "-",
            stack.reason or stack.settings or "-",
        ]
        for stack in stacks
    ]
    current = sum(stack.verdict is Verdict.CURRENT for stack in stacks)
    head = Text(f"{current} of {counted(len(stacks), 'stack')} current")
    return Group(head, Rows(("project", "verdict", "rules", "agents", "running", "settings"), rows))
