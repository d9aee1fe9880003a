"""The options that a printed command needs for the same stack. All output passes through here, text and JSON."""

import re
import shlex
from collections.abc import Mapping

NAMES = (
    *("agent", "certs", "config", "conformance", "denials", "doctor", "down", "drift", "explain", "fleet"),
    *("init", "reload", "rules", "run", "schema", "secrets", "service", "status", "watch"),
)
"""All commands and groups. Other texts, such as a certificate's name, may begin with `clawker-fw` as well."""

_COMMAND = re.compile(
    rf"(?P<before>[`(]|^ *)clawker-fw (?=(?:--debug )?(?P<name>{'|'.join(NAMES)})\b)", re.MULTILINE
)
"""A command is in backquotes, or what a shell replaces, or a line of its own."""

ENGINE = ("--host", "--context")
"""The options that choose one engine. `fleet` has none of them before the command."""


_AS_TYPED = frozenset({"busy"})
"""Fields with a command that another process runs: it stays as it was typed."""


class _Invocation:
    """The options before the command of this process, by name."""

    options: Mapping[str, str] = {}


def use(options: Mapping[str, str]) -> None:
    """Have all commands that are printed from now on get these options."""
    _Invocation.options = options


def named(text: str, engine: tuple[str, str] | None = None) -> str:
    """Return a text whose commands have the options of this invocation. Commands that have options stay.

    `engine` is the option that chooses another engine, and its value.
    """

    def insert(match: re.Match[str]) -> str:
        options = _Invocation.options.items()
        if engine or match["name"] == "fleet":
            options = {option: value for option, value in options if option not in ENGINE}.items()
        words = [word for pair in (*options, *([engine] if engine else [])) for word in pair]
        return f"{match['before']}{shlex.join(('clawker-fw', *words))} "

    return _COMMAND.sub(insert, text)


def named_in(value: object) -> object:
    """Return a JSON value in which all commands have the options of this invocation."""
    match value:
        case str():
            return named(value)
        case list():
            return [named_in(item) for item in value]
        case dict():
            return {key: item if key in _AS_TYPED else named_in(item) for key, item in value.items()}
        case _:
            return value
