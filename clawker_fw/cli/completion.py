"""What a shell completes beside commands, options and their words: agents, docker contexts, presets, rules.

A shell waits for it while somebody types. So it asks no engine, says nothing but candidates, and where something
is unreadable, it has none.
"""

import os
from collections.abc import Callable, Iterable

import typer

from clawker_fw.cli import session
from clawker_fw.cli.parameters import Options


def contexts() -> list[str]:
    """Return the docker CLI's contexts."""
    from clawker_fw.engine.client_config import contexts as there

    return _found(lambda: there(os.environ))


def presets() -> list[str]:
    """Return the presets of this release."""
    from clawker_fw.settings.preset import names

    return _found(names)


def rules(ctx: typer.Context) -> list[str]:
    """Return the destinations of the rules in the settings."""
    chosen = _chosen(ctx)
    return _found(lambda: [str(each.destination) for each in session.load(chosen).rules.rules])


def hosts(ctx: typer.Context) -> list[str]:
    """Return the names of hosts that rules are about: without those of whole subtrees."""
    return [each for each in rules(ctx) if not each.startswith(".")]


def agents(ctx: typer.Context) -> list[str]:
    """Return the agents that this machine remembers, because a command has seen them."""
    chosen = _chosen(ctx)

    def remembered() -> Iterable[str]:
        from clawker_fw.agents.names import AgentNames
        from clawker_fw.engine.locate import locate

        return AgentNames(locate(chosen.host, chosen.context, os.environ).address, chosen.project).known

    return _found(remembered)


def _chosen(ctx: typer.Context) -> Options:
    """Return the options before the command, as far as they are given. Nothing has checked them yet."""
    given = ctx.find_root().params
    return Options(given.get("config"), given.get("project"), given.get("host"), given.get("context"))


def _found(find: Callable[[], Iterable[str]]) -> list[str]:
    """Return what is found, sorted. What fails finds nothing."""
    try:
        found = {*find()}
    except Exception:  # noqa: BLE001 - an error would be in the middle of a line
        return []
    return sorted(each for each in found if each.isprintable() and " " not in each)
