"""The watcher as a systemd service: its unit file, and its installation.

Unit options: systemd.service(5), systemd.exec(5). Quoting: systemd.syntax(7).
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import assert_never

import platformdirs

from clawker_fw.errors import RefusedError
from clawker_fw.private_files import replace_durably

MARK = "# Written by `clawker-fw service install`, which replaces only files that begin with this line.\n"

_SYSTEM_FOLDER = Path("/etc/systemd/system")
_BOOTED = Path("/run/systemd/system")
"""Exists when systemd is this machine's init system (sd_booted(3))."""


class ServiceScope(StrEnum):
    """Whether a service belongs to the machine or to a user."""

    SYSTEM = "system"
    USER = "user"


@dataclass(frozen=True)
class Unit:
    """The contents of a unit. `arguments` follow the program's name, `interval` is in seconds.

    `socket` is the unix socket on which metrics are served, if there is one. `state` is the folder in which
    certificates are kept and renewed.
    """

    scope: ServiceScope
    project: str
    arguments: Sequence[str]
    interval: float
    variables: Mapping[str, str] = field(default_factory=dict)
    socket: Path | None = None
    state: Path | None = None

    @property
    def name(self) -> str:
        """The unit's name."""
        return f"clawker-fw-{self.project}.service"

    @property
    def path(self) -> Path:
        """The path of the unit file."""
        match self.scope:
            case ServiceScope.SYSTEM:
                return _SYSTEM_FOLDER / self.name
            case ServiceScope.USER:
                return platformdirs.user_config_path() / "systemd" / "user" / self.name
            case _:
                assert_never(self.scope)

    def text(self) -> str:
        """Return the unit file's text.

        Raises:
            RefusedError: when an argument can't be written into a unit.
        """
        # -P: nothing is imported from the working directory.
        command = [sys.executable, "-P", "-m", "clawker_fw", *self.arguments]
        lines = [
            "[Unit]",
            f"Description=Keeps the egress firewall {self.project} current",
            *(["After=docker.service"] if self.scope is ServiceScope.SYSTEM else []),
            "# Restart without limit.",
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=notify",
            f"ExecStart={' '.join(map(quoted, command))}",
            *(
                f"Environment={quoted(f'{name}={value}', variables=False)}"
                for name, value in self.variables.items()
            ),
            "Restart=always",
            "RestartSec=2",
            "TimeoutStopSec=120",
            f"WatchdogSec={max(120, round(4 * self.interval))}",
            "",
            *_CONFINED,
            *(self._system() if self.scope is ServiceScope.SYSTEM else _USER),
            "",
            "[Install]",
            f"WantedBy={'multi-user.target' if self.scope is ServiceScope.SYSTEM else 'default.target'}",
        ]
        return MARK + "\n".join(lines) + "\n"

    def _kept(self) -> list[Path]:
        return [self.state] if self.state else []

    def _system(self) -> list[str]:
        runtime = Path("/run") / self.name.removesuffix(".service")
        elsewhere = [] if self.socket is None or self.socket.parent == runtime else [self.socket.parent]
        return [
            *_SYSTEM,
            f"RuntimeDirectory={runtime.name}",
            *(f"ReadWritePaths={quoted(f'-{path}', variables=False)}" for path in (*elsewhere, *self._kept())),
        ]


_CONFINED = (
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallErrorNumber=EPERM",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
    "UMask=0077",
)

_SYSTEM = (
    "# Settings and Python may be anywhere and must be readable; only certificates are written.",
    "CapabilityBoundingSet=CAP_DAC_READ_SEARCH",
    "AmbientCapabilities=",
    "DevicePolicy=closed",
    "KeyringMode=private",
    "PrivateDevices=yes",
    "PrivateTmp=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHome=read-only",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "# Not ProtectProc: /proc shows whether another run is still alive.",
    "ProtectSystem=strict",
    "RemoveIPC=yes",
    "CacheDirectory=clawker-fw",
    "Environment=XDG_CACHE_HOME=%C",
)

_USER = ("# Options that need a mount namespace or capabilities are not available to a user's service.",)


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


def booted() -> bool:
    """Whether systemd is this machine's init system, so that it can start services."""
    return _BOOTED.is_dir()


