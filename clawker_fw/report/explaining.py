"""The answer of `explain` for people."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.diagnose.explaining import ConnectionAnswer
from clawker_fw.diagnose.explanation import Difference, Explanation, Near
from clawker_fw.diagnose.remedies import remedy_of
from clawker_fw.diagnose.trial import UNCLEAR, Attempted
from clawker_fw.report.commands import in_text
from clawker_fw.report.facts import live_rules
from clawker_fw.report.terminal import visible
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Rule

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
    if explained.is_own_page:
        yield "page", "There agents read what was refused to them, and why. It needs no rule."
    if explained.rule:
        yield "rule", _written(explained.rule)
    if explained.request:
        socket = " as a WebSocket" if explained.request.websocket else ""
        yield "request", f"{explained.request}{socket}: {decided_by(explained)}"
    if secret := explained.secret:
        own = "unless the agent sends its own" if secret.keep_own else "in place of what the agent sends"
        yield "secret", f"{secret.secret}{f' as {secret.form}' if secret.form else ''}, {own}"
    yield from (("near", near_text(each)) for each in explained.near)
    if (found := explained.lookup) is not None:
        reached = found.open_to(explained.kind)
        shown = [
            each.address + ("" if each.address in reached else " (not reachable)") for each in found.addresses
        ]
        yield "addresses", ", ".join(shown) or f"none: {found.error}"
    if remedy := remedy_of(explained):
        yield "to do", remedy.text
    if answer.unasked:
        yield "stack", f"Answered from the rules alone: {answer.unasked.rstrip('.')}."
    if other_rules(answer):
        apply = in_text("Apply them with `clawker-fw reload`.", explained.options)
        yield "stack", f"It serves other rules than the settings have. {apply}"
    if answer.attempted:
        yield from _tried(answer, answer.attempted)


def _tried(answer: ConnectionAnswer, attempted: Attempted) -> Iterator[tuple[str, str]]:
    asked, sent = answer.explanation.request, " ".join(answer.sent)
    steps = {**_STEPS, "request": sent or "HEAD /"}
    for each in attempted.trial.steps:
        yield "live", f"{each.seconds:6.3f} s  {steps.get(each.name, each.name)}: {each.outcome}"
    if answer.unsent and asked:
        yield "live", f"{sent or 'Only the connection'} was tried: {asked.method} was not sent."
    elif sent and not asked:
        yield "live", f"{sent} was sent, which the rule allows."
    words = "The attempt got through" if attempted.passed else "The attempt did not get through"
    reason = f", for the reason {attempted.reason}" if attempted.reason else ""
    if answer.unproven:
        yield "live", "It is not proven that the host answers: no request is known that the rule allows."
    else:
        yield "live", f"There was an answer. {UNCLEAR}" if attempted.unclear else f"{words}{reason}."
    if answer.contradicted:
        yield "live", "This contradicts the rules: the stack does not do what the settings say."


def near_text(near: Near) -> str:
    """Return a rule that nearly decides, and why it does not."""
    return f"{_written(near.rule)}: {_DIFFERENCES[near.difference]}"


def _written(rule: Rule) -> str:
    return f"{rule}{rule.located}, {rule.note}" if rule.note else f"{rule}{rule.located}"


def decided_by(explained: Explanation) -> str:
    """Return what of a rule decides a request: a path, a repository, or what it says of all others."""
    if explained.path:
        return str(explained.path)
    return "refused to all" if explained.reason is Reason.BAD_REQUEST else "no path is for it"


def other_rules(answer: ConnectionAnswer) -> bool | None:
    """Whether the stack serves other rules than the settings have; None if that is unknown."""
    live = live_rules(answer.observed) if answer.observed else None
    return None if live is None else live != answer.rules
