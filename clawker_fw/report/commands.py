"""Adds the options that choose this stack to printed commands. All output passes through here, text and JSON."""

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

NAMES = (
    *("agent", "certs", "config", "conformance", "denials", "doctor", "down", "drift", "explain", "fleet"),
    *("init", "reload", "rules", "run", "schema", "secrets", "service", "status", "watch"),
)
"""All commands and groups. Other texts, such as a certificate's name, may also begin with `clawker-fw`."""

_COMMAND = re.compile(
    rf"(?P<before>[`(]|^ *)clawker-fw (?=(?:--debug )?(?P<name>{'|'.join(NAMES)})\b)", re.MULTILINE
)
"""A command is in backquotes, in a shell substitution, or on a line of its own."""

ENGINE = ("--host", "--context")
"""The options that choose one engine. `fleet` has none of them before the command."""


_AS_TYPED = frozenset({"busy"})
"""Fields with another process's command, which stays as typed."""


_OPTIONS: ContextVar[Mapping[str, str]] = ContextVar("options", default=MappingProxyType({}))
"""The options before the command, by name. Threads that answer about several stacks each have those of theirs."""


def use(options: Mapping[str, str]) -> None:
    """Give these options to all commands printed from now on in this context."""
    _OPTIONS.set(options)


@contextmanager
def using(options: Mapping[str, str]) -> Iterator[None]:
    """Give these options to all commands printed until the context ends."""
    before = _OPTIONS.set(options)
    try:
        yield
    finally:
        _OPTIONS.reset(before)


def named(text: str, engine: tuple[str, str] | None = None) -> str:
    """Return a text whose commands have this invocation's options, unless they have options already.

    `engine` is the option that chooses another engine, and its value.
    """

    def insert(match: re.Match[str]) -> str:
        options = _OPTIONS.get().items()
        if engine or match["name"] == "fleet":
            options = {option: value for option, value in options if option not in ENGINE}.items()
        words = [word for pair in (*options, *([engine] if engine else [])) for word in pair]
        return f"{match['before']}{shlex.join(('clawker-fw', *words))} "

    return _COMMAND.sub(insert, text)


def named_in(value: object) -> object:
    """Return a JSON value whose commands have this invocation's options."""
    match value:
        case str():
            return named(value)
        case list():
            return [named_in(item) for item in value]
        case dict():
            return {key: item if key in _AS_TYPED else named_in(item) for key, item in value.items()}
        case _:
            return value
