"""How the documentation is built, with warnings as errors and without a network: `./dev docs`."""  # noqa: INP001 - Sphinx's file

from importlib.metadata import metadata

from docutils import nodes
from sphinx.application import Sphinx

_PACKAGE = metadata("clawker-fw")

project = _PACKAGE["Name"]
release = version = _PACKAGE["Version"]

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"{project} {release}"
html_show_copyright = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]


def label_cells(_: Sphinx, page: nodes.document, __: str) -> None:
    """Begin each cell of a table with the heading of its column, for narrow screens (pages.css shows it there)."""
    for table in page.findall(nodes.tgroup):
        headings = [[entry.astext() for entry in row] for head in table.findall(nodes.thead) for row in head]
        for row in (row for body in table.findall(nodes.tbody) for row in body):
            for entry, *names in zip(row, *headings, strict=True):
                if any(names):
                    entry.insert(0, nodes.inline(text=" ".join(names), classes=["heading"]))


def setup(app: Sphinx) -> None:
    """Have cells labelled once a page is complete."""
    app.connect("doctree-resolved", label_cells)
