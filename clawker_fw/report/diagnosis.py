"""The answer of `doctor` for people: each check with what to do."""

import re
import textwrap
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions
from rich.text import Text

from clawker_fw.inspect.diagnosis import Check, CheckHealth
from clawker_fw.report.terminal import visible

_STYLES = {
    CheckHealth.OK: "green",
    CheckHealth.WARNING: "yellow",
    CheckHealth.FAILED: "bold red",
    CheckHealth.SKIPPED: "dim",
}
_WIDEST = max(map(len, CheckHealth))
_UNBROKEN = "\N{NO-BREAK SPACE}"
"""Stands for the spaces of a command while lines are broken."""


class Report:
    """The answer for people: a paragraph for each check, and one for what to do. Commands stay in one line."""

    def __init__(self, checks: Sequence[Check]) -> None:
        """Store the checks."""
        self._checks = checks

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield lines that fit the terminal."""
        for each in self._checks:
            state = each.health.value.ljust(_WIDEST)
            first, *others = _wrapped(f"{state}  {each.name}: {each.seen}", _WIDEST + 2, options.max_width)
            yield _line(first, _STYLES[each.health], len(state))
            yield from map(_line, others)
            if each.advice:
                advice = f"{' ' * _WIDEST}  → {each.advice}"
                yield from map(_line, _wrapped(advice, _WIDEST + 4, options.max_width))


def _line(words: str, style: str = "", styled: int = 0) -> Text:
    line = Text(words, no_wrap=True, overflow="ignore")
    line.stylize(style, 0, styled)
    return line


def _wrapped(words: str, indent: int, width: int) -> list[str]:
    """Return the lines of a paragraph, of which all but the first are indented."""
    whole = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", _UNBROKEN), visible(words))
    lines = textwrap.wrap(
        whole,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_UNBROKEN, " ") for line in lines]
