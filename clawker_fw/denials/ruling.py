"""What a person answers to a question, and the rule that comes of it. Pure.

Words are only ever one of a few answers. Nothing that is said becomes a part of a rule but the time of its end.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from clawker_fw.denials.question import Question
from clawker_fw.diagnose.explanation import Explainer
from clawker_fw.errors import RefusedError
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import RuleEntry, mistake
from clawker_fw.rules.until import parse_until_from, rfc3339
from clawker_fw.settings.edit.edits import Addition, EditResult, Written, add
from clawker_fw.settings.edit.rules_file import Decide
from clawker_fw.settings.edit.splice import Edit

USUAL = "30m"
"""For how long something is allowed unless another time is named."""

_ASKED_BY = "asked by "
_LONGEST_PART, _LONGEST_NOTE = 60, 200
"""Characters of what a note names, and of a whole one, as settings may have it."""

_DURATION = re.compile(r"[1-9][0-9]{0,5}[smhd]")


@dataclass(frozen=True, slots=True)
class Allow:
    """It is allowed for a time, such as `30m`, or always."""

    time: str = ""


@dataclass(frozen=True, slots=True)
class Deny:
    """It is denied by a rule, so nobody is asked again."""


@dataclass(frozen=True, slots=True)
class Mute:
    """Nothing more is asked for these agents, for now."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing changes, and the same is not asked again, for now."""


Reply = Allow | Deny | Mute | Leave

_TYPED: dict[str, Reply] = {
    "a": Allow(),
    "always": Allow(),
    "m": Mute(),
    "n": Deny(),
    "never": Deny(),
    "s": Leave(),
}
"""An agent chooses what is asked, so no answer is as easy to give by mistake as an empty line."""
_YES = "y"


def typed(line: str, question: Question) -> Reply | None:
    """Return what a line means that a person typed, or None if it means nothing."""
    words = line.strip().lower()
    if found := _TYPED.get(words):
        return found
    if question.lasting_only:
        return None
    if words == _YES:
        return Allow(USUAL)
    return Allow(words) if _DURATION.fullmatch(words) else None


def note(question: Question, who: str, now: datetime) -> str:
    """Return the note of the rule: who asked, who answered, and when."""
    agents = ", ".join(question.agents)
    return f"{_ASKED_BY}{agents[:_LONGEST_PART]}; answered by {who[:_LONGEST_PART]} at {rfc3339(now.timestamp())}"


def addition(question: Question, reply: Allow | Deny, words: str, now: datetime) -> Addition:
    """Return the rule to add. It is for exactly what the question says.

    Raises:
        RefusedError: when there is no such rule: its end can't be written, or its path can't be denied.
    """
    target, denies = question.target, isinstance(reply, Deny)
    fields: dict[str, Any] = {"dst": target.name, "note": words}
    if question.request:
        allowed = question.request.path if denies else question.allow.path
        path = {"path": allowed, "methods": [question.request.method]}
        fields |= {"path_rules": [path | ({"action": "deny"} if denies else {})]}
    elif denies:
        fields |= {"action": "deny"}
    if question.request or question.known or not denies:
        fields |= {"proto": target.protocol, "port": target.port}
    if isinstance(reply, Allow) and reply.time:
        fields |= {"until": _until(reply.time, now)}
    chosen = frozenset({"until", "path_rules"} if not denies and not question.request else {"path_rules"})
    try:
        rule = RuleEntry.model_validate(fields).rule("the answer")
    except ValidationError as error:
        sentence = "; ".join(map(mistake, error.errors(include_url=False)))
        raise RefusedError("answer-impossible", f"There can be no such rule: {sentence}.") from error
    return Addition(rule, words, chosen=chosen)


def _until(time: str, now: datetime) -> datetime | None:
    try:
        return parse_until_from(time, now)
    except (ValueError, OverflowError) as error:
        raise RefusedError("until-too-far", f"{time} from now can't be written as a time.") from error


def ruling(question: Question, reply: Allow | Deny, who: str, now: datetime) -> Decide:
    """Return what edits the rules after an answer: it adds the rule, and keeps a person's note of another one.

    Raises:
        RefusedError: as of `addition`, and when the rules are edited as of `edits.add`.
    """
    wanted = addition(question, reply, note(question, who, now), now)

    def decide(there: Sequence[Written]) -> tuple[Edit, Sequence[EditResult]]:
        same = (each.rule for each in there if _same(each.rule, wanted.rule))
        old = next((each.note.partition(_ASKED_BY)[0] for each in same), "")
        return add(there, [replace(wanted, note=f"{old}{wanted.note}"[:_LONGEST_NOTE])], now.timestamp())

    return decide


def _same(one: Rule, other: Rule) -> bool:
    return (one.destination, one.protocol, one.written_port, one.action) == (
        other.destination,
        other.protocol,
        other.written_port,
        other.action,
    )


def require_kept(question: Question, reply: Allow | Deny, before: RuleSet, after: RuleSet, now: float) -> None:
    """Require that the edited rules do what was answered, and take nothing from what others allow.

    Raises:
        RefusedError: when they do not.
    """
    target, request = question.target, question.request
    decided = Explainer(after, now).decide(target, request)
    meant = decided.allowed if isinstance(reply, Allow) else decided.reason in {Reason.DENIED, Reason.PATH}
    was, is_now = (Policy(rules.at(now)) for rules in (before, after))
    keys = {key for rule in was.covering(target.name) if not rule.denies for key in rule.keys}
    keys -= {(target.protocol.transport, target.port)}
    lost = any(
        was.decide(target.name, *key).allowed and not is_now.decide(target.name, *key).allowed for key in keys
    )
    if not meant or lost:
        raise RefusedError(
            "answer-without-effect",
            f"The answer would not do for {target} what it says, because other rules decide.",
            hint="Nothing has been changed. Edit the rules by hand.",
        )
