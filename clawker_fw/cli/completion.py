"""What a shell completes beside commands, options and their words: siblings, agents, docker contexts, rules.

A shell waits for it while somebody types. So it is quick, says nothing but candidates, and where something is
unreadable or takes too long, it has none.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import wait

import typer

from clawker_fw.background import in_background
from clawker_fw.cli import session
from clawker_fw.cli.parameters import Options

_PATIENCE = 1.0
"""How long to wait, in seconds. What takes longer is left out: an engine may hang."""


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
    """Return the agents that are attached, and those that are remembered because they were refused something."""
    chosen = _chosen(ctx)

    def remembered() -> Iterable[str]:
        from clawker_fw.agents.names import AgentNames
        from clawker_fw.engine.locate import locate

        return AgentNames(locate(chosen.host, chosen.context, os.environ).address, chosen.project).known

    def attached() -> Iterable[str]:
        from clawker_fw.denials.reading import sources
        from clawker_fw.engine.locate import locate

        if locate(chosen.host, chosen.context, os.environ).over_ssh:
            return []  # a login takes too long
        engine = session.connect_reader(chosen)
        return [each.name for each in sources(engine, chosen.project).agents.values()]

    return _found(remembered, attached)


def _chosen(ctx: typer.Context) -> Options:
    """Return the options before the command, as far as they are given. Nothing has checked them yet."""
    given = ctx.find_root().params
    return Options(given.get("config"), given.get("project"), given.get("host"), given.get("context"))


def _found(*ways: Callable[[], Iterable[str]]) -> list[str]:
    """Return what is found in all of these ways at the same time, sorted. A way that fails finds nothing."""
    looking = [in_background(way) for way in ways]
    done = wait(looking, _PATIENCE).done
    found = {each for look in done if look.exception() is None for each in look.result()}
    return sorted(each for each in found if each.isprintable() and " " not in each)
