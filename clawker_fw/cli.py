"""The command line: options in, one of five pipelines, an answer and an exit code out.

Everything heavy is imported by the command that needs it, so that `--help` and completion are quick. Errors are
caught here, once.
"""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from clawker_fw.errors import ExitCode, FirewallError
from clawker_fw.watch.heal import Heal

if TYPE_CHECKING:
    from concurrent.futures import Future

    from clawker_fw.engine.port import EngineWriter
    from clawker_fw.model import EngineFacts
    from clawker_fw.pipeline import Look, Turn
    from clawker_fw.reconcile.apply import Progress
    from clawker_fw.reconcile.desired import Blueprint
    from clawker_fw.reconcile.observe import Observation
    from clawker_fw.reconcile.steps import Step, Wish
    from clawker_fw.service import Unit
    from clawker_fw.stack.release import Release
    from clawker_fw.watch.decision import Decision
    from clawker_fw.watch.follow import Inbox
    from clawker_fw.watch.page import Pages

_Result = TypeVar("_Result")


class _Commands(TyperGroup):
    """The commands; every error ends here, once, printed as the options ask."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: ANN401 - typer's own context
        """Run a command."""
        try:
            return super().invoke(ctx)
        except FirewallError as error:
            failure = error
        except KeyboardInterrupt:
            typer.echo("Interrupted. What was begun is finished by the next run.", err=True)
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 - the last line of defence: a bug is reported as one
            failure = _bug(error)
        _print_failure(failure, ctx.obj or Options())
        raise typer.Exit(failure.exit_code)


def _bug(error: Exception) -> FirewallError:
    failure = FirewallError(
        "bug",
        f"This is a bug in clawker-fw: {type(error).__name__}: {error}.",
        hint="Run again with --debug, and report what it shows.",
    )
    failure.__cause__ = error
    return failure


def _print_failure(error: FirewallError, chosen: "Options") -> None:
    import logging

    logger = logging.getLogger("clawker_fw")
    trace = error if chosen.debug else None
    if chosen.log_format is Format.JSON:
        fields = {"code": error.code, "message": error.message, "context": error.context, "hint": error.hint}
        logger.error("error", extra={"fields": fields}, exc_info=trace)
        return
    from clawker_fw.report import text

    if trace:
        logger.error("error", exc_info=trace)
    text.print_error(error, text.console(stderr=True))


app = typer.Typer(
    cls=_Commands,
    name="clawker-fw",
    help="An egress firewall for containers on a Docker host, kept provably current.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 current or done, 1 drift or something to do, 2 usage, 3 invalid settings or rules, "
    "4 engine unreachable or too old, 5 applied but not proven live, 6 refused, 70 bug, 130 interrupted.",
)


class Format(StrEnum):
    """How an answer, or a log record, is written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True)
class Options:
    """The options before the command."""

    config: Path | None = None
    project: str = "clawker"
    host: str | None = None
    context: str | None = None
    log_format: Format = Format.TEXT
    debug: bool = False


FormatOption = Annotated[
    Format,
    typer.Option("--format", envvar="CLAWKER_FW_FORMAT", help="How the answer on standard output is written."),
]


def _duration(text: str) -> float:
    from clawker_fw.settings import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


DrainOption = Annotated[
    float | None,
    typer.Option(
        "--drain-timeout",
        metavar="DURATION",
        parser=_duration,
        help="How long open connections of a replaced Envoy may go on, instead of the setting. E.g. 5s, 2m.",
    ),
]
LockOption = Annotated[
    float,
    typer.Option(
        "--lock-wait",
        metavar="DURATION",
        parser=_duration,
        help="How long to wait for another run that is at work on this stack. E.g. 30s.",
    ),
]


_SHORTEST_INTERVAL, _LONGEST_INTERVAL = 1.0, 86400.0


def _interval(text: str) -> float:
    seconds = _duration(text)
    if not _SHORTEST_INTERVAL <= seconds <= _LONGEST_INTERVAL:
        raise typer.BadParameter("an interval is 1s to 24h")
    return seconds


