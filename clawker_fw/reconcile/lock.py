"""One writer at a time, for a project on an engine.

The lock lives in the engine, so that it holds across client machines: a container that is never started, whose
name only one client can take. Its labels say who holds it, and a file in its volume is written every few seconds
while its holder is at work: the lease. A holder on this machine that is no longer alive is known by its process
id and start time, and one anywhere by a lease that has not been renewed; in both cases the lock is taken over. No
two clocks are ever compared: who waits watches the lease change, by its own clock.

An engine may be slow, for one of the two or for both. So a renewal never waits for the one before it to arrive, a
holder says in a label for how long it may be silent, by how long the engine took to answer it, and whoever waits
adds the time that the engine takes to answer the question.
"""

import itertools
import logging
import os
import platform
import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from clawker_fw.background import in_background
from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import (
    ConflictError,
    EngineError,
    LockLostError,
    NotFoundError,
    RefusedError,
    StoppedError,
)
from clawker_fw.model import ContainerSpec, ContainerSummary, ContainerView, Mount, Observed, Shape
from clawker_fw.stack import labels
from clawker_fw.stack.container import VOLUME, lock_name
from clawker_fw.stack.files import public
from clawker_fw.stack.image_tar import BuiltImage

LEASE_SECONDS = 10.0
"""How long a holder that can't be seen from here may be silent before it is taken for gone."""

LOG = logging.getLogger("clawker_fw")

_HELD: set[str] = set()
"""The containers of the locks that this process holds: one that it could not give back is not among them."""

_LEASE = "lease"
_RENEW_SECONDS = LEASE_SECONDS / 4
_LEASE_ANSWERS = 4
"""A lease lasts for at least so many answers of the engine, as long as the one that its holder has waited for."""
_LONGEST_LEASE = 120.0
_LONGEST_IDENTITY = 10
"""Digits of a process id; more are none."""
_LOOK_SECONDS = 0.5
_RETRY_SECONDS = 0.02
_SILENCE = f"{labels.PREFIX}lock.lease"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, in its own words; `since` is RFC 3339, `process` an id on that host."""

    host: str
    user: str
    process: str
    since: str
    command: str


def at_work(lock: ContainerSummary | None) -> Holder | None:
    """Return who holds a lock; None when nobody does, or nobody who is still alive."""
    if lock is None or abandoned(lock):
        return None
    host, user, process, since, command = (lock.labels.get(label, "?") for label in labels.LOCK)
    return Holder(host.partition(" ")[0], user, process.partition(" ")[0], since, command)


def abandoned(lock: ContainerSummary) -> bool:
    """Whether a lock's holder is known to be gone: a process of this machine that has ended."""
    return not _may_be_alive(lock)


def remove_abandoned(engine: EngineWriter, observed: Observed) -> None:
    """Remove the lock of a run that was killed as it gave it back."""
    if observed.lock and abandoned(observed.lock):
        engine.remove(observed.lock.id)


