"""The answers of `clawker-fw rules`: for people, and as JSON documents."""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from clawker_fw.report.documents import SCHEMA
from clawker_fw.rules.importing import Imported
from clawker_fw.rules.review import Remark
from clawker_fw.rules.schema import Rule
from clawker_fw.rules.until import written
from clawker_fw.settings.edit.edits import EditOutcome, EditResult
from clawker_fw.settings.edit.rules_file import Edited
from clawker_fw.settings.load import Loaded

_WIDEST = max(len(each) for each in EditOutcome)


def list_document(loaded: Loaded, named_by: str, now: float) -> dict[str, Any]:
    """Return the answer of `rules list`: `now` is in seconds since 1970, `named_by` is what chose the settings."""
    return {**_about(loaded, named_by), "rules": [_rule(rule, now) for rule in loaded.rules.rules]}


def _rule(rule: Rule, now: float) -> dict[str, Any]:
    return {
        "dst": rule.host or str(rule.destination),
        "as": rule.destination.name if rule.host else None,
        "proto": rule.protocol and rule.protocol.value,
        "port": rule.written_port,
        "action": rule.action.value,
        "allow_private": rule.allow_private,
        "until": None if rule.until is None else written(rule.until),
        "ended": rule.until is not None and rule.until <= now,
        "note": rule.note,
        "place": rule.place,
    }


def check_document(loaded: Loaded, named_by: str, remarks: Sequence[Remark]) -> dict[str, Any]:
    """Return the answer of `rules check`."""
    files = [{"path": str(path), "rules": count} for path, count in counts(loaded).items()]
    return {
        **_about(loaded, named_by),
        "rules": len(loaded.rules.rules),
        "files": files,
        "warnings": _warnings(remarks),
    }


def counts(loaded: Loaded) -> dict[str, int]:
    """Return how many rules each file has, or the variable that they come from."""
    found = Counter(rule.place.partition(", line ")[0] for rule in loaded.rules.rules)
    return {**{str(path): found[str(path)] for path in loaded.paths}, **found}


def edit_document(
    done: Edited,
    named_by: str,
    remarks: Sequence[Remark],
    imported: Sequence[Imported] | None,
    *,
    dry_run: bool,
) -> dict[str, Any]:
    """Return the answer of the verbs that edit, without that of the reload. `remarks` are those that are new."""
    return {
        **_about(done.after, named_by),
        "changed": done.changed and not dry_run,
        "dry_run": dry_run,
        "imported": None if imported is None else _imported(imported),
        "rules": [
            {
                "outcome": each.outcome.value,
                "rule": each.rule,
                "place": each.place or None,
                "changes": list(each.changes),
                "allowed_by": each.allowed_by or None,
            }
            for each in done.results
        ],
        "warnings": _warnings(remarks),
    }


def refused_document(imported: Sequence[Imported]) -> dict[str, Any]:
    """Return the answer of `rules import` when nothing was imported, because something is left out."""
    return {
        "schema": SCHEMA,
        "settings": None,
        "changed": False,
        "dry_run": False,
        "imported": _imported(imported),
        "rules": [],
        "warnings": [],
        "reload": None,
    }


def _imported(imported: Sequence[Imported]) -> list[dict[str, Any]]:
    return [
        {
            "result": _result(each),
            "entry": each.entry or str(each.rule),
            "place": each.place,
            "remarks": list(each.remarks),
        }
        for each in imported
    ]


def _about(loaded: Loaded, named_by: str) -> dict[str, Any]:
    path = str(loaded.source.absolute()) if loaded.source else None
    return {"schema": SCHEMA, "settings": {"path": path, "source": named_by}}


def _warnings(remarks: Iterable[Remark]) -> list[dict[str, str]]:
    return [{"code": each.code, "message": f"{each}."} for each in remarks]


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
    from clawker_fw.report.text import remaining  # noqa: PLC0415 - it imports `rich`, and few rules end

    return f"ends in {remaining(rule.until - now)}" if rule.until > now else "ended"


def summary(loaded: Loaded) -> str:
    """Return how many rules there are, and where they are written."""
    places = [f"{count:,} in {place}" for place, count in counts(loaded).items()]
    return f"{counted_rules(len(loaded.rules.rules))}: {', '.join(places)}" if places else counted_rules(0)


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


def import_lines(imported: Iterable[Imported]) -> Iterator[str]:
    """Yield a line for each entry of a file that is imported."""
    for each in imported:
        remarks = f": {'; '.join(each.remarks)}" if each.remarks else ""
        yield f"{_result(each):<{_WIDEST}}  {each.entry or each.rule}  {each.place}{remarks}"


def _result(imported: Imported) -> str:
    if imported.rule is None:
        return "left out"
    return "differs" if imported.remarks else "taken"


def counted_rules(number: int) -> str:
    """Return a number of rules in words: `1 rule`, `2,000 rules`."""
    return f"{number:,} rule{'' if number == 1 else 's'}"
