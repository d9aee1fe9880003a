"""The commands that attach agents: `agent flags`, `agent compose` and `agent run`."""

import os
import re
import shutil
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli.app import group
from clawker_fw.cli.parameters import Format, FormatOption, Options
from clawker_fw.cli.session import attaching, print_json
from clawker_fw.errors import EngineError, UsageError
from clawker_fw.report import log, terminal

if TYPE_CHECKING:
    from clawker_fw.agents.attachment import Attachment
    from clawker_fw.engine.port import EngineWriter
    from clawker_fw.reconcile.pipeline import Comparison

_DEFAULT_SERVICE = "agent"

agent_app = group("agent", "Start an agent, or print what docker or compose need for it.")


@agent_app.command("flags")
def agent_flags(context: typer.Context, *, format_: FormatOption = Format.TEXT) -> None:
    """Print the flags with which docker starts an agent.

    Prefer `agent run`. Otherwise write `flags=$(clawker-fw agent flags) && docker run $flags IMAGE`, in one line:
    if this program can't even start, `docker run $(…)` would start an open container. The docker CLI must use the
    same engine. If the stack does not serve, an option is printed that docker refuses. Agents don't get the
    proxies of the docker CLI's configuration, because they can't reach them.

    Example: clawker-fw agent flags --json | jq -r .network
    """
    engine, comparison = attaching(context.obj)
    attached = _attachment(engine, comparison)
    if format_ is Format.JSON:
        from clawker_fw.report.documents.run import FlagsDocument

        print_json(FlagsDocument.of(comparison, attached))
    else:
        terminal.answer(" ".join(attached.flags))


def _checked_services(names: list[str] | None) -> list[str]:
    for name in names or ():
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise typer.BadParameter(f"{name!r} is not the name of a compose service")
    return names or [_DEFAULT_SERVICE]


@agent_app.command("compose")
def agent_compose(
    context: typer.Context,
    services: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SERVICE",
            callback=_checked_services,
            help="A service of your compose file; several are possible. Default: agent.",
        ),
    ] = None,
    *,
    publish: Annotated[
        list[str] | None,
        typer.Option(
            "--publish",
            "-p",
            metavar="PORTS",
            help="Publish a port of the service; may be repeated. The next `run`, or a watcher, makes its relay.",
        ),
    ] = None,
) -> None:
    """Print an override file for docker compose.

    It puts each SERVICE inside the firewall: it replaces their networks and DNS
    servers, and takes back `privileged`, added capabilities and proxies that docker is configured to give to each
    container. It needs Docker Compose 2.24.4 or later, and refuses if an earlier one is installed.

    Example: clawker-fw agent compose web > firewall.yaml && docker compose -f compose.yaml -f firewall.yaml up
    """
    from clawker_fw.agents.docker_options import parse_ports
    from clawker_fw.cli.docker_cli import require_compose
    from clawker_fw.cli.running import publishing

    require_compose(shutil.which("docker"))
    chosen = services or [_DEFAULT_SERVICE]
    ports = parse_ports(publish or ())
    if ports and len(chosen) > 1:
        raise UsageError("agent-option", "Ports can be published for one service at a time.")
    engine, comparison = attaching(context.obj)
    attached = publishing(engine, comparison, _attachment(engine, comparison), ports)
    terminal.answer(attached.compose(chosen))


@agent_app.command(
    "run",
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": ["--help"],  # docker's own -h is the container's host name
    },
)
def agent_run(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE", help="The image and its command, after the options of `docker run`."),
    ],
) -> None:
    """Start an agent inside the firewall.

    This is `docker run` with the flags of `agent flags`. Everything after `run` goes to the docker CLI, which
    creates the container. If it is confined, it is started, and the exit code is docker's. If not, it is removed.
    Ports of `--publish` are published by a relay, on 127.0.0.1 unless they name another address.

    Example: clawker-fw agent run --rm -it IMAGE
    """
    from clawker_fw.agents.docker_options import parse_run
    from clawker_fw.cli.docker_cli import DockerCli
    from clawker_fw.cli.running import run_agent

    chosen: Options = context.obj
    program = shutil.which("docker")
    if program is None:
        raise EngineError(
            "docker-cli-missing",
            "There is no docker program here to start the agent with.",
            hint="Install the docker CLI. Other clients need what `clawker-fw agent flags --format json` shows.",
        )
    run_words = parse_run(words)
    engine, comparison = attaching(chosen)
    attached = _attachment(engine, comparison)
    endpoint = comparison.observed.engine.endpoint
    place = ["--host", endpoint] if chosen.host else ["--context", chosen.context] if chosen.context else []
    with DockerCli(program, place).gets_signals() as docker:
        raise typer.Exit(run_agent(engine, comparison, docker, attached, run_words))


def _attachment(engine: "EngineWriter", comparison: "Comparison") -> "Attachment":
    """Return how to attach an agent to a stack that confines and serves it now. Its trust volume stays."""
    from clawker_fw.agents.attachment import attachment, require_serving
    from clawker_fw.cli.running import with_trust_volume
    from clawker_fw.engine.client_config import proxy_variables

    require_serving(comparison.desired.project, comparison.observed, comparison.diff)
    if not comparison.diff.verdict.settled:
        log.notice(
            "agent_before_run",
            "The stack differs from the settings or this release; the agent gets the rules that are live. "
            "`clawker-fw drift` shows the difference, `clawker-fw run` closes it.",
        )
    return with_trust_volume(engine, comparison, attachment(comparison.desired, proxy_variables(os.environ)))
