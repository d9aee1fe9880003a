"""The questions of `denials --ask`, for people at a terminal.

A question begins with the host's full name, and ends with the number of waiting hosts. Nothing else is printed
while it is open.
"""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.denials.question import Question
from clawker_fw.denials.ruling import USUAL
from clawker_fw.report import text
from clawker_fw.report.explaining import near_text
from clawker_fw.report.terminal import visible
from clawker_fw.rules.rule import Protocol

_WIDTH = 8
_MOST_NAMED = 3
_ANYTHING = "every agent may send anything to this host, and get anything from it"
_ANSWERS = (
    ("y", "allow it for 30 minutes; or type a time, such as 2h"),
    ("a", "allow it always"),
    ("n", "deny it, and never ask again"),
    ("s", "leave it, and don't ask again for now"),
)
_HOW = {Protocol.HTTPS: "over TLS on this port", Protocol.HTTP: "on this port and without encryption"}


def show(question: Question, more: int) -> None:
    """Print a question, the number of waiting hosts, and a prompt."""
    console = text.console()
    console.print()
    console.print(question_report(question))
    if more:
        console.print(Text(f"and {more:,} more", style="dim"))
    console.print("> ", end="")


def show_misunderstood() -> None:
    """Say that the input is not an answer."""
    text.console().print("Type y, a, n, s, or a time such as 2h.\n> ", end="")


def question_report(question: Question) -> RenderableType:
    """Return a question: the host, the agent, the reason, the effect of allowing it, and the answers."""
    target = question.target
    head = Text.assemble((visible(target.name), "bold"), f"  {target.protocol}, port {target.port}")
    return Group(
        head,
        *(Text.assemble("  ", (f"{label:{_WIDTH}}  ", "dim"), visible(text)) for label, text in _facts(question)),
    )


def _facts(question: Question) -> Iterator[tuple[str, str]]:
    agents, more = ", ".join(question.agents[:_MOST_NAMED]), len(question.agents) - _MOST_NAMED
    others = f" and {more:,} more" if more > 0 else ""
    times = f", {question.times:,} times" if question.times > 1 else ""
    unsaid = "; a DNS query names no port, so https on its usual port is assumed" if question.guessed else ""
    yield "asked by", f"{agents}{others}{times}{unsaid}"
    yield "why", f"{question.message} ({question.reason})"
    if question.near:
        yield "near", near_text(question.near)
    yield "allowing", meaning(question)
    yield "same as", question.allow_command(USUAL)
    for place, (key, words) in enumerate(_ANSWERS):
        yield "" if place else "answers", f"{key:5}  {words}"


def meaning(question: Question) -> str:
    """Return the effect of allowing it."""
    if question.renewed and question.renewed.paths:
        return f"again what the rule allowed: {question.renewed.paths}"
    return f"{_ANYTHING}, {_HOW.get(question.target.protocol, 'on this port')}"
