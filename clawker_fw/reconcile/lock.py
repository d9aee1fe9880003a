"""One writer at a time, for a project on an engine.

The lock lives in the engine, so that it holds across client machines: a container that is never started, whose
name only one client can take. Its labels say who holds it. A holder on this machine that is no longer alive is
recognised by its process id and start time, and its lock is taken over.
"""

import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import ConflictError, RefusedError
from clawker_fw.model import ContainerSpec, ContainerView, Shape
from clawker_fw.stack import labels
from clawker_fw.stack.images import BuiltImage

_PREFIX = labels.PREFIX + "lock."
_HOST, _USER, _PROCESS, _SINCE, _COMMAND = (
    _PREFIX + name for name in ("host", "user", "process", "since", "command")
)
_ATTEMPTS = 3


def lock_name(project: str) -> str:
    """Return what the lock's container is called."""
    return f"{project}-lock"


@contextmanager
def exclusive(engine: EngineWriter, project: str, image: BuiltImage) -> Iterator[None]:
    """Hold the lock.

    Raises:
        RefusedError: when another run holds it, or something of that name is not ours.
    """
    if engine.image(image.reference) is None:
        engine.load_image(image.archive(), image.archive_size, lambda _: None)
    container = _acquire(engine, project, image)
    try:
        yield
    finally:
        engine.remove(container)


def _acquire(engine: EngineWriter, project: str, image: BuiltImage) -> str:
    spec = ContainerSpec(
        name=lock_name(project),
        image=image.reference,
        labels={**labels.ownership_labels(project), **holder()},
        shape=Shape(entrypoint=("never-started",), command=(), networks={}),
    )
    for _ in range(_ATTEMPTS):
        try:
            return engine.create_container(spec)
        except ConflictError:
            held = next(iter(engine.containers({spec.name})), None)
            if held is not None:
                _require_abandoned(held, project)
                engine.remove(held.id)
    raise RefusedError("lock-contended", "Several runs are after the lock at once.", hint="Run again.")


def _require_abandoned(held: ContainerView, project: str) -> None:
    """Pass when the holder was a process of this machine that is gone."""
    if not labels.is_ours(held.labels, project):
        raise RefusedError(
            "foreign-container",
            f"There is a container called {held.name} that this firewall did not make.",
            hint="Rename or remove it, or choose another name for this stack with --project.",
        )
    host, process = held.labels.get(_HOST, ""), held.labels.get(_PROCESS, "")
    here = holder()
    if host == here[_HOST] and process != here[_PROCESS] and not _is_alive(process):
        return
    raise RefusedError(
        "lock-held",
        f"Another run is at work on {project}.",
        context=[
            f"{held.labels.get(_COMMAND, '?')}, since {held.labels.get(_SINCE, '?')}",
            f"by {held.labels.get(_USER, '?')} on {host.partition(' ')[0]}, process {process.partition(' ')[0]}",
        ],
        hint=f"Wait for it. If it is gone for good, remove the container {held.name}.",
    )


def holder() -> Mapping[str, str]:
    """Return the labels that say who this process is."""
    return {
        _HOST: f"{platform.node()} {_machine()}",
        _USER: os.environ.get("USER") or str(os.getuid()),
        _PROCESS: f"{os.getpid()} {_started(os.getpid())}",
        _SINCE: datetime.now(UTC).isoformat(timespec="seconds"),
        _COMMAND: shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _machine() -> str:
    """Return what tells this boot of this machine, and this process namespace, from every other."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return str(platform.node())  # not Linux: no namespaces to tell apart


def _is_alive(process: str) -> bool:
    identity, _, started = process.partition(" ")
    return _started(int(identity)) == started if identity.isdigit() else False


def _started(process: int) -> str:
    """Return when a process started, in clock ticks since boot (proc(5), field 22); empty when it is gone."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return _exists(process)
    state, *fields = status.rpartition(")")[2].split()
    return "" if state == "Z" else fields[18]


def _exists(process: int) -> str:
    """Say whether a process is there, on a system without /proc."""
    if Path("/proc/self").exists():
        return ""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "running"
    return "running"
