"""The program: the options before a command, and the one place that catches and prints errors."""

import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.models import CommandFunctionType

from clawker_fw import interrupts
from clawker_fw.cli import session, usage
from clawker_fw.cli.parameters import Options
from clawker_fw.errors import ExitCode, FirewallError, OutputError, RefusedError, SettingsError, StoppedError
from clawker_fw.report import commands, log, terminal
from clawker_fw.settings.find import GROUP_FORM, GROUP_NAME, PROJECT_FORM, PROJECT_NAME

PROGRAM = "clawker-fw"

PANELS: Mapping[str, Sequence[str]] = {
    "Every day": ("init", "run", "drift", "reload", "status", "watch", "down"),
    "Rules": ("rules", "config"),
    "Agents": ("agent", "secrets", "certs"),
    "Answers": ("explain", "denials", "doctor", "conformance"),
    "Automation": ("service", "schema"),
    "Many hosts": ("fleet",),
}
"""All commands by purpose, in the order of the help."""


class Command(TyperCommand):
    """A command. Its help lists arguments without the Python types that Typer would add."""

    def format_options(  # type: ignore[override]  # typer's own
        self,
        ctx: typer.Context,
        formatter: Any,  # noqa: ANN401 - typer's own, which is private
    ) -> None:
        """Write the arguments and the options."""
        arguments = [parameter for parameter in self.params if isinstance(parameter, TyperArgument)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl([(str(argument.metavar), argument.help or "") for argument in arguments])
        options = [parameter for parameter in self.get_params(ctx) if isinstance(parameter, TyperOption)]
        with formatter.section("Options"):
            formatter.write_dl(list(filter(None, [option.get_help_record(ctx) for option in options])))


class CommandLine(typer.Typer):
    """The program, or a group of its commands."""

    def command(  # type: ignore[override]  # only what is used here
        self, name: str | None = None, *, context_settings: dict[str, Any] | None = None
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Add a command."""
        return super().command(name, cls=Command, context_settings=context_settings)


class Commands(TyperGroup):
    """A group of commands. Without a command, it prints its help."""

    def format_commands(  # type: ignore[override]  # typer's own
        self,
        ctx: typer.Context,  # noqa: ARG002 - typer passes it
        formatter: Any,  # noqa: ANN401 - typer's own, which is private
    ) -> None:
        """Write the commands by panel, each with the whole first sentence of its help."""
        width = max(map(len, self.commands))
        panels = PANELS if self.name == PROGRAM else {"Commands": self.commands}
        for panel, names in panels.items():
            helps = [self.commands[name].get_short_help_str(sys.maxsize) for name in names]
            with formatter.section(panel):
                formatter.write_dl([(name.ljust(width), text) for name, text in zip(names, helps, strict=True)])

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # typer's own
        """Parse the options before the command."""
        if not args and not ctx.resilient_parsing and not log.for_programs():
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)


class Program(Commands):
    """The program. Every error is caught here, once, and printed in the chosen format."""

    def main(self, args: Sequence[str] | None = None, *_: object, **__: object) -> NoReturn:
        """Run a command line and exit."""
        line = usage.read(self, sys.argv[1:] if args is None else args)
        code: int = ExitCode.BUG
        terminal.expect_answer()
        try:
            log_format = line.value("--log-format", "CLAWKER_FW_LOG_FORMAT")
            log.configure(log.LogFormat.JSON if log_format == "json" else log.LogFormat.TEXT, debug=False)
            # After a request to terminate, output makes docker fail, too.
            ends = (signal.SIGTERM, signal.SIGHUP) if line.answers_docker() else ()
            with interrupts.handled(signal.default_int_handler, *ends):
                code = self._exit_code(line)
        finally:
            # After a failure, print an option that docker refuses. It also refuses any JSON.
            json = line.wants_json and terminal.answered()
            if code != ExitCode.CURRENT and not json and line.answers_docker(invalid=code == ExitCode.USAGE):
                from clawker_fw.agents.attachment import REFUSAL

                terminal.answer(REFUSAL)
            commands.use({})
        sys.exit(code)

    def _exit_code(self, line: usage.UnparsedLine) -> int:
        error: FirewallError
        try:
            interrupts.deliver()
            return int(super().main([*line.options, *line.rest], PROGRAM, standalone_mode=False) or 0)
        except FirewallError as failure:
            error = failure
        except (typer.Abort, KeyboardInterrupt):
            error = _interrupted()
        except typer.TyperException as mistake:
            error = usage.mistake(self, mistake)
        except Exception as unexpected:  # noqa: BLE001 - the last line of defence: anything unexpected is a bug
            error = _unexpected(unexpected, line)
        with suppress(KeyboardInterrupt):  # while the error is printed
            session.print_error(error)
            if line.wants_json and not terminal.answered():
                from clawker_fw.report import documents

                # The error is the answer, in one line for programs that read lines.
                with suppress(OutputError):  # the error itself has been told
                    terminal.answer(documents.writer(documents.ErrorDocument)(documents.ErrorDocument.of(error)))
            return error.exit_code
        return ExitCode.INTERRUPTED

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: ANN401 - typer's own context
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _interrupted() from None
        except SettingsError as error:
            if error.code == "settings-not-found" and isinstance(ctx.obj, Options) and not ctx.obj.config:
                error.hint = session.hint_of_the_stack(ctx.obj) or error.hint
            raise


def _interrupted() -> FirewallError:
    return StoppedError("interrupted", "Interrupted.", hint="The next run completes what this one has begun.")


def _unexpected(error: Exception, line: usage.UnparsedLine) -> FirewallError:
    if isinstance(error, OSError | UnicodeError) and "--install-completion" in line.words:
        return RefusedError(
            "completion-unwritable",
            f"The completion script can't be installed: {error}.",
            hint="Print it with `clawker-fw --show-completion`, and put it where your shell looks.",
        )
    bug = FirewallError(
        "bug",
        f"This is a bug in clawker-fw: {type(error).__name__}: {error}.",
        hint="Run the command again with --debug, and report its output.",
    )
    bug.__cause__ = error
    return bug


app = CommandLine(
    cls=Program,
    name=PROGRAM,
    help="An egress firewall for containers on a Docker host, kept provably current.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 current, done or allowed, 1 drift, something to do or not allowed, 2 usage, "
    "3 invalid settings or rules, 4 engine unreachable or too old or a registry fails, 5 applied but not proven "
    "live, 6 refused, 70 bug, 74 done but the answer could not be written, 130 interrupted.",
)


def group(name: str, help_: str) -> CommandLine:
    """Return a new group of commands."""
    commands = CommandLine(cls=Commands, name=name, help=help_, rich_markup_mode=None)
    app.add_typer(commands)
    return commands


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - click's callback signature
    if wanted:
        from clawker_fw.stack.release import Release, build_name

        release = Release.installed()
        terminal.answer(f"{PROGRAM} {build_name(release.version, release.build_sha)}")
        raise typer.Exit


def _checked(pattern: str, form: str) -> Callable[[str | None], str | None]:
    """Return a callback that requires an option's value to match a pattern; `form` describes that."""

    def check(name: str | None) -> str | None:
        if name is not None and not re.fullmatch(pattern, name):
            raise typer.BadParameter(form)
        return name

    return check


def _origins(context: typer.Context) -> dict[str, str]:
    """Return the option or the environment variable that has set each of the program's options."""
    origins: dict[str, str] = {}
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is not None and source.name in {"COMMANDLINE", "ENVIRONMENT"}:
            variable = isinstance(option, TyperOption) and source.name == "ENVIRONMENT" and option.envvar
            origins[option.name or ""] = str(variable or option.opts[0])
    return origins


@app.callback()
def options(
    context_: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="CLAWKER_FW_CONFIG",
            metavar="PATH",
            help="The settings file. Without it: ./clawker-fw.yaml, then the one in the user's config folder.",
        ),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(
            envvar="CLAWKER_FW_PROJECT",
            metavar="NAME",
            callback=_checked(PROJECT_NAME, PROJECT_FORM),
            help="The stack's name, part of every name on the engine. "
            "Without it: `project` in the settings file, then clawker.",
        ),
    ] = None,
    group_: Annotated[
        str | None,
        typer.Option(
            "--group",
            envvar="CLAWKER_FW_GROUP",
            metavar="NAME",
            callback=_checked(GROUP_NAME, GROUP_FORM),
            help="One group of agents in the settings file. Without it: the settings above the groups.",
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            envvar="CLAWKER_FW_HOST",
            metavar="ADDRESS",
            help="The Docker engine, e.g. unix:///var/run/docker.sock.",
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            envvar="CLAWKER_FW_CONTEXT",
            metavar="NAME",
            help="The docker context to use.",
        ),
    ] = None,
    secrets: Annotated[
        Path | None,
        typer.Option(
            envvar="CLAWKER_FW_SECRETS",
            metavar="PATH",
            help="Your own file of secrets. Without it: secrets.yaml in the user's config folder.",
        ),
    ] = None,
    log_format: Annotated[
        log.LogFormat,
        typer.Option(
            envvar="CLAWKER_FW_LOG_FORMAT",
            metavar="text|json",
            help="The format of standard error: text for people, or a JSON object in each line.",
        ),
    ] = log.LogFormat.TEXT,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="CLAWKER_FW_DEBUG", help="Log everything, and show tracebacks.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and the build, and exit.",
        ),
    ] = False,
) -> None:
    """Put an egress firewall around containers on a Docker host, and keep it provably current."""
    if host and context:
        raise typer.BadParameter("--host and --context both choose the engine; use only one of them")
    context_.obj = Options(config, project, host, context, log_format, secrets, _origins(context_), group_)
    commands.use(context_.obj.naming)
    log.configure(log_format, debug=debug)
    if meant := context_.obj.overridden:
        message = f"The settings file is for project {meant}, but CLAWKER_FW_PROJECT overrides it with {project}."
        fields = {"message": message, "project": project, "settings_project": meant}
        log.LOG.warning("project_overridden", extra={"fields": fields})
