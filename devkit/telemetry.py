"""Every attribute of the records that are sent to a collector, as `docs/reference/records.md` has them."""

from pathlib import Path
from typing import NamedTuple

from clawker_fw.stack.collector import CONNECTION, QUERY, REQUEST

_PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "records.md"
_KINDS = (CONNECTION, REQUEST, QUERY)
"""The columns of the first table after the meaning: other tables have none of them."""


class Attribute(NamedTuple):
    """An attribute of a record: its name, and the kinds of records of the siblings that have it."""

    name: str
    events: tuple[str, ...]


def _attribute(row: str) -> Attribute:
    name, _, *marks = (cell.strip(" `") for cell in row.strip("|").split("|"))
    return Attribute(name, tuple(kind for kind, mark in zip(_KINDS, marks, strict=False) if mark))


ATTRIBUTES = tuple(_attribute(line) for line in _PAGE.read_text("utf-8").splitlines() if line.startswith("| `"))
