"""The answer of `explain`, and its text form."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.diagnose.explaining import ConnectionAnswer
from clawker_fw.diagnose.explanation import Difference, Explanation, Near
from clawker_fw.diagnose.remedies import Remedy, remedy_of
from clawker_fw.diagnose.trial import Attempted
from clawker_fw.model.json_types import Moment
from clawker_fw.model.trials import TrialStep
from clawker_fw.report.documents import Document
from clawker_fw.report.facts import live_rules
from clawker_fw.report.terminal import visible
from clawker_fw.rules import until
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import HIGHEST_PORT, Protocol, Rule, RuleAction

_DIFFERENCES = {
    Difference.ENDED: "has ended",
    Difference.OVERRULED: "another rule decides before it",
    Difference.OTHER_PORT: "for another port",
    Difference.OTHER_PROTOCOL: "for another protocol",
    Difference.NAME_ALONE: "for that name alone, not for names below it",
    Difference.OTHER_NAME: "for another name, spelled similarly",
    Difference.BELOW: "for names below this one",
}
_WIDTH = 9


@dataclass(frozen=True, slots=True)
class ExplainedRule:
    """A rule as it is written."""

    text: str
    """The rule in one line: `https .example.org:443`."""
    action: RuleAction
    allow_private: bool
    until: Moment | None
    """When it ends, or has ended, in UTC."""
    note: str
    place: str
    """Where it is written: a file and line, or a variable."""

    @classmethod
    def of(cls, rule: Rule) -> "ExplainedRule":
        end = None if rule.until is None else until.rfc3339(rule.until)
        return cls(str(rule), rule.action, rule.allow_private, end, rule.note, rule.place)


@dataclass(frozen=True, slots=True)
class NearRule:
    """A rule that does not decide, but nearly does."""

    difference: Difference
    """Why it does not decide."""
    rule: ExplainedRule


@dataclass(frozen=True, slots=True)
class Address:
    """One IPv4 address of a name."""

    address: str
    reachable: bool
    """Whether the rule may reach it; without a rule that allows, an ordinary one."""


@dataclass(frozen=True, slots=True)
class Live:
    """An attempt from the agents' network."""

    passed: bool
    """Whether the host answered."""
    reason: Reason | None
    """The reason in the siblings' record of this attempt, if there is one."""
    contradicts: bool
    """Whether the stack did something else than the settings say."""
    steps: tuple[TrialStep, ...]

    @classmethod
    def of(cls, attempted: Attempted, *, contradicts: bool) -> "Live":
        return cls(attempted.passed, attempted.reason, contradicts, attempted.trial.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainDocument(Document):
    """The answer of `explain`."""

    allowed: bool
    """Whether the rules in the settings allow it, and may reach one of its addresses, or it is observed."""
    reason: Reason | None
    """Why it is refused or `observed`, as in the siblings' records; null if a rule allows it."""
    message: str | None
    """The reason in words."""
    name: str
    """The host name in canonical form, or what was named instead of one."""
    protocol: Protocol
    port: Annotated[int, Field(ge=1, le=HIGHEST_PORT)]
    method: str | None
    """The method of the request; null if the rule has no paths, or none was asked for."""
    path: str | None
    """The path of the request as Envoy sees it, without the query."""
    path_rule: str | None
    """The path or the repository of the rule that decides it; null if none is for it."""
    way: str | None
    """With an upstream proxy, how an allowed host is reached: through it, or directly."""
    secret: str | None
    """The name of the secret that Envoy puts into the request; null if there is none."""
    rule: ExplainedRule | None
    """The rule that decides; with the reason `expired`, the one that would if it had not ended."""
    near: list[NearRule]
    """The nearest rules that do not decide, at most five."""
    remedy: Remedy | None
    """What to do to allow it; null if a rule allows it, or the rules are not the reason."""
    addresses: list[Address] | None
    """The IPv4 addresses of the name as Envoy sees them now; null if it was not asked."""
    lookup_error: str | None
    """Why the name has no address."""
    unasked: str | None
    """Why the answer is from the rules alone; null if the stack was asked, or need not be."""
    other_rules: bool | None
    """Whether the settings have different rules than the siblings serve; null if unknown."""
    live: Live | None
    """With `--live`: an attempt from the agents' network."""

    @classmethod
    def of(cls, answer: ConnectionAnswer) -> "ExplainDocument":
        explained, attempted = answer.explanation, answer.attempted
        lookup = explained.lookup
        return cls(
            allowed=explained.allowed,
            reason=explained.reason,
            message=explained.sentence or None,
            name=explained.target.name,
            protocol=explained.target.protocol,
            port=explained.target.port,
            method=explained.request.method if explained.request else None,
            path=explained.request.path if explained.request else None,
            path_rule=str(explained.path) if explained.path else None,
            way=explained.way or None,
            secret=explained.secret.secret if explained.secret else None,
            rule=ExplainedRule.of(explained.rule) if explained.rule else None,
            near=[NearRule(near.difference, ExplainedRule.of(near.rule)) for near in explained.near],
            remedy=remedy_of(explained),
            addresses=[
                Address(address.address, explained.kind not in address.closed) for address in lookup.addresses
            ]
            if lookup
            else None,
            lookup_error=(lookup.error or None) if lookup else None,
            unasked=answer.unasked or None,
            other_rules=other_rules(answer),
            live=Live.of(attempted, contradicts=answer.contradicted) if attempted else None,
        )


def explanation_report(answer: ConnectionAnswer) -> RenderableType:
    """Return the outcome, the deciding rule, near misses, and the advice."""
    explained = answer.explanation
    head = Text.assemble(
        _outcome(explained),
        "  ",
        visible(str(explained.target)),
        visible(f": {explained.sentence} ({explained.reason})") if explained.reason else "",
    )
    facts = (
        Text.assemble("  ", (f"{label:{_WIDTH}}", "dim"), "  ", visible(text)) for label, text in _facts(answer)
    )
    return Group(head, *facts)


def explanation_line(project: str, answer: ConnectionAnswer) -> RenderableType:
    """Return the outcome for one of several stacks in a line, with the rule that decides."""
    explained = answer.explanation
    why = _written(explained.rule) if explained.rule else str(explained.reason)
    return Text.assemble(_outcome(explained), visible(f"  {project}: {why}"))


def _outcome(explained: Explanation) -> tuple[str, str]:
    if explained.reason is Reason.OBSERVED:
        return "observed", "bold yellow"
    return ("allowed", "bold green") if explained.allowed else ("refused", "bold red")


def _facts(answer: ConnectionAnswer) -> Iterator[tuple[str, str]]:
    explained = answer.explanation
    if explained.is_own_page:
        yield "page", "There agents read what was refused to them, and why. It needs no rule."
    yield from _decided(explained)
    if explained.request:
        socket = " as a WebSocket" if explained.request.websocket else ""
        yield "request", f"{explained.request}{socket}: {decided_by(explained)}"
    if secret := explained.secret:
        form = f" as {secret.form}" if secret.form else ""
        yield "secret", f"{secret.secret}{form}, in place of what the agent sends"
    yield from (("near", near_text(near)) for near in explained.near)
    if (lookup := explained.lookup) is not None:
        reached = lookup.open_to(explained.kind)
        shown = [
            address.address + ("" if address.address in reached else " (not reachable)")
            for address in lookup.addresses
        ]
        yield "addresses", ", ".join(shown) or f"none: {lookup.error}"
    if remedy := remedy_of(explained):
        yield "to do", remedy.text
    if answer.unasked:
        yield "stack", f"Answered from the rules alone: {answer.unasked.rstrip('.')}."
    if other_rules(answer):
        yield "stack", "It serves other rules than the settings have. Apply them with `clawker-fw reload`."
    if answer.attempted:
        yield from _tried(answer, answer.attempted)


def _decided(explained: Explanation) -> Iterator[tuple[str, str]]:
    if explained.rule:
        yield "rule", _written(explained.rule)
    if explained.way:
        yield "way", explained.way


def _tried(answer: ConnectionAnswer, attempted: Attempted) -> Iterator[tuple[str, str]]:
    asked, sent = answer.explanation.request, " ".join(answer.sent)
    for trial_step in attempted.trial.steps:
        step = (sent or "HEAD /") if trial_step.name == "request" else trial_step.name
        yield "live", f"{trial_step.seconds:6.3f} s  {step}: {trial_step.outcome}"
    if answer.unsent and asked:
        yield "live", f"{sent or 'Only the connection'} was tried: {asked.method} was not sent."
    elif sent and not asked:
        yield "live", f"{sent} was sent, which the rule allows."
    words = "The attempt got through" if attempted.passed else "The attempt did not get through"
    reason = f", for the reason {attempted.reason}" if attempted.reason else ""
    if answer.unproven:
        yield "live", "It is not proven that the host answers: no request is known that the rule allows."
    else:
        yield "live", f"{words}{reason}."
    if answer.contradicted:
        yield "live", "This contradicts the rules: the stack does not do what the settings say."


def near_text(near: Near) -> str:
    """Return a near miss, and why it does not decide."""
    return f"{_written(near.rule)}: {_DIFFERENCES[near.difference]}"


def _written(rule: Rule) -> str:
    return f"{rule}{rule.located}, {rule.note}" if rule.note else f"{rule}{rule.located}"


def decided_by(explained: Explanation) -> str:
    """Return the part of a rule that decides a request: a path, a repository, or its default."""
    if explained.path:
        return str(explained.path)
    return "refused to all" if explained.reason is Reason.BAD_REQUEST else "no path is for it"


def other_rules(answer: ConnectionAnswer) -> bool | None:
    """Whether the stack serves other rules than the settings have; None if that is unknown."""
    live = live_rules(answer.observed) if answer.observed else None
    return None if live is None else live != answer.rules
