"""The watcher as a systemd service: the values of `templates/clawker-fw.service.j2`.

Unit options: systemd.service(5), systemd.exec(5). Quoting: systemd.syntax(7).
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from clawker_fw.errors import RefusedError
from clawker_fw.rendering import render
from clawker_fw.settings.environment import ENVIRONMENT_PREFIX, IGNORED_VARIABLES, variables


def unit(
    project: str,
    arguments: Sequence[str],
    interval: float,
    environment: Mapping[str, str],
    *,
    system: bool,
    socket: Path | None = None,
    state: Path | None = None,
    user: int = 0,
) -> str:
    """Return the text of a unit. `arguments` follow the program's name, `interval` is in seconds.

    Only a `system` service belongs to the machine; `user` is its uid. `socket` is the unix socket on which metrics
    are served, if there is one. `state` is the folder in which certificates are kept and renewed.

    Raises:
        RefusedError: when an argument can't be written into a unit.
    """
    # -P: nothing is imported from the working directory.
    command = [sys.executable, "-P", "-m", "clawker_fw", *arguments]
    folder = f"clawker-fw-{project}"  # services of several users share no folder
    written = [socket.parent] if socket and socket.parent != Path("/run") / folder else []
    written += [state] if state else []
    return render(
        "clawker-fw.service.j2",
        project=project,
        system=system,
        command=" ".join(map(quoted, command)),
        variables=[quoted(f"{name}={value}", variables=False) for name, value in environment.items()],
        watchdog_seconds=max(120, round(4 * interval)),
        user=user,
        folder=folder,
        written=[quoted(f"-{path}", variables=False) for path in written],
    )


def quoted(word: str, *, variables: bool = True) -> str:
    """Return a word quoted for a unit file, its specifiers escaped. `variables` escapes variables as well.

    Raises:
        RefusedError: when it has a line break or another control character.
    """
    if not word.isprintable():
        raise RefusedError(
            "unit-unwritable",
            f"{word!r} has a control character, which a systemd unit can't hold.",
        )
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if variables:
        escaped = escaped.replace("$", "$$")
    plain = escaped == word and not any(character in " ';" for character in word) and word
    return escaped if plain else f'"{escaped}"'


KEPT_VARIABLES = frozenset(
    f"DOCKER_{name}" for name in ("HOST", "CONTEXT", "CONFIG", "CERT_PATH", "TLS", "TLS_VERIFY")
)
"""Docker's own variables that choose an engine."""


def service_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that a service keeps: settings, and the choice of the engine."""
    ignored = {f"{ENVIRONMENT_PREFIX}{name}" for name in IGNORED_VARIABLES}
    kept = {*dict(variables(environment)), *KEPT_VARIABLES} - ignored
    return {name: environment[name] for name in sorted(kept) if name in environment}
