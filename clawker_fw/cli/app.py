"""The program as a whole: the options before a command, and where every error ends, once."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup, TyperOption

from clawker_fw import settings_file
from clawker_fw.cli.parameters import Format, Options
from clawker_fw.errors import ExitCode, FirewallError


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
    epilog="Exit codes: 0 current or done, 1 drift, something to do or no service, 2 usage, "
    "3 invalid settings or rules, 4 engine unreachable or too old, 5 applied but not proven live, 6 refused, "
    "70 bug, 130 interrupted.",
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - click's callback signature
    if wanted:
        from importlib.metadata import version

        typer.echo(f"clawker-fw {version('clawker-fw')}")
        raise typer.Exit


def _checked_project(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(settings_file.PROJECT_NAME, name):
        raise typer.BadParameter(settings_file.PROJECT_FORM)
    return name


def _given(context: typer.Context) -> dict[str, str]:
    """Return by what each option was given: its own name, or its variable's."""
    found: dict[str, str] = {}
    for each in context.command.params:
        source = context.get_parameter_source(each.name or "")
        if source is not None and source.name in {"COMMANDLINE", "ENVIRONMENT"}:
            variable = isinstance(each, TyperOption) and source.name == "ENVIRONMENT" and each.envvar
            found[each.name or ""] = str(variable or each.opts[0])
    return found


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
        str | None,
        typer.Option(
            envvar="CLAWKER_FW_PROJECT",
            callback=_checked_project,
            help="Which stack: part of every name. Without it: `project` in the settings file, then clawker.",
        ),
    ] = None,
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
    context_.obj = Options(config, project, host, context, log_format, debug, _given(context_))
