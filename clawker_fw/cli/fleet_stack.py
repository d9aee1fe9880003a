"""The command that prints what a swarm needs to run a watcher on every host."""

import os
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from clawker_fw.cli import session
from clawker_fw.cli.fleet import fleet_app
from clawker_fw.cli.parameters import Agents, AgentsOption, DrainOption, Options, duration, unparsed, written
from clawker_fw.cli.watch_options import AttachOption, IntervalOption, OnOpenOption, OtelOption, require_otlp
from clawker_fw.errors import RefusedError, SettingsError
from clawker_fw.report import terminal
from clawker_fw.watch.reactions import OnOpen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clawker_fw.fleet.host_files import HostFile, HostFiles
    from clawker_fw.settings.loaded import Loaded
    from clawker_fw.stack.release import Release

_PINNED = re.compile(r"([a-zA-Z0-9][\w.:/-]*@)?sha256:[0-9a-f]{64}")
_LABEL = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=([A-Za-z0-9](?:[A-Za-z0-9_. -]*[A-Za-z0-9])?)")
"""What the constraints of a swarm can compare: the forms of swarmkit, `manager/constraint`."""

_STACK_FILE = "stack.yaml"
_FIRST_SECONDS = 60.0
"""How long a host takes to become current, besides draining: images are loaded, and programs started."""


def _labels(given_: list[str] | None) -> list[str]:
    for text in given_ or ():
        if not _LABEL.fullmatch(text):
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE with letters, digits, `.`, `_`, `-`")
    return given_ or []


def _pinned(text: str | None) -> str | None:
    if text and not _PINNED.fullmatch(text):
        raise typer.BadParameter(
            f"{text!r} is not pinned by digest, so nodes could run different programs; write NAME@sha256:…"
        )
    return text


@fleet_app.command("stack")
def stack(
    context: typer.Context,
    *,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="KEY=VALUE",
            callback=_labels,
            help="Only on nodes with this label. May be repeated.",
        ),
    ] = None,
    parallelism: Annotated[
        int, typer.Option("--parallelism", metavar="N", min=1, help="How many nodes change at the same time.")
    ] = 1,
    monitor: Annotated[
        float,
        typer.Option(
            "--monitor",
            metavar="DURATION",
            parser=duration,
            help="How long a node must have been current before the next one changes. E.g. 5m.",
        ),
    ] = unparsed("10s"),
    start_period: Annotated[
        float | None,
        typer.Option(
            "--start-period",
            metavar="DURATION",
            parser=duration,
            help="How long a node may take to become current. Default: a minute, and the time for draining.",
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="REFERENCE",
            callback=_pinned,
            help="The program's image in a registry, by digest (NAME@sha256:…). Default: that of this release, "
            "which every node must have.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR",
            file_okay=False,
            help="Write the file as stack.yaml into a folder, with copies of settings and rules, not of secrets.",
        ),
    ] = None,
    socket: Annotated[
        str, typer.Option("--socket", metavar="PATH", help="Where each node's engine has its socket.")
    ] = "/var/run/docker.sock",
    agents: AgentsOption = Agents.IGNORE,
    interval: IntervalOption = unparsed("30s"),
    otel: OtelOption = False,
    on_open: OnOpenOption = OnOpen.WARN,
    attach: AttachOption = None,
    drain_timeout: DrainOption = None,
) -> None:
    """Print a compose file with which a swarm keeps every node current.

    It is a service that runs `watch --heal all` on each node, with settings, rules and secrets by their content.
    Deployed again after a change, it changes one node after the other, and goes back if one does not become
    current.

    Example: clawker-fw fleet stack | docker stack deploy -c - clawker-fw
    """
    from clawker_fw.fleet import stack_file
    from clawker_fw.stack.release import Release, build_name

    chosen: Options = context.obj
    loaded = session.load(chosen)
    session.warn_of_project(chosen, loaded)
    options = ["--interval", written(interval), "--on-open", on_open.value]
    if attach:
        options += ["--attach", attach]
    if otel:
        require_otlp(chosen)
        options += ["--otel"]
    if drain_timeout is not None:
        options += ["--drain-timeout", written(drain_timeout)]
    drain = loaded.settings.drain_timeout if drain_timeout is None else drain_timeout
    files = _files(chosen, loaded)
    release = Release.installed()
    program = _Program(image) if image else _loaded(chosen, release)
    service = stack_file.WatcherService(
        chosen.project,
        build_name(release.version, release.build_sha),
        loaded.digest,
        program.image,
        program.architecture,
        options,
        _variables(chosen),
        dict(each.split("=", 1) for each in label or ()),
        socket,
        agents.value,
        files,
        stack_file.Rollout(parallelism, _FIRST_SECONDS + drain if start_period is None else start_period, monitor),
    )
    named = {each.name(chosen.project): each for each in files.files}
    if output is None:
        paths = {name: str(each.source) for name, each in named.items()}
        terminal.answer(stack_file.text(stack_file.compose(service, paths)).rstrip("\n"))
        return
    paths = {name: str(each.source) if each.secret else f"./{name}" for name, each in named.items()}
    _write(output, named, stack_file.text(stack_file.compose(service, paths)))
    terminal.answer(
        f"Wrote {output / _STACK_FILE}. Next: docker stack deploy -c {output / _STACK_FILE} clawker-fw"
    )


