"""How the documentation is built, with warnings as errors and without a network: `./dev docs`."""  # noqa: INP001 - Sphinx's file

from importlib.metadata import metadata

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