class Lock:
    """The lock of one project; hold it as a context. `wait` is in seconds, for a holder that is at work."""

    def __init__(
        self,
        engine: EngineWriter,
        project: str,
        image: BuiltImage,
        wait: float = 0,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Name the lock; nothing is asked of the engine yet."""
        self._engine = engine
        self._project = project
        self._image = image
        self._wait = wait
        self._stopping = stopping
        self._container = ""
        self.waited = False
        """Whether somebody else had it, when it was asked for."""
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lock-lease", daemon=True)

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            RefusedError: when another run holds it, or something of that name is not ours.
            StoppedError: when the user asked to stop while it was waited for.
        """
        asked = time.monotonic()
        there = self._engine.image(self._image.reference)
        answered = time.monotonic() - asked
        if there is None:
            self._engine.load_image(self._image.archive(), self._image.archive_size, lambda _: None)
        self._container = self._acquire(min(max(LEASE_SECONDS, _LEASE_ANSWERS * answered), _LONGEST_LEASE))
        _HELD.add(self._container)
        self._renewer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back."""
        self._ended.set()
        self._renewer.join()
        _HELD.discard(self._container)
        self._engine.remove(self._container)

    def require_held(self) -> None:
        """Pass while the lock is ours.

        Raises:
            LockLostError: when another client has taken it over, because we were silent for too long.
        """
        held = self._engine.container(lock_name(self._project))
        if held is None or held.id != self._container:
            raise LockLostError(
                "lock-lost",
                "Another run has taken the lock over, because this one was not heard of for too long.",
                hint="Run again: what was begun is finished then.",
            )

    def _renew(self) -> None:
        """Send a sign of life at an interval, whether the last one has arrived or not."""
        for number in itertools.count(1):
            in_background(self._send, str(number).encode())
            if self._ended.wait(_RENEW_SECONDS):
                return

    def _send(self, sign: bytes) -> None:
        try:
            self._engine.put_files(self._container, {_LEASE: public(sign)})
        except EngineError as error:
            if not self._ended.is_set():
                LOG.warning("lock_not_renewed", extra={"fields": {"reason": str(error)}})

    def _acquire(self, silence: float) -> str:
        spec = ContainerSpec(
            name=lock_name(self._project),
            image=self._image.reference,
            labels={**labels.ownership_labels(self._project), **holder(), _SILENCE: f"{silence:.0f}"},
            shape=Shape(("never-started",), (), {}, mounts=(Mount("volume", VOLUME),)),
        )
        end = time.monotonic() + self._wait
        watch = _LeaseWatch()
        while True:
            if self._stopping():
                raise StoppedError(
                    "stopped", "Stopped, as asked, while another run is at work.", hint="Nothing has been done."
                )
            try:
                return self._engine.create_container(spec)
            except ConflictError:
                self.waited = True
                held = self._engine.container(spec.name)
            if held is None:
                time.sleep(_RETRY_SECONDS)
                continue
            self._require_ours(held)
            asked = time.monotonic()
            if not _may_be_alive(held) or watch.silent(held, self._lease(held.id), asked):
                self._engine.remove(held.id)
            elif time.monotonic() < end or not (_is_here(held) or watch.renewed):
                time.sleep(_LOOK_SECONDS)
            else:
                raise _held(held, self._project)

    def _lease(self, container: str) -> bytes:
        try:
            return self._engine.files(container).get(_LEASE, public(b"")).content
        except NotFoundError:
            return b""

    def _require_ours(self, held: ContainerView) -> None:
        if not labels.is_ours(held.labels, self._project, *labels.LOCK):
            raise RefusedError(
                "foreign-container",
                f"There is a container called {held.name} that this firewall did not make.",
                hint="Rename or remove it, or choose another name for this stack with --project.",
            )


class _LeaseWatch:
    """Watches a lease for as long as it may be silent, by this machine's clock."""

    def __init__(self) -> None:
        self._seen: tuple[str, bytes] | None = None
        self._since = time.monotonic()
        self._slowest = 0.0
        self.renewed = False

    def silent(self, held: ContainerView, lease: bytes, asked: float) -> bool:
        """Take in what the lease says now; whether it has not changed for a whole lease.

        `asked` is when the engine was asked for it: while it is slow to answer us, it is so for the holder.
        """
        now = time.monotonic()
        self._slowest = max(self._slowest, now - asked)
        if self._seen != (held.id, lease):
            self.renewed = self._seen is not None and self._seen[0] == held.id
            self._seen, self._since = (held.id, lease), now
        return now - self._since >= _lease_seconds(held) + self._slowest


def _lease_seconds(held: ContainerView) -> float:
    """Return for how long a holder may be silent; no label makes that endless."""
    stated = held.labels.get(_SILENCE, "")
    return min(max(LEASE_SECONDS, float(stated) if stated.isdecimal() else 0), _LONGEST_LEASE)


def _held(held: ContainerView, project: str) -> RefusedError:
    host, process = held.labels.get(labels.LOCK_HOST, ""), held.labels.get(labels.LOCK_PROCESS, "")
    user = held.labels.get(labels.LOCK_USER, "?")
    return RefusedError(
        "lock-held",
        f"Another run is at work on {project}.",
        context=[
            f"{held.labels.get(labels.LOCK_COMMAND, '?')}, since {held.labels.get(labels.LOCK_SINCE, '?')}",
            f"by {user} on {host.partition(' ')[0]}, process {process.partition(' ')[0]}",
        ],
        hint="Wait for it, or have this run wait with --lock-wait. A holder that is gone is noticed by itself.",
    )


def _is_here(held: ContainerView | ContainerSummary) -> bool:
    return held.labels.get(labels.LOCK_HOST) == holder()[labels.LOCK_HOST]


def _may_be_alive(held: ContainerView | ContainerSummary) -> bool:
    """Whether the holder can be at work: elsewhere, or a process here that still runs, or this one itself."""
    if not _is_here(held):
        return True
    if held.labels.get(labels.LOCK_PROCESS) == holder()[labels.LOCK_PROCESS]:
        return held.id in _HELD
    return _is_alive(held.labels.get(labels.LOCK_PROCESS, ""))


def holder() -> Mapping[str, str]:
    """Return the labels that say who this process is."""
    return {
        labels.LOCK_HOST: f"{platform.node()} {_machine()}",
        labels.LOCK_USER: os.environ.get("USER") or str(os.getuid()),
        labels.LOCK_PROCESS: f"{os.getpid()} {_started(os.getpid())}",
        labels.LOCK_SINCE: datetime.now(UTC).isoformat(timespec="seconds"),
        labels.LOCK_COMMAND: shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
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
    known = identity.isascii() and identity.isdigit() and len(identity) <= _LONGEST_IDENTITY
    return known and _started(int(identity)) == started


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
