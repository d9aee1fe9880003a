"""Turns pages of the reference into manual pages: MyST reads them, and docutils writes what `man` reads."""

import re
from collections.abc import Sequence

from docutils import nodes
from docutils.core import publish_doctree, publish_from_doctree
from docutils.utils import new_document
from myst_parser.parsers.docutils_ import Parser

_COMMENT = '.\\"'
_EXPLAINS, _FORMS = "means", ("value", "type")
"""Columns of tables: what explains a row, and the form of a value."""


def page(name: str, section: int, purpose: str, text: str) -> str:
    """Return a manual page with a text in Markdown. `purpose` is what `apropos` shows."""
    document = new_document(name)
    document += nodes.title("", name)
    document += nodes.subtitle("", purpose)
    number = nodes.field_body("", nodes.paragraph("", str(section)))
    document += nodes.docinfo("", nodes.field("", nodes.field_name("", "manual section"), number))
    plain = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)  # a link is the words that it is on
    document += publish_doctree(plain, parser=Parser(), settings_overrides={"_disable_config": True}).children
    for table in list(document.findall(nodes.table)):
        table.replace_self(_definitions(table))
    settings = {"output_encoding": "unicode", "_disable_config": True}
    written: str = publish_from_doctree(document, writer="manpage", settings_overrides=settings)
    portable = re.sub(r"[^\x00-\x7f]", lambda found: f"\\[u{ord(found[0]):04X}]", written)
    lines = (line.rstrip() for line in portable.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith(_COMMENT))


def _definitions(table: nodes.table) -> nodes.definition_list:
    headings, *rows = ([cell for cell in row if isinstance(cell, nodes.entry)] for row in table.findall(nodes.row))
    names = [heading.astext() for heading in headings]
    return nodes.definition_list("", *(_definition(names, row) for row in rows))


def _definition(names: Sequence[str], row: Sequence[nodes.entry]) -> nodes.definition_list_item:
    """Return a row as its first cell and the form of its value, then what explains it, and the other cells."""
    term, explained, others = nodes.term("", "", *_words(row[0])), nodes.paragraph(), nodes.paragraph()
    for name, cell in zip(names[1:], row[1:], strict=True):
        if name == _EXPLAINS:
            explained += _words(cell)
        elif name in _FORMS and cell.astext():
            term += [nodes.Text(" "), nodes.emphasis("", cell.astext())]
        elif cell.astext():
            others += [nodes.Text(f"{name.capitalize()}: "), *_words(cell), nodes.Text(". ")]
    body = nodes.definition("", *(paragraph for paragraph in (explained, others) if paragraph.children))
    return nodes.definition_list_item("", term, body)


def _words(cell: nodes.entry) -> list[nodes.Node]:
    return [word for paragraph in cell.children for word in paragraph.children]