def _checked_address(text: str | None) -> str | None:
    if text is None:
        return None
    from clawker_fw.watch.page import parse_address

    try:
        return str(parse_address(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


HealOption = Annotated[
    Heal,
    typer.Option(
        "--heal",
        help="What is closed: what somebody changed, everything that differs, or nothing. "
        "With `tamper`, an upgrade waits for `run`.",
    ),
]
IntervalOption = Annotated[
    float,
    typer.Option(
        "--interval",
        metavar="DURATION",
        parser=_interval,
        help="How often to look when nothing happens, give or take a tenth.",
    ),
]
ListenOption = Annotated[
    str | None,
    typer.Option(
        "--listen",
        metavar="ADDRESS",
        callback=_checked_address,
        help="Serve /metrics and /health there: 127.0.0.1:PORT, [::1]:PORT or unix:PATH.",
    ),
]


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - click's callback signature
    if wanted:
        from importlib.metadata import version

        typer.echo(f"clawker-fw {version('clawker-fw')}")
        raise typer.Exit


def _checked_project(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", name):
        raise typer.BadParameter("a project's name is 1 to 40 of a-z, 0-9, - and _, and begins with a-z or 0-9")
    return name


@app.callback()
def options(
    context_: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="CLAWKER_FW_CONFIG",
            help="The settings file. Without it: ./clawker-fw.yaml, then the one in the user's config folder.",
        ),
    ] = None,
    project: Annotated[
        str,
        typer.Option(
            envvar="CLAWKER_FW_PROJECT", callback=_checked_project, help="Which stack: part of every name."
        ),
    ] = "clawker",
    host: Annotated[
        str | None,
        typer.Option(envvar="CLAWKER_FW_HOST", help="The Docker engine, e.g. unix:///var/run/docker.sock."),
    ] = None,
    context: Annotated[
        str | None, typer.Option(envvar="CLAWKER_FW_CONTEXT", help="The docker context to use.")
    ] = None,
    log_format: Annotated[
        Format, typer.Option(envvar="CLAWKER_FW_LOG_FORMAT", help="How log records are written.")
    ] = Format.TEXT,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="CLAWKER_FW_DEBUG", help="Log everything, and show tracebacks.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool,
        typer.Option(
            "--version",
            envvar="CLAWKER_FW_VERSION",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Put an egress firewall around containers on a Docker host, and keep it provably current."""
    if host and context:
        raise typer.BadParameter("an engine is named by --host or by --context, not by both")
    from clawker_fw.report import log

    log.configure(as_json=log_format is Format.JSON, debug=debug)
    context_.obj = Options(config, project, host, context, log_format, debug)


# --- commands -------------------------------------------------------------------------------------------------


@app.command()
def init(
    context: typer.Context,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,  # noqa: FBT002
) -> None:
    """Write a commented settings file.

    Example: clawker-fw init && clawker-fw run
    """
    from clawker_fw import settings

    chosen: Options = context.obj
    path = settings.write_example(chosen.config or Path(settings.FILE_NAME), overwrite=force)
    typer.echo(f"Wrote {path}. Say in it what agents may reach, then: clawker-fw run")


@app.command()
def run(
    context: typer.Context,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done; exit 1 when there is something.")
    ] = False,
    force_recreate: Annotated[
        bool, typer.Option("--force-recreate", help="Replace both siblings even if they are current.")
    ] = False,
    drain_timeout: DrainOption = None,
    lock_wait: LockOption = 0.0,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Bring the stack to what the release, the settings and the rules say.

    Shows what differs, closes it without dropping a request, and proves it. With nothing stale it changes nothing.

    Example: clawker-fw run --dry-run || clawker-fw run
    """
    if dry_run:
        with _looking(context.obj, format_) as (blueprint, seen):
            _answer_plan(seen, _wish(blueprint, drain_timeout, replace_all=force_recreate), format_)
        return
    with _changing(context.obj, format_) as (engine, blueprint, seen):
        wish = _wish(blueprint, drain_timeout, replace_all=force_recreate)
        _converge(engine, blueprint, seen, wish, lock_wait=lock_wait, format_=format_)


@app.command()
def status(context: typer.Context, *, format_: FormatOption = Format.TEXT) -> None:
    """Show what runs, what is live in it, and how to attach an agent.

    Example: clawker-fw status --format json | jq -r .agent.dns
    """
    with _looking(context.obj, format_) as (blueprint, seen):
        rules = len(blueprint.rules.rules)
        if format_ is Format.JSON:
            from clawker_fw.report import documents

            _print_json(documents.status_document(seen.observed, seen.desired, seen.diff, rules))
        else:
            from clawker_fw.report import text

            text.console().print(text.status_report(seen.observed, seen.desired, seen.diff, rules))


@app.command()
def drift(context: typer.Context, *, format_: FormatOption = Format.TEXT) -> None:
    """Show what differs from what should be, and why. Changes nothing; exit 0 when current, 1 when not.

    Example: clawker-fw drift --format json | jq -r .verdict
    """
    with _looking(context.obj, format_) as (_, seen):
        from clawker_fw.model import Verdict

        if format_ is Format.JSON:
            from clawker_fw.report import documents

            _print_json(documents.drift_document(seen.diff, seen.failed_attempt))
        else:
            from clawker_fw.report import text

            output = text.console()
            output.print(text.drift_report(seen.diff))
            if seen.failed_attempt:
                output.print(text.attempt_report(seen.failed_attempt))
            output.print(text.verdict_line(seen.diff.verdict, seen.desired.project))
        if seen.diff.verdict is not Verdict.CURRENT:
            raise typer.Exit(ExitCode.DRIFT)


@app.command()
def reload(
    context: typer.Context,
    *,
    drain_timeout: DrainOption = None,
    lock_wait: LockOption = 0.0,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Read rules and settings again and apply them live.

    Changed rules are committed to the running siblings and proven; a sibling that has drifted otherwise is
    replaced, as `run` would. The stack must be up.

    Example: clawker-fw reload
    """
    with _changing(context.obj, format_) as (engine, blueprint, seen):
        from clawker_fw import pipeline

        pipeline.require_up(seen)
        _converge(engine, blueprint, seen, _wish(blueprint, drain_timeout), lock_wait=lock_wait, format_=format_)


@app.command()
def down(
    context: typer.Context,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Take agents that are still attached off the network.")
    ] = False,
    lock_wait: LockOption = 0.0,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Remove the stack: both siblings and both networks. Agents are left without a way out.

    Example: clawker-fw down
    """
    from clawker_fw import pipeline
    from clawker_fw.reconcile.steps import describe
    from clawker_fw.stack.digests import Digests

    chosen: Options = context.obj
    engine = connect_engine(chosen)
    performed: list[Step] = []
    with Digests() as digests, _turn(lock_wait, performed) as turn:
        pipeline.take_down(engine, chosen.project, digests, turn, detach=force)
    if format_ is Format.JSON:
        steps = [describe(step) for step in performed]
        _print_json({"schema": 1, "project": chosen.project, "steps": steps})
    else:
        typer.echo(f"{chosen.project} is down." if performed else f"{chosen.project} was not up.")


@app.command()
def watch(
    context: typer.Context,
    *,
    heal: HealOption = Heal.TAMPER,
    interval: IntervalOption = "30s",  # type: ignore[assignment]  # its parser reads it
    listen: ListenOption = None,
    drain_timeout: DrainOption = None,
) -> None:
    """Keep the stack current until stopped.

    Looks at once when something happens to it, and every interval. What differs is closed as `run` would close it.
    One record is written for each decision.

    Example: clawker-fw watch --heal all --listen 127.0.0.1:9464
    """
    import time

    from clawker_fw.stack.digests import Digests
    from clawker_fw.stack.release import Release
    from clawker_fw.watch import record
    from clawker_fw.watch.follow import Inbox
    from clawker_fw.watch.installed import Installed
    from clawker_fw.watch.notify import Manager
    from clawker_fw.watch.watcher import Orders, Place, Watcher

    chosen: Options = context.obj
    manager, inbox = Manager(os.environ), Inbox()
    with Digests() as digests:
        release = Release.installed(digests)
        installed = Installed(release)
        with _observing(listen, interval, release) as observe, _stoppable(inbox) as stopping:

            def tell(decision: "Decision") -> None:
                record.write(decision)
                observe(decision)
                manager.tell(decision)

            place = Place(
                connect=lambda: _connected(chosen),
                blueprint=lambda facts: _blueprint(chosen, release, facts),
                tell=tell,
                inbox=inbox,
                require_release=installed.require_same,
                progress=lambda _: manager.alive(),
                stopping=stopping,
                clock=time.monotonic,
            )
            Watcher(Orders(chosen.project, heal, interval, drain_timeout), place).watch()
    manager.stopping()


service_app = typer.Typer(
    name="service", help="Have systemd keep `clawker-fw watch` running.", no_args_is_help=True
)
app.add_typer(service_app)

SystemOption = Annotated[
    bool | None,
    typer.Option(
        "--system/--user",
        help="A service of the machine, or of the user. Without either, root's is the machine's.",
    ),
]


@service_app.command("install")
def service_install(
    context: typer.Context,
    *,
    system: SystemOption = None,
    heal: HealOption = Heal.TAMPER,
    interval: IntervalOption = "30s",  # type: ignore[assignment]  # its parser reads it
    listen: ListenOption = None,
    drain_timeout: DrainOption = None,
) -> None:
    """Write a unit for `clawker-fw watch` with these options, and start it, now and at boot.

    Example: clawker-fw service install --listen unix:/run/clawker-fw-clawker/watch.sock
    """
    from clawker_fw import service

    options = ["--heal", heal.value, "--interval", f"{interval:g}s"]
    if listen:
        options += ["--listen", listen]
    if drain_timeout is not None:
        options += ["--drain-timeout", f"{drain_timeout:g}s"]
    unit = _unit(context.obj, system=system, options=options, interval=interval, listen=listen)
    started = service.install(unit)
    typer.echo(f"Wrote {unit.path}.")
    if started:
        typer.echo(f"{unit.name} is started, now and at boot.")
    else:
        typer.echo(
            f"systemd does not run here: nothing is started. Where it does: systemctl enable --now {unit.name}"
        )


@service_app.command("uninstall")
def service_uninstall(context: typer.Context, *, system: SystemOption = None) -> None:
    """Stop the service, and remove its unit. The stack stays as it is.

    Example: clawker-fw service uninstall
    """
    from clawker_fw import service

    unit = _named_unit(context.obj, system=system)
    typer.echo(f"Removed {unit.path}." if service.uninstall(unit) else f"{unit.name} was not installed.")


@service_app.command("status")
def service_status(context: typer.Context, *, system: SystemOption = None) -> None:
    """Say whether the service is installed and runs. Exit 0 when it does, 1 when not.

    Example: clawker-fw service status || clawker-fw service install
    """
    from clawker_fw import service

    unit = _named_unit(context.obj, system=system)
    found = service.state(unit)
    active = found.active or "not running: systemd does not run here"
    typer.echo(f"{unit.name}  {active}" if found.installed else f"{unit.name}  not installed")
    if not found.installed or found.active != "active":
        raise typer.Exit(ExitCode.DRIFT)


# --- what the commands share ----------------------------------------------------------------------------------


def connect_engine(chosen: Options) -> "EngineWriter":
    """Return the engine the options name."""
    from clawker_fw.engine.docker import connect

    return connect(chosen.host, chosen.context, os.environ)


@contextmanager
def _connected(chosen: Options) -> "Iterator[EngineWriter]":
    """Use the engine the options name, and close the connections to it."""
    engine = connect_engine(chosen)
    try:
        yield engine
    finally:
        engine.close()


def _blueprint(chosen: Options, release: "Release", facts: "EngineFacts") -> "Blueprint":
    """Return what the stack should be, by the settings as they are now."""
    from clawker_fw import settings
    from clawker_fw.reconcile.desired import Blueprint

    loaded = settings.load(chosen.config, os.environ)
    return Blueprint(chosen.project, loaded.settings, loaded.rules, release, facts)


@contextmanager
def _changing(chosen: Options, format_: Format) -> "Iterator[tuple[EngineWriter, Blueprint, Look]]":
    """Read the settings and look at the stack, both at once: while the engine answers, the rest is imported.

    A mistake in the settings is told first, whatever the engine says.
    """
    looking = _aside(lambda: _begin_to_look(chosen))
    from clawker_fw import settings

    loaded = settings.load(chosen.config, os.environ)
    from clawker_fw import pipeline
    from clawker_fw.reconcile.desired import Blueprint
    from clawker_fw.stack.digests import Digests
    from clawker_fw.stack.release import Release

    _import_report(format_)
    with Digests() as digests:
        release = Release.installed(digests)
        engine, begun = looking.result()
        blueprint = Blueprint(chosen.project, loaded.settings, loaded.rules, release, engine.facts())
        yield engine, blueprint, pipeline.look(engine, blueprint, begun)


@contextmanager
def _looking(chosen: Options, format_: Format) -> "Iterator[tuple[Blueprint, Look]]":
    """Do the same for a command that only looks: it gets nothing to write with."""
    with _changing(chosen, format_) as (_, blueprint, seen):
        yield blueprint, seen


def _import_report(format_: Format) -> None:
    if format_ is Format.JSON:
        from clawker_fw.report import documents  # noqa: F401 - in time
    else:
        from clawker_fw.report import text  # noqa: F401 - in time


def _begin_to_look(chosen: Options) -> "tuple[EngineWriter, Observation]":
    engine = connect_engine(chosen)
    from clawker_fw.reconcile.observe import Observation

    return engine, Observation(engine, chosen.project)


def _aside(work: Callable[[], _Result]) -> "Future[_Result]":
    """Do something in a thread that nobody waits for, unless they ask for its result."""
    from concurrent.futures import Future

    future: Future[_Result] = Future()

    def work_aside() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=work_aside, daemon=True).start()
    return future


@contextmanager
def _observing(listen: str | None, interval: float, release: "Release") -> "Iterator[Callable[[Decision], None]]":
    """Serve what decisions say about the stack, where that is asked for."""
    if listen is None:
        yield lambda _: None
        return
    import time
    from http import HTTPStatus

    from clawker_fw.watch import metrics, page
    from clawker_fw.watch.health import Health

    counted = metrics.Metrics(release.version, release.build_sha)
    health = Health(2 * interval + _LOOK_SECONDS, time.monotonic)

    def health_page() -> page.Reply:
        healthy, content = health.answer()
        status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return page.Reply(content, "application/json", status)

    pages: Pages = {
        "/metrics": lambda: page.Reply(counted.page(), metrics.CONTENT_TYPE),
        "/health": health_page,
    }

    def observe(decision: "Decision") -> None:
        counted.tell(decision)
        health.tell(decision)

    with page.served(page.parse_address(listen), pages) as address:
        typer.echo(f"Metrics and health are served at {address}.", err=True)
        yield observe


_LOOK_SECONDS = 5.0
"""How long a look may take, for its answer to be still fresh when the next one comes."""


@contextmanager
def _stoppable(inbox: "Inbox") -> "Iterator[Callable[[], bool]]":
    """Have SIGTERM and Ctrl-C stop a watcher after the step in hand, its normal end; Ctrl-C twice at once."""
    from clawker_fw.watch.follow import News

    asked = threading.Event()

    def stop(number: int, _: object) -> None:
        if asked.is_set() and number == signal.SIGINT:
            os._exit(ExitCode.INTERRUPTED)
        asked.set()
        inbox.put(News.STOP)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _named_unit(chosen: Options, *, system: bool | None) -> "Unit":
    """Return a project's unit, to be looked for and not to be written."""
    from clawker_fw.service import Scope, Unit, default_scope

    scope = default_scope() if system is None else Scope.SYSTEM if system else Scope.USER
    return Unit(scope, chosen.project, (), 0)


def _unit(
    chosen: Options, *, system: bool | None, options: list[str], interval: float, listen: str | None
) -> "Unit":
    """Return a unit that runs the watcher with the options as they are here: settings have to be usable, too."""
    from dataclasses import replace

    from clawker_fw import service, settings
    from clawker_fw.watch.page import parse_address

    loaded = settings.load(chosen.config, os.environ)
    before = ["--project", chosen.project, "--log-format", chosen.log_format.value]
    if loaded.source:
        before += ["--config", str(loaded.source.absolute())]
    for name, value in (("--host", chosen.host), ("--context", chosen.context)):
        before += [name, value] if value else []
    return replace(
        _named_unit(chosen, system=system),
        arguments=[*before, "watch", *options],
        interval=interval,
        variables=service.kept(os.environ, settings.ENVIRONMENT_PREFIX, settings.OPTION_VARIABLES),
        socket=parse_address(listen).path if listen else None,
    )


@contextmanager
def _turn(lock_wait: float, performed: "list[Step]") -> "Iterator[Turn]":
    """Show the steps of a change, note those that are done, and have Ctrl-C stop it.

    Ctrl-C once stops after the step in hand, twice at once.
    """
    from clawker_fw.pipeline import Turn
    from clawker_fw.report import text

    asked = threading.Event()

    def stop(*_: object) -> None:
        if asked.is_set():
            os._exit(ExitCode.INTERRUPTED)
        asked.set()
        typer.echo("Stopping after the step in hand. Again to stop at once; the next run finishes.", err=True)

    def tell(progress: "Progress") -> None:
        display(progress)
        if progress.share >= 1:
            performed.append(progress.step)

    before = signal.signal(signal.SIGINT, stop)
    try:
        with text.StepDisplay(text.console(stderr=True)) as display:
            yield Turn(tell, asked.is_set, lock_wait)
    finally:
        signal.signal(signal.SIGINT, before)


def _wish(blueprint: "Blueprint", drain_timeout: float | None, *, replace_all: bool = False) -> "Wish":
    from clawker_fw.reconcile.steps import Wish

    seconds = blueprint.settings.drain_timeout if drain_timeout is None else drain_timeout
    return Wish(seconds, replace_all=replace_all)


def _answer_plan(seen: "Look", wish: "Wish", format_: Format) -> None:
    """Answer a dry run."""
    from clawker_fw import pipeline
    from clawker_fw.report import documents, text

    steps = pipeline.plan_for(seen, wish)
    if format_ is Format.JSON:
        _print_json(documents.plan_document(seen.diff, steps))
    else:
        output = text.console()
        output.print(text.drift_report(seen.diff))
        if not steps.empty:
            output.print(text.plan_report(steps))
        output.print(text.verdict_line(seen.diff.verdict, seen.desired.project))
    if not steps.empty:
        raise typer.Exit(ExitCode.DRIFT)


def _converge(
    engine: "EngineWriter",
    blueprint: "Blueprint",
    seen: "Look",
    wish: "Wish",
    *,
    lock_wait: float,
    format_: Format,
) -> None:
    """Print the difference, close it, and answer with the proof."""
    from clawker_fw import pipeline

    before = seen.diff
    performed: list[Step] = []
    if pipeline.plan_for(seen, wish).empty:
        pipeline.tidy(engine, seen.observed)
    else:
        from clawker_fw.report import text

        talk = text.console(stderr=True)
        talk.print(text.drift_report(before))
        with _turn(lock_wait, performed) as turn:
            seen = pipeline.converge(engine, blueprint, wish, turn)
    if format_ is Format.JSON:
        from clawker_fw.report import documents

        _print_json(documents.run_document(before, performed, seen.diff))
    else:
        from clawker_fw.report import text

        words = "applied and proven" if performed else "nothing to do"
        text.console().print(text.verdict_line(seen.diff.verdict, f"{blueprint.project}: {words}"))


def _print_json(document: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(document, indent=2))


def main() -> None:
    """Run the program and exit."""
    app(prog_name="clawker-fw")
