"""Reads the values of options as Typer does, but without pydantic where that makes no difference.

Typer builds a reader with pydantic for each option, whether it is given or not. That takes as long as everything
else before the engine is asked.
"""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer._coercion import RuntimeParam, build_runtime_param
from typer._param_types import coerce_cli_path
from typer.core import TyperArgument, TyperOption

if TYPE_CHECKING:
    from typer._click import Command, Context
    from typer.core import _TyperParameter


class Coercion(RuntimeParam):
    """Reads what has its type, a path, a member of an enum, and what has a parser. Typer reads the rest."""

    def _coerce_value(self, value: Any, param: "_TyperParameter", ctx: "Context") -> Any:  # noqa: ANN401 - typer's own
        kind, info = self.annotation, self.parameter_info
        if info.parser:
            return info.parser(value)
        if isinstance(kind, type):
            if isinstance(value, kind):
                return value
            if kind is Path:
                return coerce_cli_path(Path(value), info, path_type=kind, param=param, ctx=ctx)
            if issubclass(kind, Enum) and value in {each.value for each in kind}:
                return kind(value)
        return build_runtime_param(param.type_descriptor).coerce(value, param, ctx)


class _Option(TyperOption):
    def get_runtime_param(self) -> RuntimeParam:
        return Coercion(self.type_descriptor.parameter_info, self.type_descriptor.annotation)


class _Argument(TyperArgument):
    def get_runtime_param(self) -> RuntimeParam:
        return Coercion(self.type_descriptor.parameter_info, self.type_descriptor.annotation)


def without_pydantic(command: "Command", context: "Context") -> None:
    """Have the options and arguments of a command read by `Coercion`. The context is the command's own."""
    for each in command.get_params(context):  # Typer makes them, and can't be told of which class
        if type(each) is TyperOption:
            each.__class__ = _Option
        elif type(each) is TyperArgument:
            each.__class__ = _Argument