def install(unit: Unit) -> bool:
    """Write a unit, start it, and enable it at boot. Return whether it was started.

    Raises:
        RefusedError: when this is not Linux, the file exists and is not ours, or the unit can't be written or
            started.
    """
    if sys.platform != "linux":
        raise RefusedError(
            "service-unsupported",
            f"A service needs systemd, which is on Linux only, and this is {sys.platform}.",
            hint="Have `clawker-fw watch` started by this system's own service manager: launchd on macOS.",
        )
    text = unit.text()
    _require_ours(unit.path)
    try:
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        if unit.state:
            unit.state.mkdir(parents=True, exist_ok=True, mode=0o700)  # systemd makes only what exists writable
        replace_durably(unit.path, text.encode())
    except OSError as error:
        raise _unchanged(unit, error) from error
    if not booted():
        return False
    _systemctl(unit.scope, "daemon-reload")
    _systemctl(unit.scope, "enable", unit.name)
    _systemctl(unit.scope, "restart", unit.name)
    return True


def _unchanged(unit: Unit, error: OSError) -> RefusedError:
    return RefusedError(
        "unit-unwritable",
        f"{unit.path} can't be changed: {error.strerror}.",
        hint="Only root can write system units; --user installs a service of your own."
        if unit.scope is ServiceScope.SYSTEM
        else f"The user who runs the service must be able to write the folder {unit.path.parent}.",
    )


def uninstall(unit: Unit) -> bool:
    """Stop a unit and remove it. Return whether it existed.

    Raises:
        RefusedError: when the file is not ours, or the unit can't be stopped or removed.
    """
    _require_ours(unit.path)
    if not unit.path.exists():
        return False
    if booted():
        _systemctl(unit.scope, "disable", "--now", unit.name)
    try:
        unit.path.unlink()
    except OSError as error:
        raise _unchanged(unit, error) from error
    if booted():
        _systemctl(unit.scope, "daemon-reload")
    return True


@dataclass(frozen=True, slots=True)
class State:
    """The state of a unit. `active` is the output of `systemctl is-active`, None where systemd does not run."""

    installed: bool
    active: str | None


def state(unit: Unit) -> State:
    """Return the state of a unit.

    Raises:
        RefusedError: when the file is not ours.
    """
    _require_ours(unit.path)
    if not booted():
        return State(unit.path.exists(), None)
    command = ["systemctl", f"--{unit.scope}", "is-active", unit.name]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return State(unit.path.exists(), done.stdout.strip() or "unknown")


def _require_ours(path: Path) -> None:
    try:
        foreign = path.exists() and not path.read_text("utf-8", errors="replace").startswith(MARK)
    except OSError as error:
        raise RefusedError("unit-unreadable", f"{path} can't be read: {error.strerror}.") from error
    if foreign:
        raise RefusedError(
            "foreign-unit",
            f"{path} exists and was not written by clawker-fw.",
            hint="Remove that file, or choose another name for this stack with --project.",
        )


def _systemctl(scope: ServiceScope, *arguments: str) -> None:
    command = ["systemctl", f"--{scope}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise RefusedError(
            "systemctl-failed",
            f"`{' '.join(command)}` failed.",
            context=(done.stderr or done.stdout).strip().splitlines(),
        )


KEPT_VARIABLES = frozenset(
    f"DOCKER_{name}" for name in ("HOST", "CONTEXT", "CONFIG", "CERT_PATH", "TLS", "TLS_VERIFY")
)
"""Docker's own variables that choose an engine: the service keeps their values from the installation."""


def kept(environment: Mapping[str, str], prefix: str, others: frozenset[str]) -> dict[str, str]:
    """Return the environment variables that a service keeps: settings, and the choice of the engine.

    `others` are names that follow the prefix and are no settings.
    """
    return {
        name: value
        for name, value in sorted(environment.items())
        if name in KEPT_VARIABLES or (name.startswith(prefix) and name.removeprefix(prefix) not in others)
    }


def default_scope() -> ServiceScope:
    """Return the system scope for root, and the user scope for everybody else."""
    return ServiceScope.SYSTEM if os.geteuid() == 0 else ServiceScope.USER
