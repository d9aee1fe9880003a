"""The log record of a decision."""

import logging

from clawker_fw.model import Finding, Verdict
from clawker_fw.watch.decision import Answer, Decision, Outcome

LOG = logging.getLogger("clawker_fw")

_MOST_NAMED = 10
_IN_PASSING = "settings-changing"
"""The code of an error that every ordinary edit of the settings causes for a moment."""


def write(decision: Decision) -> None:
    """Log one decision: the findings, what was done about them, and the outcome."""
    fields: dict[str, object] = {
        "trigger": decision.trigger.value,
        "decision": decision.answer.value,
        "verdict": decision.verdict.value if decision.verdict else None,
        "found": _named(decision.found),
    }
    if decision.answer is Answer.HEAL:
        fields["healed"] = _named(decision.healed)
        fields["actions"] = sorted({each.action.value for each in decision.healed})
        fields["outcome"] = decision.outcome.value if decision.outcome else None
    if decision.error:
        fields["code"] = decision.error.code
        fields["message"] = decision.error.message
        fields["context"] = list(decision.error.context)
    if decision.warnings:
        fields["warnings"] = list(decision.warnings)
    if decision.unused:
        fields["settings_unused"] = {
            "code": decision.unused.code,
            "message": decision.unused.message,
            "context": list(decision.unused.context),
            "hint": decision.unused.hint,
        }
    fields["seconds"] = round(decision.seconds, 3)
    if decision.wait is not None:
        fields["wait"] = round(decision.wait, 3)
    LOG.log(_level(decision), "watch_decision", extra={"fields": fields})


def _level(decision: Decision) -> int:
    if decision.error and decision.error.code == _IN_PASSING:
        return logging.INFO
    if decision.error and decision.outcome is not Outcome.STOPPED:
        return logging.ERROR
    if decision.unused and decision.unused.code != _IN_PASSING:
        return logging.ERROR
    quiet = decision.verdict is Verdict.CURRENT and decision.answer is not Answer.HEAL and not decision.warnings
    return logging.INFO if quiet else logging.WARNING


def _named(findings: tuple[Finding, ...]) -> list[str]:
    """Return a line for each finding: sibling, layer, field, cause and action."""
    lines = [f"{each.sibling} {each.layer} {each.field} {each.cause} {each.action}" for each in findings]
    more = len(lines) - _MOST_NAMED
    return [*lines[:_MOST_NAMED], *([f"and {more} more"] if more > 0 else [])]
