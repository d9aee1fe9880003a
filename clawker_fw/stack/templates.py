"""Rendering: templates print, Python decides. An undefined name in a template is an error, never empty text."""

import json
from collections.abc import Mapping

import jinja2

from clawker_fw.stack.release import Release


def render(release: Release, name: str, view: Mapping[str, object]) -> bytes:
    """Render a template over a prepared view."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no HTML here; every value is escaped by a filter for its own format
    )
    environment.filters["json"] = _json
    return environment.from_string(source(release, name)).render(view).encode()


def source(release: Release, name: str) -> str:
    """Return a template's text."""
    return (release.templates / name).read_text(encoding="utf-8")


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
