"""Writes text as YAML that reads back as the same text, never as a number, a time or a keyword like `null`."""

import json
import re

import yaml

_PLAIN = re.compile(r"\.?[A-Za-z0-9_][A-Za-z0-9_.-]*( [A-Za-z0-9_.-]+)*")


def yaml_text(text: str) -> str:
    """Return the YAML of a text, without quotes where possible."""
    if _PLAIN.fullmatch(text) and _is_text(text):
        return text
    if text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    return '"' + "".join(each if each.isalnum() else f"\\U{ord(each):08x}" for each in text) + '"'


def _is_text(plain: str) -> bool:
    """Whether YAML reads a text without quotes as itself, by its resolver of implicit tags."""
    resolver = yaml.resolver.Resolver()
    tag = resolver.resolve(yaml.ScalarNode, plain, (True, False))  # type: ignore[no-untyped-call]  # the stub has no types
    return bool(tag == "tag:yaml.org,2002:str")
