"""The command line before it is parsed, when it may be invalid, and errors of the parser."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from clawker_fw.errors import UsageError

_FORMAT = "--format"
_ALIKE = 0.7
"""The similarity at which a word counts as misspelt (`difflib`)."""


@dataclass
class UnparsedLine:
    """A command line that may be invalid: the program's options, and the rest with `--json` as `--format=json`.

    `values` has the last value of each option, also of unknown ones.
    """

    words: Sequence[str]
    command: object
    path: tuple[str, ...] = ()
    values: dict[str, str] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)

    @property
    def wants_json(self) -> bool:
        """Whether it asks for JSON."""
        if isinstance(self.command, TyperCommand) and _FORMAT not in _options(self.command):
            return False
        return self.value(_FORMAT, "CLAWKER_FW_FORMAT") == "json" or "--json" in self.rest

    def value(self, option: str, variable: str) -> str:
        """Return the value of an option, or else of an environment variable, or ""."""
        return self.values.get(option) or os.environ.get(variable, "")

    def answers_docker(self, *, invalid: bool = False) -> bool:
        """Return whether docker gets the answer, so that a failure must not let it start a container.

        In an `invalid` line, words may be missing or misspelled, such as an unset variable's value. So one word
        that resembles `agent`, `flags` or `compose` is enough.
        """
        if self.path == ("agent", "run"):
            return False
        parts = re.findall(r"[^\s=_-]+", " ".join(self.words).lower())
        alike = (difflib.get_close_matches(part, ("agent", "flags", "compose"), 1, _ALIKE) for part in parts)
        return self.path[:1] == ("agent",) or (invalid and any(alike))


def read(program: TyperGroup, words: Sequence[str]) -> UnparsedLine:
    """Read a command line. The program's options may follow the command.

    An option that the command has too belongs to the command. Words for docker stay in place. An option without
    its value ends the line, so that the parser reports it.
    """
    line = UnparsedLine(words, program)
    left = list(words)
    while left and not _is_verbatim(line.command, left[0]):
        word = left.pop(0)
        own = {} if line.command is program else _options(line.command)
        if word == "--json" and _FORMAT in own:
            word = f"{_FORMAT}=json"
        name, equals, value = word.partition("=")
        line.values[name] = value if equals else next(iter(left), "")
        option = own.get(name) or _options(program).get(name)
        moved = option and name not in own and not option.is_eager
        part = line.options if moved else line.rest
        part.append(word)
        if option and not (option.is_flag or equals):
            if moved and not left:
                line.rest.clear()
            part += left[:1]
            del left[:1]
        elif isinstance(line.command, TyperGroup) and word in line.command.commands:
            line.command = line.command.commands[word]
            line.path += (word,)
    line.rest += left
    return line


def _is_verbatim(command: object, word: str) -> bool:
    """Return whether a command's words from this one on are no options, or docker's."""
    return isinstance(command, TyperCommand) and (
        word == "--" or not command.context_settings.get("allow_interspersed_args", True)
    )


def mistake(program: TyperGroup, error: typer.TyperException) -> UsageError:
    """Translate an error of the parser into a UsageError."""
    context: typer.Context | None = getattr(error, "ctx", None)
    path = context.command_path if context else str(program.name)
    usage = [context.get_usage()] if context else []
    help_ = f"`{path} --help` lists commands and options."
    option = getattr(error, "option_name", None)
    if context and option in _names_anywhere(context.command):
        hint = f"`{option}` goes after the command. {help_}"
        return UsageError("usage", f"Option {option} is in the wrong place.", context=usage, hint=hint)
    message = error.format_message().replace("Value error, ", "")  # pydantic's prefix
    sentence = re.sub(r"\s*\n\s*", " ", message[:1].upper() + message[1:]).rstrip(".")  # choices are on lines
    end = "" if sentence.endswith("?") else "."
    return UsageError("usage", f"{sentence}{end}", context=usage, hint=help_)


def _options(command: object) -> Mapping[str, TyperOption]:
    parameters = command.params if isinstance(command, TyperCommand | TyperGroup) else []
    options = [parameter for parameter in parameters if isinstance(parameter, TyperOption)]
    return {name: option for option in options for name in (*option.opts, *option.secondary_opts)}


def _names_anywhere(command: object) -> set[str]:
    commands = command.commands.values() if isinstance(command, TyperGroup) else ()
    return {*_options(command)}.union(*map(_names_anywhere, commands))
