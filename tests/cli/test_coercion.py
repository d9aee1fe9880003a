"""Options and arguments are read as Typer reads them, whichever way is taken."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer._click import Context
from typer._coercion import build_runtime_param
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from clawker_fw.cli import commands
from clawker_fw.cli.coercion import Coercion

Parameter = TyperArgument | TyperOption


def parameters(command: object, name: str) -> Iterator[tuple[str, Parameter]]:
    """Yield all options and arguments of a command and of the commands in it."""
    if isinstance(command, TyperGroup):
        for each, inner in command.commands.items():
            yield from parameters(inner, f"{name} {each}")
    if isinstance(command, TyperCommand | TyperGroup):
        for parameter in command.params:
            if isinstance(parameter, Parameter):
                yield f"{name} {parameter.opts[0]}", parameter


PROGRAM = typer.main.get_command(commands.program())
ALL = dict(parameters(PROGRAM, ""))


def read(way: object, parameter: Parameter, value: object) -> object:
    """Return what a way of reading makes of a value: its type and the value, or the error."""
    coerce = way.coerce  # type: ignore[attr-defined]  # either of two ways
    try:
        found = coerce(value, parameter, Context(PROGRAM))
    except (typer.BadParameter, typer.Exit) as error:
        return type(error), str(error)
    return type(found), found


@pytest.mark.parametrize("name", ALL)
def test_each_value_is_read_as_typer_does(name: str, tmp_path: Path) -> None:
    """What is given, not given, the default, and what is wrong: the value or the error is the same."""
    parameter = ALL[name]
    described = parameter.type_descriptor
    ours = Coercion(described.parameter_info, described.annotation)
    typers = build_runtime_param(described)
    choices = [str(each.value) for each in described.choices or ()]
    values = [None, parameter.default, *choices, "nope", "", "5s", "25h", "1", "-", "true", str(tmp_path)]
    several = parameter.multiple or parameter.nargs == -1
    for value in values:
        given = (value,) if several and value is not None else value
        assert read(ours, parameter, given) == read(typers, parameter, given), given
