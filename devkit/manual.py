"""Writes manual pages: text with `code` in it becomes what `man` reads.

docutils writes them, because it knows what `roff` would take for a request. What is in them: `devkit.reference`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from docutils import nodes
from docutils.core import publish_from_doctree
from docutils.utils import new_document

_COMMENT = '.\\"'


def page(name: str, section: int, purpose: str, parts: Iterable[nodes.Element]) -> str:
    """Return a manual page. `purpose` is what `apropos` shows."""
    document = new_document(name)
    document += nodes.title("", name)
    document += nodes.subtitle("", purpose)
    number = nodes.field_body("", nodes.paragraph("", str(section)))
    document += nodes.docinfo("", nodes.field("", nodes.field_name("", "manual section"), number))
    document += list(parts)
    settings = {"output_encoding": "unicode", "_disable_config": True}
    written: str = publish_from_doctree(document, writer="manpage", settings_overrides=settings)
    portable = re.sub(r"[^\x00-\x7f]", lambda found: f"\\[u{ord(found[0]):04X}]", written)
    lines = (line.rstrip() for line in portable.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith(_COMMENT))


def part(title: str, *content: nodes.Element) -> nodes.section:
    """Return a section of a page, or of a section."""
    return nodes.section("", nodes.title("", title), *content, ids=[nodes.make_id(title)])


def paragraphs(text: str) -> list[nodes.paragraph]:
    """Return a text of several paragraphs, which are apart by an empty line."""
    return [nodes.paragraph("", "", *_words(each)) for each in text.strip().split("\n\n")]


def definitions(rows: Iterable[tuple[str, str, Sequence[str]]]) -> nodes.definition_list:
    """Return a list of terms, each with the form of its value, and the paragraphs that explain it."""
    return nodes.definition_list("", *(_definition(*row) for row in rows))


def _definition(term: str, value: str, explained: Sequence[str]) -> nodes.definition_list_item:
    words: list[nodes.Node] = [nodes.strong("", term)]
    words += [nodes.Text(" "), nodes.emphasis("", value)] if value else []
    body = [nodes.paragraph("", "", *_words(each)) for each in explained if each]
    return nodes.definition_list_item("", nodes.term("", "", *words), nodes.definition("", *body))


def verbatim(text: str) -> nodes.literal_block:
    """Return a block of code."""
    return nodes.literal_block("", text.rstrip())


def _words(text: str) -> Iterator[nodes.Node]:
    """Yield a text in pieces: what is between back quotes is code, and a link is the words that it is on."""
    flat = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", " ".join(text.split()))
    for position, piece in enumerate(flat.split("`")):
        if piece:
            yield nodes.strong("", piece) if position % 2 else nodes.Text(piece)