class _Program(NamedTuple):
    """The program's image, and its architecture in Go's terms if it is for one alone."""

    image: str
    architecture: str = ""


def _loaded(chosen: Options, release: "Release") -> _Program:
    """Return the image of this release as the engine here has it: nodes find it by its id, and pull nothing.

    A swarm would have every node pull what it finds under a name in a public registry, whoever put it there.

    Raises:
        RefusedError: when the engine does not have it.
    """
    from clawker_fw.fleet.program.image import Distribution

    with closing(session.connect_engine(chosen)) as engine:
        made = Distribution(release).image
        for each in made.ids:  # one in the classic store, another one in containerd's
            if engine.image(each) is not None:
                return _Program(each, made.architecture)
    raise RefusedError(
        "fleet-image-missing",
        f"The image of this release, {made.reference}, is not on the engine, so its nodes can't have it either.",
        hint="Load it on every node with `clawker-fw image --load`, "
        "or push it to a registry and name it with --image NAME@sha256:….",
    )


def _files(chosen: Options, loaded: "Loaded") -> "HostFiles":
    from clawker_fw.fleet.host_files import host_files
    from clawker_fw.settings.load import read_settings

    read, _ = read_settings(chosen.config, os.environ)
    vault, wanted = session.secrets(chosen, loaded)
    return host_files(read, loaded.settings, vault, wanted)


def _variables(chosen: Options) -> dict[str, str]:
    """Return the variables that are settings here, which hosts need as well, and the format of records.

    Raises:
        SettingsError: when a swarm would read one as a template.
    """
    from clawker_fw.settings.environment import ENVIRONMENT_PREFIX, IGNORED_VARIABLES, SETTINGS_VARIABLE

    found = {
        name: value
        for name, value in os.environ.items()
        if name == SETTINGS_VARIABLE
        or (name.startswith(ENVIRONMENT_PREFIX) and name.removeprefix(ENVIRONMENT_PREFIX) not in IGNORED_VARIABLES)
    }
    for name, value in found.items():
        if "{{" in value:
            raise SettingsError(
                "fleet-variable-template",
                f"{name} has `{{{{`, which a swarm takes for a template of its own.",
                hint="Write this setting into the settings file.",
            )
    return {**found, "CLAWKER_FW_LOG_FORMAT": chosen.log_format.value}


def _write(folder: Path, named: "Mapping[str, HostFile]", text: str) -> None:
    """Write the compose file into a folder, with a copy of each file that is no secret.

    Raises:
        RefusedError: when that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, each in named.items():
            if not each.secret:
                (folder / name).write_bytes(each.content)
        (folder / _STACK_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RefusedError(
            "fleet-unwritable", f"{error.filename or folder} can't be written: {error.strerror}."
        ) from error
