"""Rendering of templates. Decisions are made in Python. An undefined name in a template is an error."""

import functools
import json
from collections.abc import Mapping

import jinja2

from clawker_fw.stack.release import Release


def render(release: Release, name: str, view: Mapping[str, object]) -> bytes:
    """Render a template over a prepared view."""
    return _compiled(source(release, name)).render(view).encode()


def source(release: Release, name: str) -> str:
    """Return a template's text."""
    return (release.templates / name).read_text(encoding="utf-8")


@functools.lru_cache(maxsize=8)
def _compiled(text: str) -> jinja2.Template:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - not HTML; a filter escapes each value for the file's format
    )
    environment.filters["json"] = _json
    return environment.from_string(text)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
