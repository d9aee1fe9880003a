"""A person's answer to a question, and the rule that follows from it. Pure.

An answer is one of a few keywords. Only the expiry in it becomes part of a rule.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from clawker_fw.denials.question import Question
from clawker_fw.diagnose.explanation import Explainer
from clawker_fw.errors import RefusedError
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.rules.until import rfc3339
from clawker_fw.settings.edit.edits import Addition, EditResult, Written, add, identity
from clawker_fw.settings.edit.rules_file import Decide
from clawker_fw.settings.edit.splice import Edit

USUAL = "30m"
"""The default duration of an allowance."""

_ASKED_BY = "asked by "
_LONGEST_PART, _LONGEST_NOTE = 60, 200
"""The longest part of a note, and the longest note in settings, in characters."""

_DURATION = re.compile(r"[1-9][0-9]{0,5}[smhd]")


@dataclass(frozen=True, slots=True)
class Allow:
    """Allow it for a time, such as `30m`, or always."""

    time: str = ""


@dataclass(frozen=True, slots=True)
class Deny:
    """Deny it with a rule, so that nobody is asked again."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Change nothing, and don't ask about it again for now."""


Reply = Allow | Deny | Leave

_TYPED: dict[str, Reply] = {
    "y": Allow(USUAL),
    "a": Allow(),
    "n": Deny(),
    "s": Leave(),
}
"""Agents choose the questions, so an empty line, which is easily typed by mistake, is not an answer."""


def typed(line: str) -> Reply | None:
    """Return the answer that a typed line means, or None if it is invalid."""
    words = line.strip().lower()
    return Allow(words) if _DURATION.fullmatch(words) else _TYPED.get(words)


def _addition(question: Question, reply: Allow | Deny, note: str, now: datetime) -> Addition:
    if isinstance(reply, Allow):
        return question.allow_until(reply.time).addition(now.timestamp(), note)
    target = question.target
    of_port = {"proto": target.protocol, "port": target.port} if question.known else {}
    entry = RuleEntry.model_validate({"dst": target.name, "action": "deny", "note": note, **of_port})
    return Addition(entry.rule("the answer"), note)


def ruling(question: Question, reply: Allow | Deny, who: str, now: datetime) -> Decide:
    """Return an edit that adds the answer's rule, keeping a person's note of an existing one.

    The edit raises RefusedError as `edits.add` does.
    """
    agents = ", ".join(question.agents)[:_LONGEST_PART]
    note = f"{_ASKED_BY}{agents}; answered by {who[:_LONGEST_PART]} at {rfc3339(now.timestamp())}"
    addition = _addition(question, reply, note, now)

    def decide(entries: Sequence[Written]) -> tuple[Edit, Sequence[EditResult]]:
        same = (entry.rule for entry in entries if identity(entry.rule) == identity(addition.rule))
        old = next((rule.note.partition(_ASKED_BY)[0] for rule in same), "")
        return add(entries, [replace(addition, note=f"{old}{addition.note}"[:_LONGEST_NOTE])], now.timestamp())

    return decide


def require_kept(question: Question, reply: Allow | Deny, before: RuleSet, after: RuleSet, now: float) -> None:
    """Check that the rules follow the answer and allow the rest as before. Raise RefusedError if they don't."""
    target = question.target
    decided = Explainer(after, now).decide(target)
    meant = decided.allowed if isinstance(reply, Allow) else decided.reason is Reason.DENIED
    was, is_now = (Policy(rules.at(now)) for rules in (before, after))
    keys = {key for rule in was.covering(target.name) if not rule.denies for key in rule.keys}
    keys -= {(target.protocol.transport, target.port)}
    lost = any(
        was.decide(target.name, *key).allowed and not is_now.decide(target.name, *key).allowed for key in keys
    )
    if not meant or lost:
        raise RefusedError(
            "answer-without-effect",
            f"Your answer would have no effect on {target}, because other rules decide.",
            hint="Nothing has been changed. Edit the rules by hand.",
        )
