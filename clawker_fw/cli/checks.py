"""The commands that try a stack: `doctor` finds out what is wrong, and `conformance` attacks it."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from clawker_fw.cli import session, stacks
from clawker_fw.cli.app import app
from clawker_fw.cli.parameters import Format, FormatOption, Options
from clawker_fw.cli.session import reading, writing
from clawker_fw.cli.stacks import Answer
from clawker_fw.errors import ExitCode, FirewallError

if TYPE_CHECKING:
    from clawker_fw.diagnose.diagnosis import Check


@app.command()
def doctor(context: typer.Context, *, format_: FormatOption = Format.TEXT) -> None:
    """Check what the firewall depends on, and say what to do. Changes nothing.

    Looks at the settings and who can write them, the engine and its kernel, the clocks, the stack, the agents,
    the name servers that Envoy uses, and an agent's way from inside: one allowed name of your rules is used, and
    one that no rule allows. If the stack is not up, a container that is removed at once checks the engine's
    kernel. With an upstream proxy, tries to reach some of your rules' hosts through it. With telemetry, looks at
    what has arrived. Exit 0 when nothing has failed, else 1.

    Example: clawker-fw doctor
    """
    stacks.answer(context.obj, _diagnosed, format_)


def _diagnosed(chosen: Options) -> Answer:
    from clawker_fw.diagnose.diagnosis import CheckHealth

    checks = list(_checks(chosen))
    from clawker_fw.report import checks as report

    healthy = all(check.health is not CheckHealth.FAILED for check in checks)
    return Answer(
        lambda: report.DoctorAnswer(healthy=healthy, checks=checks),
        lambda: [report.doctor_report(checks)],
        lambda: f"{'healthy' if healthy else 'unhealthy'}  {chosen.project}",
        ExitCode.CURRENT if healthy else ExitCode.DRIFT,
        differs=any(check.health is CheckHealth.WARNING for check in checks),
    )


def _checks(chosen: Options) -> "Iterator[Check]":
    from clawker_fw.diagnose import diagnosis, upstream
    from clawker_fw.diagnose.diagnosis import Check, CheckHealth
    from clawker_fw.private_files import state_folder
    from clawker_fw.report.spans import counted

    usable, source = True, None
    try:
        loaded = session.load(chosen)
    except FirewallError as error:
        usable = False
        yield diagnosis.failed("settings", error)
    else:
        source, rules = loaded.source, counted(len(loaded.rules.rules), "rule")
        yield Check("settings", CheckHealth.OK, f"{source or 'The environment'} has {rules}.")
        yield diagnosis.permissions(loaded.files)
    try:
        engine = session.connect_engine(chosen)
    except FirewallError as error:
        yield diagnosis.failed("engine", error)
        return
    yield diagnosis.engine(engine)
    yield from diagnosis.container(engine.facts(), source, state_folder().parent)
    yield from diagnosis.guarded("clocks", lambda: diagnosis.clocks(engine))
    if not usable:
        yield Check("stack", CheckHealth.SKIPPED, "Without settings there is nothing to compare with.")
        return
    try:
        _, comparison = reading(chosen)
        yield from diagnosis.stack(comparison)
    except FirewallError as error:
        yield diagnosis.failed("stack", error)
        return
    yield from diagnosis.guarded("kernel", lambda: diagnosis.kernel(engine, comparison))
    yield diagnosis.tracking(engine, comparison)
    yield diagnosis.connection_table(engine, comparison)
    yield diagnosis.agents(comparison)
    yield from diagnosis.guarded("upstream-dns", lambda: diagnosis.upstream(engine, comparison))
    yield from diagnosis.guarded("upstream-proxy", lambda: upstream.checks(engine, comparison, os.environ))
    yield from diagnosis.guarded("way-out", lambda: diagnosis.ways(engine, comparison))
    yield from diagnosis.arrivals(comparison)


@app.command()
def conformance(context: typer.Context, *, format_: FormatOption = Format.TEXT) -> None:
    """Attack your own firewall, and show what held.

    Each line is an attack, which must be stopped, or a control: an allowed request, which must get through. A
    test container looks up names, connects to addresses and sends requests that no rule allows. It is removed
    after some seconds. Other agents, rules, Envoy and CoreDNS stay as they are. Nothing is sent to third parties.
    Exit 0 if everything held, else 1.

    Example: clawker-fw conformance --json | jq '.attempts[] | select(.held | not)'
    """
    stacks.answer(context.obj, _attacked, format_)


def _attacked(chosen: Options) -> Answer:
    from clawker_fw.agents.attachment import require_serving
    from clawker_fw.diagnose.conformance.run import perform
    from clawker_fw.report import checks as report

    engine, _, comparison = writing(chosen)
    require_serving(comparison.desired.project, comparison.observed, comparison.diff)
    tried = perform(engine, comparison)
    held = all(result.held for result in tried)
    answer = report.ConformanceAnswer(project=comparison.desired.project, held=held, attempts=tried)
    return Answer(
        lambda: answer,
        lambda: [report.conformance_report(answer)],
        lambda: f"{'held' if held else 'broken'}  {chosen.project}",
        ExitCode.CURRENT if held else ExitCode.DRIFT,
    )
