"""The command that shows what agents were refused."""

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import session, stacks
from clawker_fw.cli.app import app
from clawker_fw.cli.parameters import Format, FormatOption, Options, age
from clawker_fw.cli.stacks import Answer
from clawker_fw.report import log
from clawker_fw.rules.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clawker_fw.agents.names import AgentNames
    from clawker_fw.denials.answer import DenialsAnswer, Selection
    from clawker_fw.denials.reading import Sources
    from clawker_fw.denials.refusal import Counted, Gap
    from clawker_fw.diagnose.explanation import Explainer
    from clawker_fw.engine.port import EngineReader

_NAMES_SECONDS = 2.0
"""How long agents' names are used before they are read again: an address may move to another agent."""


@app.command()
def denials(
    context: typer.Context,
    *,
    since: Annotated[
        float | None,
        typer.Option(
            "--since",
            metavar="DURATION|TIME",
            parser=age,
            help="Show only refusals from the last DURATION, or since TIME: 10m, 2d, 2027-01-31, "
            "2027-01-31T18:00Z.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show each refusal when it happens, until stopped.")
    ] = False,
    agent: Annotated[
        str,
        typer.Option(
            "--agent",
            metavar="NAME",
            help="Only of this agent, by its name or address.",
        ),
    ] = "",
    reason: Annotated[
        list[Reason] | None,
        typer.Option("--reason", metavar="REASON", help="Only for this reason, such as no-rule. Can be repeated."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option("--top", metavar="N", min=1, help="Only the N that happened most often, most often first."),
    ] = None,
    ask: Annotated[
        bool,
        typer.Option("--ask", help="Ask at the terminal about each host that is refused from now on."),
    ] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show what agents were refused, why, and what would allow it.

    Equal refusals are shown once, the latest last. They are read from the logs of Envoy and CoreDNS, with those of
    replaced containers. Nothing changes without `--ask`.

    With `--ask`, each host is a question with the answers 30 minutes (or another time), always, and never. An
    answer edits the settings file and is live within 2 s. Agents never wait for it.

    Example: clawker-fw denials --since 10m
    """
    if (follow or ask) and (since is not None or top is not None):
        raise typer.BadParameter("--follow and --ask can't be combined with --since or --top")
    if ask and (follow or format_ is Format.JSON):
        raise typer.BadParameter("--ask asks at the terminal: without --follow and --format json")
    chosen: Options = context.obj
    if ask:
        _require_answers(chosen)
    from clawker_fw.denials.answer import Selection

    selection = Selection(agent, frozenset(reason or ()), top)
    if ask:
        _ask(chosen, selection)
    elif follow:
        stacks.side_by_side(chosen, lambda one: _follow_one(one, selection, format_))
    else:
        stacks.answer(chosen, lambda one: _answer(one, selection, since), format_)


def _answer(chosen: Options, selection: "Selection", since: float | None) -> Answer:
    """Return the refusals of a stack's agents in the last `since` seconds."""
    from clawker_fw.report import denials as report

    answer = answered(chosen, since, selection)
    return Answer(
        lambda: report.DenialsDocument.of(answer),
        lambda: [report.denials_report(answer, since)],
        lambda: report.denials_line(chosen.project, answer, since),
        differs=bool(answer.denials),
    )


def answered(chosen: Options, since: float | None, selection: "Selection") -> "DenialsAnswer":
    """Return what was refused in the last `since` seconds, or all that is known, with advice."""
    from clawker_fw.denials.reading import Reading, sources

    engine = session.connect_reader(chosen)
    log_sources = sources(engine, chosen.project)
    # These imports and reads run while the engine sends its logs, which takes longer.
    begun = Reading(engine, log_sources, None if since is None else engine.clock() - since)
    from clawker_fw.denials.answer import answer
    from clawker_fw.engine.outputs import stamp

    now = engine.clock()  # the records have the engine's times
    names = _names(engine, chosen, log_sources, now)
    if not log.stack():
        _require_known(selection.agent, names)
    return answer(begun.refusals(), names, selection, _explainer(chosen), stamp(now).decode())


def _ask(chosen: Options, selection: "Selection") -> None:
    from clawker_fw.cli.asking import ask_about
    from clawker_fw.denials.refusal import Gap

    refusals, names = _arriving(chosen, selection)
    # clawker-fw's own attempts need no advice.
    others = (
        refusal
        for refusal in refusals
        if isinstance(refusal[0], Gap) or not names.is_own(refusal[0].refusal.agent)
    )
    ask_about(chosen, others)


def _follow_one(chosen: Options, selection: "Selection", format_: Format) -> None:
    from clawker_fw.denials.advice import Adviser
    from clawker_fw.denials.answer import denial
    from clawker_fw.denials.refusal import Gap
    from clawker_fw.report import denials as report
    from clawker_fw.report import documents, terminal, text

    refusals, names = _arriving(chosen, selection)
    console, write = text.console(), documents.writer(report.Line)
    adviser, stack = Adviser(_explainer(chosen)), log.stack()
    with suppress(KeyboardInterrupt):  # the usual end
        for counted, name in refusals:
            gap = counted if isinstance(counted, Gap) else denial(counted, name, names, adviser)
            if format_ is Format.JSON and stack:
                line = json.loads(write(report.line(gap)))
                terminal.answer(json.dumps({"group": chosen.group, **line}))
            elif format_ is Format.JSON:
                terminal.answer(write(report.line(gap)))
            else:
                console.print(report.item_report(gap, stack))


def _arriving(
    chosen: Options, selection: "Selection"
) -> "tuple[Iterator[tuple[Counted, str] | tuple[Gap, str]], AgentNames]":
    """Return the selected refusals as they happen, each with the agent's name, and the names."""
    from clawker_fw.denials.reading import sources

    engine = session.connect_reader(chosen)
    log_sources = sources(engine, chosen.project)
    names = _names(engine, chosen, log_sources, engine.clock())
    return _arrivals(engine, chosen, log_sources, selection, names), names


def _names(engine: "EngineReader", chosen: Options, log_sources: "Sources", now: float) -> "AgentNames":
    from clawker_fw.agents.names import AgentNames

    names = AgentNames(engine.facts().endpoint, chosen.project, log_sources.own)
    names.look(log_sources.agents, now)
    return names


def _require_known(agent: str, names: "AgentNames") -> None:
    """Require that an agent of this name was seen. Addresses are accepted."""
    from ipaddress import AddressValueError, IPv4Address

    from clawker_fw.errors import RefusedError

    if not agent or agent in names.known:
        return
    with suppress(AddressValueError):
        IPv4Address(agent)
        return
    known = ", ".join(sorted(names.known))
    raise RefusedError(
        "agent-unknown",
        f"No agent called {agent} is known.",
        context=[f"known: {known}"],
        hint="Known are the agents on the agents' network, and those that this machine has seen there.",
    )


def _explainer(chosen: Options) -> "Explainer | None":
    """Return the explainer of the settings. Without readable settings, refusals are shown without advice."""
    from clawker_fw.errors import SettingsError

    try:
        loaded = session.load(chosen)
    except SettingsError as error:
        session.warn("settings_unread", message=f"No advice without settings: {error.message}", code=error.code)
        return None
    return session.explainer(chosen, loaded, time.time())


def _require_answers(chosen: Options) -> None:
    import sys

    from clawker_fw.cli import asking
    from clawker_fw.errors import UsageError

    if not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        raise UsageError(
            "no-terminal",
            "`--ask` needs a terminal.",
            hint="Run it in one, with neither input nor output redirected. A program reads "
            "`denials --follow --format json`, and answers with `rules allow` or `rules deny`.",
        )
    if len(stacks.stacks_of(chosen)) > 1:
        raise UsageError(
            "group-needed",
            "`--ask` asks about the agents of one stack, and the settings have groups.",
            hint="Name the group with `--group`.",
        )
    asking.require_editable(chosen)


def _arrivals(
    engine: "EngineReader", chosen: Options, log_sources: "Sources", selection: "Selection", names: "AgentNames"
) -> "Iterator[tuple[Counted, str] | tuple[Gap, str]]":
    """Yield each selected refusal when it happens, with the agent's name, and each gap."""
    from clawker_fw.denials import reading
    from clawker_fw.denials.following import Following
    from clawker_fw.denials.refusal import Gap
    from clawker_fw.errors import RefusedError

    known, looked = {*log_sources.agents, *log_sources.own}, time.monotonic()
    for counted in Following(engine, chosen.project, log_sources):
        if isinstance(counted, Gap):
            yield counted, ""
            continue
        address = counted.refusal.agent
        if address not in known or time.monotonic() - looked >= _NAMES_SECONDS:
            with suppress(RefusedError):  # the stack has gone since
                names.look(reading.sources(engine, chosen.project).agents, engine.clock())
            known.add(address)
            looked = time.monotonic()
        name = names.of(address, counted.last)
        if not selection.leaves_out(address, names) and selection.takes(counted, name):
            yield counted, name
