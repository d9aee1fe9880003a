"""The lock that admits one writer at a time to a project on an engine.

The lock is a container that is never started: only one client on any machine can take its name. Its labels
identify the holder, which renews a lease, a file in the container's volume, every few seconds. Another client
takes the lock over if the holder's process on this machine has ended (by process id and start time), or if any
holder's lease has expired. Clocks of two machines are never compared: a waiting client measures with its own clock
how long the lease has not changed.

An engine may be slow for either client. So renewals don't wait for each other, a waiting client adds the time of
its own requests, and the lease is valid for a multiple of the last renewal's time.

Without room on the disk for the container, a run goes on without a lock (`Lock.full`). It then performs only steps
that need no room and exclude others anyway.
"""

import itertools
import logging
import os
import platform
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from clawker_fw.background import in_background
from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import (
    ConflictError,
    DiskFullError,
    EngineError,
    LockLostError,
    NotFoundError,
    RefusedError,
    StoppedError,
    after,
)
from clawker_fw.model.containers import ContainerSpec, ContainerSummary, ContainerView, Mount, Shape
from clawker_fw.model.observed import Observed
from clawker_fw.reconcile.containers import create_from
from clawker_fw.stack import labels
from clawker_fw.stack.container import VOLUME, lock_name
from clawker_fw.stack.files import public
from clawker_fw.stack.image_tar import BuiltImage
from clawker_fw.stack.labels import is_lock

LOG = logging.getLogger("clawker_fw")

LEASE_SECONDS = 20.0
"""How long a lease is valid at least. After that, a holder without a renewal counts as gone."""

_LEASE_ANSWERS = 4
"""A lease is valid for at least this many times as long as the last renewal took."""
_LONGEST_LEASE = 120.0

_HELD: set[str] = set()
"""This process's one-shot containers and locks, except locks that it failed to release."""

_LEASE = "lease"
_RENEW_SECONDS = 2.5
_LONGEST_IDENTITY = 10
"""The most digits of a process id."""
_LOOK_SECONDS = 0.5
_RETRY_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a lock, according to its labels."""

    host: str
    user: str
    process: str
    """The process id on the host."""
    since: str
    """RFC 3339, UTC."""
    command: str


def at_work(lock: ContainerSummary | None) -> Holder | None:
    """Return the holder of a lock, or None if it is free or abandoned."""
    return None if lock is None or abandoned(lock) else _holder_of(lock)


def _holder_of(lock: ContainerSummary | ContainerView) -> Holder:
    host, user, process, since, command = (lock.labels.get(label, "?") for label in labels.LOCK)
    return Holder(host.partition(" ")[0], user, process.partition(" ")[0], since, command)


def abandoned(lock: ContainerSummary | ContainerView) -> bool:
    """Whether the process that holds a lock or a one-shot container was on this machine and has ended."""
    if not is_here(lock):
        return False
    if lock.labels.get(labels.LOCK_PROCESS) == holder()[labels.LOCK_PROCESS]:
        return lock.id not in _HELD
    return not _is_alive(lock.labels.get(labels.LOCK_PROCESS, ""))


@contextmanager
def in_use(container: str) -> Iterator[None]:
    """Count a container as held by this process."""
    _HELD.add(container)
    try:
        yield
    finally:
        _HELD.discard(container)


def remove_abandoned(engine: EngineWriter, observed: Observed) -> None:
    """Remove the lock and the one-shot container of runs that were killed."""
    for container in (observed.lock, observed.trial):
        if container and abandoned(container):
            engine.remove(container.id)


class Lock:
    """The lock of one project, as a context manager. `wait` is how many seconds to wait for it."""

    def __init__(
        self,
        engine: EngineWriter,
        project: str,
        image: BuiltImage,
        wait: float = 0,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine
        self._project = project
        self._image = image
        self._wait = wait
        self._stopping = stopping
        self.container = ""
        """The id of the lock's container, or an empty string."""
        self.waited = False
        """Whether another run held the lock at first."""
        self.full: DiskFullError | None = None
        """Why there is no lock although it is free: the engine's disk is full."""
        self._seconds_to_renew = 0.0
        self._failing = False  # only the first failure of a series of renewals is reported
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lock-lease", daemon=True)

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            RefusedError: if another run holds it, or a foreign container has its name.
            StoppedError: if the user asks to stop while this run waits.
        """
        try:
            self.container = self._acquire()
        except DiskFullError as full:
            self.full = full
            if (held := self._holder()) is not None:
                raise _held(held, self._project) from full
            return self
        _HELD.add(self.container)
        self._renewer.start()
        return self

    def _holder(self) -> ContainerView | None:
        held = self._engine.container(lock_name(self._project))
        return None if held is None or abandoned(held) else held

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock. A failure never masks an earlier error.

        Raises:
            EngineError: if the work is done, but the lock could not be released.
        """
        self._ended.set()
        if self.full:
            return
        self._renewer.join()
        _HELD.discard(self.container)
        with after(error, "the lock was not released either"):
            try:
                self._engine.remove(self.container)
            except EngineError as trouble:
                raise EngineError(
                    "lock-not-released",
                    f"The lock of {self._project} could not be released.",
                    context=[trouble.in_one_line],
                    hint="The work itself is complete. The next run takes over the lock.",
                ) from trouble

    def require_held(self) -> None:
        """Check that this run still holds the lock.

        Raises:
            LockLostError: if another client took it over because the lease was not renewed in time.
        """
        if self.full and self._holder() is None:
            return
        held = self._engine.container(lock_name(self._project))
        if held is None or held.id != self.container:
            raise LockLostError(
                "lock-lost",
                "Another run has taken over the lock, because this one did not renew its lease in time.",
                hint="Run again to complete what was begun.",
            )

    def _renew(self) -> None:
        """Renew the lease at a fixed interval, even while earlier renewals are under way."""
        for number in itertools.count(1):
            in_background(self._send, f"{number} {_LEASE_ANSWERS * self._seconds_to_renew:.0f}".encode())
            if self._ended.wait(_RENEW_SECONDS):
                return

    def _send(self, lease: bytes) -> None:
        begun = time.monotonic()
        try:
            self._engine.put_files(self.container, {_LEASE: public(lease)})
        except EngineError as error:  # the next one may arrive; `require_held` is what counts
            failing, self._failing = self._failing, True
            if not (failing or self._ended.is_set()):
                line = f"the lock could not be renewed: {error.in_one_line}"
                LOG.warning("lock_not_renewed", extra={"fields": error.fields, "line": line})
        else:
            self._failing = False
        self._seconds_to_renew = time.monotonic() - begun

    def _acquire(self) -> str:
        spec = ContainerSpec(
            name=lock_name(self._project),
            image=self._image.reference,
            labels={**labels.ownership_labels(self._project), **holder()},
            shape=Shape(("never-started",), (), {}, mounts=(Mount("volume", VOLUME),)),
        )
        end = time.monotonic() + self._wait
        watch = LeaseWatch()
        while True:
            if self._stopping():
                raise StoppedError(
                    "stopped",
                    "Stopped on request while waiting for another run.",
                    hint="Nothing has been changed.",
                )
            try:
                return create_from(self._engine, spec, self._image)
            except ConflictError:
                self.waited = True
                held = self._engine.container(spec.name)
            if held is None:
                time.sleep(_RETRY_SECONDS)
                continue
            if not is_lock(held, self._project):
                raise RefusedError(
                    "foreign-container",
                    f"The name {held.name} is taken by a container that this firewall did not create.",
                    hint="Rename or remove it, or choose another project with --project.",
                )
            asked = time.monotonic()
            if abandoned(held) or watch.silent(held.id, self._lease(held.id), asked):
                self._engine.remove(held.id)
            elif time.monotonic() < end or not (is_here(held) or watch.renewed):
                time.sleep(_LOOK_SECONDS)
            else:
                raise _held(held, self._project)

    def _lease(self, container: str) -> bytes:
        try:
            return self._engine.files(container).get(_LEASE, public(b"")).content
        except NotFoundError:
            return b""


