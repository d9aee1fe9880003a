"""The answer of `doctor`: each check with what to do, for people and as a JSON document."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.diagnosis import Check, Health
from clawker_fw.report.documents import SCHEMA
from clawker_fw.report.terminal import visible

_STYLES = {Health.OK: "green", Health.WARNING: "yellow", Health.FAILED: "bold red", Health.SKIPPED: "dim"}
_WIDEST = max(map(len, Health))


def document(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the answer as JSON."""
    return {
        "schema": SCHEMA,
        "healthy": not any(each.health is Health.FAILED for each in checks),
        "checks": [
            {"name": each.name, "health": each.health.value, "seen": each.seen, "advice": each.advice or None}
            for each in checks
        ],
    }


def report(checks: Sequence[Check]) -> RenderableType:
    """Return the answer for people: a line for each check, and one for what to do."""
    lines: list[Text] = []
    for each in checks:
        state = (each.health.value.ljust(_WIDEST), _STYLES[each.health])
        lines.append(Text.assemble(state, visible(f"  {each.name}: {each.seen}")))
        if each.advice:
            lines.append(Text(visible(f"{' ' * _WIDEST}  → {each.advice}")))
    return Group(*lines)
