"""The answers of `clawker-fw rules`, for people."""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from clawker_fw.report.spans import counted, remaining
from clawker_fw.rules.rule import Rule
from clawker_fw.settings.edit.edits import EditOutcome, EditResult
from clawker_fw.settings.edit.rules_file import Edited
from clawker_fw.settings.loaded import Loaded

_WIDEST = max(len(each) for each in EditOutcome)


def counts(loaded: Loaded) -> dict[str, int]:
    """Return how many rules each file has, or the variable or the preset that they come from."""
    found = Counter(
        f"the preset {rule.preset}" if rule.preset else rule.place.partition(", line ")[0]
        for rule in loaded.rules.rules
    )
    return {**{str(path): found[str(path)] for path in loaded.paths}, **found}


def verdict(loaded: Loaded, now: float) -> str:
    """Return how many rules allow, deny and have ended, and how many will end."""
    known = loaded.rules.rules
    ended = sum(rule.until is not None and rule.until <= now for rule in known)
    will_end = sum(rule.until is not None for rule in known) - ended
    denies = sum(rule.denies for rule in loaded.rules.at(now).rules)
    parts = [
        f"{len(known) - ended - denies:,} allow",
        f"{denies:,} {'denies' if denies == 1 else 'deny'}" if denies else "",
        f"{ended:,} {'has' if ended == 1 else 'have'} ended" if ended else "",
    ]
    later = f"; {will_end:,} will end" if will_end else ""
    return f"{counted(len(known), 'rule')}: {', '.join(filter(None, parts))}{later}"


def rows(loaded: Loaded, now: float) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings and the rows of the table of rules."""
    headings = ("rule", "private", "until", "note", "written in")
    return headings, [
        (
            str(replace(rule, until=None, allow_private=False)),
            "yes" if rule.allow_private else "-",
            _end(rule, now),
            rule.note or "-",
            rule.place,
        )
        for rule in loaded.rules.rules
    ]


def _end(rule: Rule, now: float) -> str:
    if rule.until is None:
        return "-"
    return f"ends in {remaining(rule.until - now)}" if rule.until > now else "ended"


def summary(loaded: Loaded) -> str:
    """Return how many rules there are, and where they are written."""
    places = [f"{count:,} in {place}" for place, count in counts(loaded).items()]
    return ": ".join(filter(None, (counted(len(loaded.rules.rules), "rule"), ", ".join(places))))


def edit_lines(results: Iterable[EditResult]) -> Iterator[str]:
    """Yield a line for each rule: `added      https a.test:443  clawker-fw.yaml, line 7`."""
    for each in results:
        changes = f"  ({'; '.join(each.changes)})" if each.changes else ""
        place = f"  {each.place}" if each.place else ""
        what = "some of it" if each.partly else "it"
        still = f", but `{each.allowed_by}` still allows {what}" if each.allowed_by else ""
        yield f"{each.outcome:<{_WIDEST}}  {each.rule}{changes}{place}{still}"


def edit_diff(done: Edited) -> str:
    """Return the change of the settings file as a unified diff."""
    before, after = (content.decode().splitlines() for content in done.contents)
    return "\n".join(difflib.unified_diff(before, after, str(done.path), "edited", n=1, lineterm=""))
