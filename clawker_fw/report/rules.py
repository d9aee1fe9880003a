"""The answers of `clawker-fw rules` as text."""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from rich.console import Console, ConsoleOptions
from rich.text import Text

from clawker_fw.report.spans import counted, remaining
from clawker_fw.report.terminal import visible
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.settings.edit.edits import EditOutcome, EditResult
from clawker_fw.settings.edit.rules_file import Edited
from clawker_fw.settings.loaded import Loaded

_WIDEST = max(len(outcome) for outcome in EditOutcome)


def counts(loaded: Loaded) -> dict[str, int]:
    """Return the number of rules of each file, variable or preset."""
    counter = Counter(
        f"the preset {rule.preset}" if rule.preset else rule.place.partition(", line ")[0]
        for rule in loaded.rules.rules
    )
    return {**{str(path): counter[str(path)] for path in loaded.paths}, **counter}


class RuleLines:
    """All rules, one in a line. If that is too wide, place and note go on a second line."""

    def __init__(self, rules: RuleSet, now: float) -> None:
        """Prepare the lines. `now` is in seconds since 1970."""
        self._lines = [
            (str(replace(rule, until=None, allow_private=False)), "; ".join(_details(rule, now)))
            for rule in rules.rules
        ]

    def __rich_console__(self, target: Console, options: ConsoleOptions) -> Iterable[Text]:
        """Yield lines."""
        names = max((len(name) for name, _ in self._lines), default=0)
        for name, details in self._lines:
            line = Text(visible(f"  {name:<{names}}  {details}"))
            if line.cell_len <= options.max_width:
                yield line
                continue
            yield Text(visible(f"  {name}"))
            second = Text(visible(f"    {details}"))
            second.truncate(options.max_width, overflow="ellipsis")
            yield second


def _details(rule: Rule, now: float) -> Iterator[str]:
    yield rule.place
    if rule.until is not None:
        yield f"ends in {remaining(rule.until - now)}" if rule.until > now else "ended"
    if rule.allow_private:
        yield "also private addresses"
    if rule.note:
        yield rule.note


def summary(loaded: Loaded) -> str:
    """Return the number of rules, and where they are written."""
    places = [f"{count:,} in {place}" for place, count in counts(loaded).items()]
    return ": ".join(filter(None, (counted(len(loaded.rules.rules), "rule"), ", ".join(places))))


def edit_lines(results: Iterable[EditResult]) -> Iterator[str]:
    """Yield a line for each rule: `added      https a.test:443  clawker-fw.yaml, line 7`."""
    for result in results:
        changes = f"  ({'; '.join(result.changes)})" if result.changes else ""
        place = f"  {result.place}" if result.place else ""
        still = f", but `{result.allowed_by}` still allows it, at least in part" if result.allowed_by else ""
        yield f"{result.outcome:<{_WIDEST}}  {result.rule}{changes}{place}{still}"


def edit_diff(done: Edited) -> str:
    """Return the change of the settings file as a unified diff."""
    before, after = (content.decode().splitlines() for content in done.contents)
    return "\n".join(difflib.unified_diff(before, after, str(done.path), "edited", n=1, lineterm=""))
