"""The answer of `denials`, and with `--follow` its lines."""

from dataclasses import dataclass
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from clawker_fw.denials.answer import Denial, DenialsAnswer, Suppressed
from clawker_fw.denials.refusal import Counted, Gap
from clawker_fw.model import Moment, Sibling
from clawker_fw.report.denials import is_failure
from clawker_fw.report.documents import Document


@dataclass(frozen=True, slots=True)
class DecidingRule:
    """A rule that decides."""

    text: str
    """The rule in one line."""
    place: str
    """The file and line where it is written."""


@dataclass(frozen=True, slots=True)
class DenialRemedy:
    """What would change a refusal."""

    text: str | None
    """What to do, or why no rule would help; null without settings."""
    command: str | None
    """The command that would allow it, if one is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalDocument:
    """What was refused, and how often."""

    last: Moment
    """When it happened last, by the engine's clock."""
    times: PositiveInt
    """How often."""
    sibling: Sibling
    """Which sibling refused."""
    protocol: str
    """`dns`, `tls`, `http`, `tcp` or `udp`."""
    name: str | None
    """The host that was asked for; null if nothing named one."""
    port: NonNegativeInt
    """The port that the agent has connected to."""
    reason: str
    """A word of the siblings' records, such as `no-rule`."""


def refused(counted: Counted) -> dict[str, Any]:
    """Return the fields of a `RefusalDocument`."""
    refusal = counted.refusal
    return {
        "last": counted.last,
        "times": counted.times,
        "sibling": refusal.sibling,
        "protocol": refusal.protocol,
        "name": refusal.name or None,
        "port": refusal.port,
        "reason": refusal.reason,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class DenialDocument(RefusalDocument):
    """One refusal, or equal ones."""

    agent: str | None
    """The name of the container that had this address at the time, if it is known."""
    address: str
    """The agent's address."""
    tried: str | None
    """The address that the agent has connected to, where no host was named and the kernel refused."""
    types: list[str]
    """The types of records that were asked for, over DNS."""
    method: str | None
    """The method of the last request, over HTTP."""
    path: str | None
    """The path of the last request, without its query."""
    upstream: str | None
    """The address to which Envoy was about to connect."""
    failed: bool
    """Whether a rule allows it and it failed elsewhere: this is no denial."""
    message: str
    """The reason in words, by the rules in the settings."""
    allowed: bool
    """Whether the rules in the settings allow it by now."""
    rule: DecidingRule | None
    """The rule that decides, if one does."""
    remedy: DenialRemedy

    @classmethod
    def of(cls, denial: Denial) -> "DenialDocument":
        counted, refusal, advice = denial.counted, denial.counted.refusal, denial.advice
        method, _, path = counted.request.partition(" ")
        return cls(
            **refused(counted),
            agent=denial.agent or None,
            address=refusal.agent,
            tried=refusal.tried or None,
            types=sorted(counted.types),
            method=method or None,
            path=path or None,
            upstream=counted.upstream or None,
            failed=is_failure(refusal),
            message=advice.message,
            allowed=advice.allowed,
            rule=DecidingRule(str(advice.rule), advice.rule.place) if advice.rule else None,
            remedy=DenialRemedy(advice.remedy.text or None, advice.remedy.command or None),
        )


@dataclass(frozen=True, slots=True)
class GapLine:
    """A line of `denials --follow`."""

    gap: Gap


Line = DenialDocument | GapLine


def line(told: Denial | Gap) -> Line:
    """Return a line of `denials --follow`."""
    return GapLine(told) if isinstance(told, Gap) else DenialDocument.of(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenialsDocument(Document):
    """With `--follow`, each line is one object of `denials`, or has one of `gaps` as its `gap`."""

    denials: list[DenialDocument]
    """Different refusals, the latest last; with `--top`, the most frequent first."""
    left_out: NonNegativeInt
    """Different refusals that `--top` has left out."""
    more: NonNegativeInt
    """Refusals that were too different to be told apart."""
    suppressed: tuple[Suppressed, ...]
    """Refusals that came too fast to be written down, by the address."""
    unattributed: NonNegativeInt
    """Refusals that Envoy has only counted, because they came too fast: since it started and by whatever agent. 0
    with `--agent`."""
    tried: NonNegativeInt
    """How often something was refused to `conformance` that is left out here; 0 with `--conformance` or
    `--agent`."""
    gaps: tuple[Gap, ...]
    """Where lines of a sibling's log are missing, because the engine could not write them, as on a full disk."""

    @classmethod
    def of(cls, answer: DenialsAnswer) -> "DenialsDocument":
        return cls(
            denials=[DenialDocument.of(each) for each in answer.denials],
            left_out=answer.left_out,
            more=answer.more,
            suppressed=answer.suppressed,
            unattributed=answer.unattributed,
            tried=answer.tried,
            gaps=answer.gaps,
        )
