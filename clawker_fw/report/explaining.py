"""The answer of `explain`, for people and for programs."""

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.inspect.explaining import ConnectionAnswer
from clawker_fw.inspect.explanation import Difference, Near
from clawker_fw.inspect.trial import UNCLEAR, Attempted
from clawker_fw.report.documents import SCHEMA, live_rules
from clawker_fw.report.terminal import visible
from clawker_fw.rules import until
from clawker_fw.rules.schema import Rule

_DIFFERENCES = {
    Difference.ENDED: "has ended",
    Difference.OVERRULED: "another rule decides before it",
    Difference.OTHER_PORT: "for another port",
    Difference.OTHER_PROTOCOL: "for another protocol",
    Difference.NAME_ALONE: "for that name alone, not for names below it",
    Difference.OTHER_ADDRESS: "for other addresses, which have names below that one",
    Difference.OTHER_NAME: "for another name, spelled similarly",
    Difference.BELOW: "for names below this one",
}
_STEPS = {
    "resolve": "resolved",
    "connect": "connected",
    "handshake": "TLS",
    "request": "HEAD /",
    "datagram": "empty datagram",
}
_WIDTH = 9


def explanation_report(answer: ConnectionAnswer) -> RenderableType:
    """Return what happens, what decides, what nearly does, and what to do."""
    explained = answer.explanation
    head = Text.assemble(
        ("allowed", "bold green") if explained.allowed else ("refused", "bold red"),
        "  ",
        visible(str(explained.target)),
        visible(f": {explained.sentence} ({explained.reason})") if explained.reason else "",
    )
    return Group(head, *(_line(label, text) for label, text in _facts(answer)))


def _line(label: str, text: str) -> Text:
    return Text.assemble("  ", (f"{label:{_WIDTH}}", "dim"), "  ", visible(text))


def _facts(answer: ConnectionAnswer) -> Iterator[tuple[str, str]]:
    explained = answer.explanation
    if explained.rule:
        yield "rule", _written(explained.rule)
    yield from (("near", f"{_written(each.rule)}: {_DIFFERENCES[each.difference]}") for each in explained.near)
    if (found := explained.lookup) is not None:
        reached = found.open_to(explained.kind)
        shown = [
            each.address + ("" if each.address in reached else " (not reachable)") for each in found.addresses
        ]
        yield "addresses", ", ".join(shown) or f"none: {found.error}"
    if remedy := explained.remedy:
        yield "to do", remedy.text
    if answer.unasked:
        yield "stack", f"Answered from the rules alone: {answer.unasked.rstrip('.')}."
    if _other_rules(answer):
        yield "stack", "It serves other rules than the settings have. Apply them with `clawker-fw reload`."
    if answer.attempted:
        yield from _tried(answer, answer.attempted)


def _tried(answer: ConnectionAnswer, attempted: Attempted) -> Iterator[tuple[str, str]]:
    for each in attempted.trial.steps:
        yield "live", f"{each.seconds:6.3f} s  {_STEPS.get(each.name, each.name)}: {each.outcome}"
    words = "The attempt got through" if attempted.passed else "The attempt did not get through"
    reason = f", for the reason {attempted.reason}" if attempted.reason else ""
    yield "live", f"There was an answer. {UNCLEAR}" if attempted.unclear else f"{words}{reason}."
    if answer.contradicted:
        yield "live", "This contradicts the rules: the stack does not do what the settings say."


def _written(rule: Rule) -> str:
    """Return a rule with where it is written, and its note."""
    place = f" ({rule.place})" if rule.place else ""
    return f"{rule}{place}, {rule.note}" if rule.note else f"{rule}{place}"


def _other_rules(answer: ConnectionAnswer) -> bool | None:
    """Whether the stack serves other rules than the settings have; None if that is unknown."""
    live = live_rules(answer.observed) if answer.observed else None
    return None if live is None else live != answer.rules


def explanation_document(answer: ConnectionAnswer) -> dict[str, Any]:
    """Return the answer of `explain`."""
    explained, attempted = answer.explanation, answer.attempted
    found, remedy = explained.lookup, explained.remedy
    return {
        "schema": SCHEMA,
        "allowed": explained.allowed,
        "reason": explained.reason,
        "message": explained.sentence or None,
        "name": explained.target.name,
        "protocol": explained.target.protocol.value,
        "port": explained.target.port,
        "rule": _rule(explained.rule) if explained.rule else None,
        "near": [_near(each) for each in explained.near],
        "remedy": {"text": remedy.text, "command": remedy.command or None} if remedy else None,
        "addresses": None
        if found is None
        else [
            {"address": each.address, "reachable": explained.kind not in each.closed} for each in found.addresses
        ],
        "lookup_error": (found.error or None) if found else None,
        "unasked": answer.unasked or None,
        "other_rules": _other_rules(answer),
        "live": _live(answer, attempted) if attempted else None,
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "text": str(rule),
        "action": rule.action.value,
        "allow_private": rule.allow_private,
        "until": None if rule.until is None else until.written(rule.until),
        "note": rule.note,
        "place": rule.place,
    }


def _near(near: Near) -> dict[str, Any]:
    return {"difference": near.difference.value, "rule": _rule(near.rule)}


def _live(answer: ConnectionAnswer, attempted: Attempted) -> dict[str, Any]:
    return {
        "passed": attempted.passed,
        "reason": attempted.reason,
        "unclear": attempted.unclear,
        "contradicts": answer.contradicted,
        "steps": [
            {
                "step": each.name,
                "ok": each.ok,
                "seconds": round(each.seconds, 6),
                "status": each.status or None,
                "outcome": each.outcome,
            }
            for each in attempted.trial.steps
        ],
    }