class LeaseWatch:
    """Measures by this machine's clock how long a lease has not changed."""

    def __init__(self) -> None:
        self._last: tuple[str, bytes] | None = None
        self._since = time.monotonic()
        self._slowest = 0.0
        self.renewed = False

    def silent(self, container: str, lease: bytes, asked: float) -> bool:
        """Record a lease's content, requested at `asked`, and return whether the lease has expired."""
        now = time.monotonic()
        self._slowest = max(self._slowest, now - asked)
        if self._last != (container, lease):
            self.renewed = self._last is not None and self._last[0] == container
            self._last, self._since = (container, lease), now
        stated = lease.partition(b" ")[2]  # an earlier release does not say for how long it is valid
        valid = min(float(stated), _LONGEST_LEASE) if stated.isdigit() else 0.0
        return now - self._since >= max(LEASE_SECONDS, valid) + self._slowest


def _held(held: ContainerView, project: str) -> RefusedError:
    by = _holder_of(held)
    return RefusedError(
        "lock-held",
        f"Another run is at work on {project}.",
        context=[f"by {by.command}, since {by.since}", f"by {by.user} on {by.host}, process {by.process}"],
        hint="Wait for it, or let this run wait with --lock-wait. An abandoned lock is taken over automatically.",
    )


def is_here(held: ContainerView | ContainerSummary) -> bool:
    """Whether a container's holder is, or was, a process on this machine."""
    return held.labels.get(labels.LOCK_HOST) == holder()[labels.LOCK_HOST]


def holder() -> Mapping[str, str]:
    """Return the labels that identify this process."""
    return {
        labels.LOCK_HOST: f"{platform.node()} {_machine()}",
        labels.LOCK_USER: os.environ.get("USER") or str(os.getuid()),
        labels.LOCK_PROCESS: f"{os.getpid()} {start_time(os.getpid())}",
        labels.LOCK_SINCE: datetime.now(UTC).isoformat(timespec="seconds"),
        labels.LOCK_COMMAND: " ".join((Path(sys.argv[0]).name, *_verbs(sys.argv[1:]))),
    }


_VERB = re.compile("[a-z]{2,20}")
_MOST_VERBS = 2


def _verbs(words: Sequence[str]) -> Sequence[str]:
    """Return a command line's verbs only: other arguments may be secrets, and engines put labels into events."""
    before = 0
    while before < len(words) and words[before].startswith("-"):
        before += 1 if "=" in words[before] else 2
    return list(itertools.takewhile(_VERB.fullmatch, words[before : before + _MOST_VERBS]))


def _machine() -> str:
    """Return an identifier of this boot and process namespace or, without `/proc`, of this process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"process {os.getpid()}"


def _is_alive(process: str) -> bool:
    identity, _, started = process.partition(" ")
    is_number = identity.isascii() and identity.isdigit() and len(identity) <= _LONGEST_IDENTITY
    return is_number and start_time(int(identity)) == started


def start_time(process: int) -> str:
    """Return a process's start time in clock ticks since boot (proc(5), field 22), or empty if it has ended."""
    try:
        status = os.fsdecode(Path(f"/proc/{process}/stat").read_bytes())  # a program's name has any bytes
    except OSError:
        return ""
    state, *fields = status.rpartition(")")[2].split()
    return "" if state == "Z" else fields[18]
