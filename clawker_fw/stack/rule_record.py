"""The record of the rules that were committed last, in the resolver's volume. Only clawker-fw reads it.

From it follows which rules a change adds and removes: the programs' own files don't tell.
"""

import json
from collections.abc import Sequence

from pydantic import TypeAdapter

from clawker_fw.model import Files
from clawker_fw.stack import container
from clawker_fw.stack.resources import Resource

RESOURCE = Resource("rules", "rules/rules.json")

RULES = container.HOT + RESOURCE.path

_LINES = TypeAdapter(tuple[str, ...])


def content(lines: Sequence[str]) -> bytes:
    """Return the record: a line of text for each rule, in canonical order."""
    return json.dumps(lines, indent=0).encode()


def recorded(files: Files) -> tuple[str, ...] | None:
    """Return the rules in a resolver's files, or None if its record is missing or unreadable."""
    try:
        return _LINES.validate_json(files[RULES].content, strict=True)
    except (KeyError, ValueError):
        return None
