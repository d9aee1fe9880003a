"""Rendering of templates. Decisions are made in Python. An undefined name in a template is an error.

What has been rendered is kept in the release's cache, by the template and its view. Otherwise each command would
import Jinja and compile the templates again, which takes longer than all that it does with the result.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from clawker_fw.stack.release import Release

if TYPE_CHECKING:
    import jinja2

_KEPT = 32
"""How many rendered files are kept. Each stack and slot has its own two."""


def render(release: Release, name: str, view: Mapping[str, object]) -> bytes:
    """Render a template over a prepared view."""
    text = source(release, name)
    key = _digest(_json([text, view]))
    digest, _, rendered = (release.digests.recall(f"rendered {key}") or "").partition("\n")
    if digest != _digest(rendered):  # nothing is kept, or it is damaged
        rendered = _compiled(text).render(view)
        release.digests.remember(f"rendered {key}", f"{_digest(rendered)}\n{rendered}", most=_KEPT)
    return rendered.encode()


def source(release: Release, name: str) -> str:
    """Return a template's text."""
    return (release.templates / name).read_text(encoding="utf-8")


@functools.lru_cache(maxsize=8)
def _compiled(text: str) -> "jinja2.Template":
    import jinja2  # noqa: PLC0415 - what has been rendered before needs none

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - not HTML; a filter escapes each value for the file's format
    )
    environment.filters["json"] = _json
    return environment.from_string(text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
