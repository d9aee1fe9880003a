"""How the documentation is built, with warnings as errors and without a network: `./dev docs`."""  # noqa: INP001 - Sphinx's file

from importlib.metadata import metadata
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

from clawker_fw.report.documents import schemas

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


def write_schemas(app: Sphinx, _: Exception | None) -> None:
    """Publish the schemas of the JSON answers beside the pages, each by the name of its command."""
    folder = Path(app.outdir, "schemas")
    folder.mkdir(exist_ok=True)
    for command in schemas.ANSWERS:
        (folder / f"{command.replace(' ', '-')}.schema.json").write_text(schemas.text(command), "utf-8")


def setup(app: Sphinx) -> None:
    """Have cells labelled once a page is complete, and schemas written once all are."""
    app.connect("doctree-resolved", label_cells)
    app.connect("build-finished", write_schemas)
