"""Errors of the command line, and advice about misplaced options."""

import difflib
import itertools
import os
import re
from collections.abc import Mapping, Sequence

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from clawker_fw.errors import UsageError

_WORDS_OF_A_COMMAND = 2
_FORMAT = "--format"
_ALIKE = 0.7
"""The similarity at which a word counts as misspelt (`difflib`)."""


def in_full(command: object, words: list[str]) -> list[str]:
    """Return a command's words with `--json` as `--format=json`, if it has formats."""
    return _written_out(words) if _FORMAT in _options(command) else words


def _written_out(words: Sequence[str]) -> list[str]:
    end = words.index("--") if "--" in words else len(words)
    return [*(f"{_FORMAT}=json" if each == "--json" else each for each in words[:end]), *words[end:]]


def wants_json(program: TyperGroup, arguments: Sequence[str]) -> bool:
    """Return whether a command line, which may be invalid, asks for JSON."""
    command: object = program
    for word in named(program, arguments):
        command = command.commands.get(word) if isinstance(command, TyperGroup) else command
    if isinstance(command, TyperCommand) and _FORMAT not in _options(command):
        return False
    said = last_value(_written_out(arguments), _FORMAT) or os.environ.get("CLAWKER_FW_FORMAT", "")
    return said == "json"


def last_value(arguments: Sequence[str], option: str) -> str:
    """Return an option's last value in an unparsed command line, or ""."""
    said = ""
    for word, value in itertools.pairwise([*arguments, ""]):
        name, equals, rest = word.partition("=")
        if name == option:
            said = rest if equals else value
    return said


def mistake(program: TyperGroup, error: typer.TyperException) -> UsageError:
    """Translate an error of the parser into a UsageError."""
    context: typer.Context | None = getattr(error, "ctx", None)
    path = context.command_path if context else str(program.name)
    usage = [context.get_usage()] if context else []
    help_ = f"`{path} --help` lists commands and options."
    option = getattr(error, "option_name", None)
    command = context and context.command
    if option and isinstance(command, TyperGroup) and option in _anywhere(command):
        hint = f"`{option}` goes after the command. {help_}"
        return UsageError("usage", f"Option {option} is in the wrong place.", context=usage, hint=hint)
    message = error.format_message().replace("Value error, ", "")  # pydantic's prefix
    sentence = re.sub(r"\s*\n\s*", " ", message[:1].upper() + message[1:]).rstrip(".")  # choices are on lines
    end = "" if sentence.endswith("?") else "."
    return UsageError("usage", f"{sentence}{end}", context=usage, hint=help_)


def reordered(program: TyperGroup, arguments: Sequence[str]) -> list[str]:
    """Return a command line with the program's options first, including those after the command.

    An option that the command has too belongs to the command. Words for docker stay in place. An option without
    its value goes last, so that the parser reports it.
    """
    command: object = program
    first: list[str] = []
    rest: list[str] = []
    left = list(arguments)
    while left and left[0] != "--" and not _is_for_docker(command):
        word = left.pop(0)
        name, equals, _ = word.partition("=")
        own = {} if command is program else _options(command)
        option = own.get(name) or _options(program).get(name)
        moved = option and name not in own and not option.is_eager
        words = first if moved else rest
        words.append(word)
        if option and not (option.is_flag or equals):
            if moved and not left:
                return first
            words += left[:1]
            del left[:1]
        if isinstance(command, TyperGroup) and not word.startswith("-"):
            command = command.commands.get(word, command)
    return [*first, *rest, *left]


def _is_for_docker(command: object) -> bool:
    return isinstance(command, TyperCommand) and not command.context_settings.get("allow_interspersed_args", True)


def answers_docker(program: TyperGroup, arguments: Sequence[str], *, invalid: bool = False) -> bool:
    """Return whether docker gets a command line's answer, so that a failure must not let it start a container.

    In an `invalid` line, words may be missing or misspelled, such as an unset variable's value. So one word that
    resembles `agent`, `flags` or `compose` is enough.
    """
    command = named(program, arguments)
    if command == ("agent", "run"):
        return False
    words = [part for word in arguments for part in re.split(r"[\s=_-]+", word.lower()) if part]
    alike = (difflib.get_close_matches(part, ("agent", "flags", "compose"), 1, _ALIKE) for part in words)
    return command[:1] == ("agent",) or (invalid and any(alike))


def named(program: TyperGroup, arguments: Sequence[str]) -> tuple[str, ...]:
    """Return a group and its command: the first two words that are neither an option nor an option's value.

    In an invalid line, a word after an unknown option counts as its value, unless it is a command.
    """
    known, left = _options(program), list(arguments)
    found: list[str] = []
    while left and len(found) < _WORDS_OF_A_COMMAND:
        word = left.pop(0)
        if not word.startswith("-"):
            found.append(word)
        elif (not known[word].is_flag) if word in known else left[:1] and left[0] not in program.commands:
            del left[:1]
    return tuple(found)


def _options(command: object) -> Mapping[str, TyperOption]:
    found = command.params if isinstance(command, TyperCommand | TyperGroup) else []
    return {
        name: each
        for each in found
        if isinstance(each, TyperOption)
        for name in (*each.opts, *each.secondary_opts)
    }


def _anywhere(command: TyperGroup) -> dict[str, TyperOption]:
    found: dict[str, TyperOption] = {}
    for each in command.commands.values():
        found |= _anywhere(each) if isinstance(each, TyperGroup) else _options(each)
    return found | dict(_options(command))
