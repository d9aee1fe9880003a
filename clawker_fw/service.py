"""The watcher as a service of systemd: the unit, and having it started at boot.

Options of a unit: systemd.service(5), systemd.exec(5). How words are quoted: systemd.syntax(7).
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

MARK = "# Written by `clawker-fw service install`, which replaces only files that begin with this line.\n"

_SYSTEM_FOLDER = Path("/etc/systemd/system")
_BOOTED = Path("/run/systemd/system")
"""Exists when systemd runs this machine (sd_booted(3))."""


class Scope(StrEnum):
    """Whose service it is: the machine's, or a user's."""

    SYSTEM = "system"
    USER = "user"


@dataclass(frozen=True)
class Unit:
    """What a unit is written from. `arguments` follow the program's name, `interval` is in seconds.

    `socket` is where metrics are served, when that is a unix socket.
    """

    scope: Scope
    project: str
    arguments: Sequence[str]
    interval: float
    variables: Mapping[str, str] = field(default_factory=dict)
    socket: Path | None = None

    @property
    def name(self) -> str:
        """What systemd calls it."""
        return f"clawker-fw-{self.project}.service"

    @property
    def path(self) -> Path:
        """Where it is written."""
        match self.scope:
            case Scope.SYSTEM:
                return _SYSTEM_FOLDER / self.name
            case Scope.USER:
                return platformdirs.user_config_path() / "systemd" / "user" / self.name
            case _:
                assert_never(self.scope)

    def text(self) -> str:
        """Return the unit's file.

        Raises:
            RefusedError: when a word can't be written into a unit.
        """
        # -P: the folder it is started in is no place to import from.
        command = [sys.executable, "-P", "-m", "clawker_fw", *self.arguments]
        lines = [
            "[Unit]",
            f"Description=Keeps the egress firewall {self.project} current",
            *(["After=docker.service"] if self.scope is Scope.SYSTEM else []),
            "# However often it ends: it is to be started again.",
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
            *(self._system() if self.scope is Scope.SYSTEM else _USER),
            "",
            "[Install]",
            f"WantedBy={'multi-user.target' if self.scope is Scope.SYSTEM else 'default.target'}",
        ]
        return MARK + "\n".join(lines) + "\n"

    def _system(self) -> list[str]:
        runtime = Path("/run") / self.name.removesuffix(".service")
        elsewhere = [] if self.socket is None or self.socket.parent == runtime else [self.socket.parent]
        return [
            *_SYSTEM,
            f"RuntimeDirectory={runtime.name}",
            *(f"ReadWritePaths={quoted(f'-{path}', variables=False)}" for path in elsewhere),
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
    "# It has to read settings, and a Python, wherever they are; it never writes.",
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
    "# Not ProtectProc: whether another run is alive is seen in /proc.",
    "ProtectSystem=strict",
    "RemoveIPC=yes",
    "CacheDirectory=clawker-fw",
    "Environment=XDG_CACHE_HOME=%C",
)

_USER = ("# What needs a mount namespace or capabilities is not to be had for a user's service.",)


def quoted(word: str, *, variables: bool = True) -> str:
    """Return a word as a unit has it: quoted, no specifiers in it, and no variables where systemd puts some in.

    Raises:
        RefusedError: when it has a line break or another control character.
    """
    if not word.isprintable():
        raise RefusedError("unit-unwritable", f"{word!r} can't be written into a unit.")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if variables:
        escaped = escaped.replace("$", "$$")
    plain = escaped == word and not any(character in " ';" for character in word) and word
    return escaped if plain else f'"{escaped}"'


def booted() -> bool:
    """Whether systemd runs this machine, so that it can be told to start something."""
    return _BOOTED.is_dir()


def install(unit: Unit) -> bool:
    """Write a unit and have it started, now and at boot; whether it was started.

    Raises:
        RefusedError: when there is a unit that we did not write, or it can't be written or started.
    """
    text = unit.text()
    _require_ours(unit.path)
    fresh = unit.path.with_name(f".{unit.path.name}.new")
    try:
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(unit.path)
    except OSError as error:
        raise RefusedError(
            "unit-unwritable", f"{unit.path} can't be written: {error.strerror}.", hint="System units are root's."
        ) from error
    if not booted():
        return False
    _systemctl(unit.scope, "daemon-reload")
    _systemctl(unit.scope, "enable", unit.name)
    _systemctl(unit.scope, "restart", unit.name)
    return True


def uninstall(unit: Unit) -> bool:
    """Stop a unit and remove it; whether there was one.

    Raises:
        RefusedError: when we did not write it, or it can't be stopped or removed.
    """
    _require_ours(unit.path)
    if not unit.path.exists():
        return False
    if booted():
        _systemctl(unit.scope, "disable", "--now", unit.name)
    try:
        unit.path.unlink()
    except OSError as error:
        raise RefusedError("unit-unwritable", f"{unit.path} can't be removed: {error.strerror}.") from error
    if booted():
        _systemctl(unit.scope, "daemon-reload")
    return True


@dataclass(frozen=True, slots=True)
class State:
    """What there is of a unit. `active` is systemd's word, or None where systemd does not run."""

    installed: bool
    active: str | None


def state(unit: Unit) -> State:
    """Look at a unit.

    Raises:
        RefusedError: when we did not write it.
    """
    _require_ours(unit.path)
    if not booted():
        return State(unit.path.exists(), None)
    command = ["systemctl", f"--{unit.scope}", "is-active", unit.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return State(unit.path.exists(), done.stdout.strip() or "unknown")


def _require_ours(path: Path) -> None:
    try:
        foreign = path.exists() and not path.read_text("utf-8", errors="replace").startswith(MARK)
    except OSError as error:
        raise RefusedError("unit-unreadable", f"{path} can't be read: {error.strerror}.") from error
    if foreign:
        raise RefusedError(
            "foreign-unit",
            f"{path} was not written by this program.",
            hint="Remove it, or choose another name for this stack with --project.",
        )


def _systemctl(scope: Scope, *arguments: str) -> None:
    command = ["systemctl", f"--{scope}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RefusedError(
            "systemctl-failed",
            f"`{' '.join(command)}` failed.",
            context=(done.stderr or done.stdout).strip().splitlines(),
        )


KEPT_VARIABLES = frozenset(
    f"DOCKER_{name}" for name in ("HOST", "CONTEXT", "CONFIG", "CERT_PATH", "TLS", "TLS_VERIFY")
)
"""By which an engine is found, beside our own: what holds at the installation is to hold for the service."""


def kept(environment: Mapping[str, str], prefix: str, options: frozenset[str]) -> dict[str, str]:
    """Return the variables that a service needs: those of settings, and those by which an engine is found."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name in KEPT_VARIABLES or (name.startswith(prefix) and name.removeprefix(prefix) not in options)
    }


def default_scope() -> Scope:
    """Return root's scope, or that of everybody else."""
    return Scope.SYSTEM if os.geteuid() == 0 else Scope.USER
