"""Renders documents in the form that people write by hand, from `templates/` and a few values.

Undefined names are errors. Each value becomes one scalar of the document's format, or is an error, so a quoting
mistake can't become structure.
"""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import jinja2  # needed only for rendering

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INSTALLED = Path(__file__).with_name("templates")
TEMPLATES = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parents[1] / _INSTALLED.name
"""The folder of templates: in the installed package, or beside it in a checkout."""


def render(name: str, **values: object) -> str:
    """Return a template's text with these values, which are text, numbers or booleans.

    Raises:
        jinja2.UndefinedError: when the template names another value.
        ValueError: when the document's format can't hold a value.
    """
    return compiled(name).render(values)


def parsed(name: str, **values: object) -> Any:  # noqa: ANN401 - YAML holds anything
    """Render and parse a YAML template. Raise YAMLError if the text is not YAML."""
    return yaml.load(render(name, **values), Loader=_LOADER)  # noqa: S506 - both of them are safe


@functools.lru_cache(maxsize=8)
def compiled(name: str) -> "jinja2.Template":
    """Return a template, ready to render. The first one takes longest."""
    import jinja2  # noqa: PLC0415 - it takes 20 ms, and `--help` renders nothing

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        finalize=_SCALARS[Path(name).suffixes[0]],
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - not HTML: `finalize` writes each value for the document's format
    )
    return environment.from_string((TEMPLATES / name).read_text("utf-8"))


_PLAIN = re.compile(r"\.?[A-Za-z0-9_][A-Za-z0-9_.-]*( [A-Za-z0-9_.-]+)*")


def yaml_text(text: str) -> str:
    """Return the YAML of a text, without quotes only if YAML reads that as the same text."""
    if _PLAIN.fullmatch(text) and _is_text(text):
        return text
    if text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    return (
        '"' + "".join(character if character.isalnum() else f"\\U{ord(character):08x}" for character in text) + '"'
    )


def _is_text(plain: str) -> bool:
    """Whether YAML reads a text without quotes as itself, by its resolver of implicit tags."""
    resolver = yaml.resolver.Resolver()
    tag = resolver.resolve(yaml.ScalarNode, plain, (True, False))  # type: ignore[no-untyped-call]  # the stub has no types
    return bool(tag == "tag:yaml.org,2002:str")


def _yaml(value: object) -> str:
    if not isinstance(value, str | int | float):
        raise TypeError(f"{value!r} is not a scalar")
    return yaml_text(value) if isinstance(value, str) else json.dumps(value)


def _line(value: object) -> str:
    text = str(value)
    if not text.isprintable():
        raise ValueError(f"{text!r} can't be in a line: it has a control character")
    return text


def _word(value: object) -> str:
    text = str(value)
    if not re.fullmatch(r"[^\s{}\"#]+", text):
        raise ValueError(f"{text!r} can't be a word")
    return text


_SCALARS: dict[str, Callable[[object], str]] = {".yaml": _yaml, ".service": _line, ".txt": _line, ".j2": _word}
"""The functions that write values, by the ending of the document's name."""
