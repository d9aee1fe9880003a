"""The program with the command that a command line names, and no other.

Typer builds every command that it knows before it reads the line, which takes longer than everything else before
the engine is asked.
"""

import copy
import os
from collections.abc import Sequence
from importlib import import_module

import typer
from typer.main import get_command_name

from clawker_fw.cli.app import COMPLETE_VARIABLE, app, options

MODULES = {
    "agent": "agent",
    "bundle": "bundle",
    "ca": "ca",
    "certs": "certs",
    "config": "config",
    "conformance": "conformance",
    "denials": "denials",
    "doctor": "doctor",
    "explain": "explain",
    "fleet": "fleet fleet_stack",
    "healthy": "healthy",
    "ps": "overview",
    "rules": "rules editing",
    "secrets": "secrets",
    "service": "service",
    "init": "stack",
    "run": "stack",
    "drift": "stack",
    "reload": "stack",
    "down": "stack",
    "status": "status",
    "watch": "watching",
    "image": "image",
}
"""The modules of each command, or group of commands, in the order of the help within its panels."""


def program(arguments: Sequence[str] = ()) -> typer.Typer:
    """Return the program for a command line: with all commands if it names none, or if a shell completes it."""
    word = _first_word(arguments)
    known = word in MODULES and COMPLETE_VARIABLE not in os.environ
    names = [word] if known else list(MODULES)
    for name in names:
        for module in MODULES[name].split():
            import_module(f"clawker_fw.cli.{module}")
    chosen = copy.copy(app)
    commands = {
        each.name or get_command_name(each.callback.__name__): each
        for each in app.registered_commands
        if each.callback
    }
    groups = {each.typer_instance.info.name: each for each in app.registered_groups if each.typer_instance}
    chosen.registered_commands = [commands[name] for name in names if name in commands]
    chosen.registered_groups = [groups[name] for name in names if name in groups]
    return chosen


def _first_word(arguments: Sequence[str]) -> str:
    """Return the first word that is neither an option nor the value of one. The line may be wrong."""
    takes_value = {
        f"--{name.replace('_', '-')}": not isinstance(default, bool)
        for name, default in (options.__kwdefaults__ or {}).items()
    }
    left = list(arguments)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            return word
        name, equals, _ = word.partition("=")
        if name not in takes_value:
            break
        if takes_value[name] and not equals:
            del left[:1]
    return ""
