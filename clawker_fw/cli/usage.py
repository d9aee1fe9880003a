"""Errors of the command line, each with the command line that was probably meant."""

import re
import shlex
from collections.abc import Mapping, Sequence

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from clawker_fw.errors import UsageError

_WORDS_OF_A_COMMAND = 2


def mistake(program: TyperGroup, arguments: Sequence[str], error: typer.TyperException) -> UsageError:
    """Translate an error of the parser into a UsageError."""
    context: typer.Context | None = getattr(error, "ctx", None)
    path = context.command_path if context else str(program.name)
    usage = [context.get_usage()] if context else []
    option = getattr(error, "option_name", None)
    meant = reordered(program, arguments) if option else None
    if option and meant:
        where = "before" if context and context.parent else "after"
        hint = f"`{option}` goes {where} the command: {program.name} {shlex.join(meant)}"
        return UsageError("usage", f"Option {option} is in the wrong place.", context=usage, hint=hint)
    message = error.format_message().replace("Value error, ", "")  # pydantic's prefix
    sentence = re.sub(r"\s*\n\s*", " ", message[:1].upper() + message[1:]).rstrip(".")  # choices are on lines
    end = "" if sentence.endswith("?") else "."
    return UsageError(
        "usage", f"{sentence}{end}", context=usage, hint=f"`{path} --help` lists commands and options."
    )


def reordered(program: TyperGroup, arguments: Sequence[str]) -> list[str] | None:
    """Return a command line with every option moved to its place, and then the command's arguments.

    Return None if an option has no place, or if the command takes fewer or more arguments.
    """
    path: list[str] = []
    command: object = program
    left, options = list(arguments), []
    words: list[str] = []
    while left:
        given = left.pop(0)
        name, equals, _ = given.partition("=")
        if given == "--":  # what follows are no options
            words += left
            break
        if given == "-" or not given.startswith("-"):  # the first one is standard input
            if not isinstance(command, TyperGroup):
                words.append(given)
            elif given in command.commands:
                path.append(given)
                command = command.commands[given]
            else:
                return None
            continue
        known = _anywhere(program).get(name)
        if known is None:
            return None
        takes_next = not known.is_flag and not equals and left
        options.append((name, [given, left.pop(0)] if takes_next else [given]))
    if not isinstance(command, TyperCommand) or not _takes(command, len(words)):
        return None
    before, after = _options(program), _options(command)
    if any(name not in before and name not in after for name, _ in options):
        return None
    return [
        *(each for name, option in options if name in before for each in option),
        *path,
        *(each for name, option in options if name not in before for each in option),
        *(("--",) if any(word.startswith("-") and word != "-" for word in words) else ()),
        *words,
    ]


def _takes(command: TyperCommand, number: int) -> bool:
    """Whether a command takes that many arguments."""
    found = [each for each in command.params if isinstance(each, TyperArgument)]
    least = sum(each.required for each in found)
    return number >= least and (number <= len(found) or any(each.nargs < 0 for each in found))


def named(program: TyperGroup, arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the first two words that are neither an option nor an option's value: a command and its group.

    The line may be wrong. After an unknown option, a word that is no command is taken for its value.
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
    """Return a command's own options, by every name that they have."""
    found = command.params if isinstance(command, TyperCommand | TyperGroup) else []
    return {
        name: each
        for each in found
        if isinstance(each, TyperOption)
        for name in (*each.opts, *each.secondary_opts)
    }


def _anywhere(command: TyperGroup) -> dict[str, TyperOption]:
    """Return the options of a group and of all its commands."""
    found: dict[str, TyperOption] = {}
    for each in command.commands.values():
        found |= _anywhere(each) if isinstance(each, TyperGroup) else _options(each)
    return found | dict(_options(command))
