"""One-shot containers of ours, which are removed when they are done.

Their name admits one of them at a time. One that was killed is removed by the next one, by `run` or by `down`,
because its labels name its holder. One of them asks the Docker host's kernel for what the siblings need.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import ConflictError, EngineError, RefusedError, after
from clawker_fw.model.containers import ContainerSpec
from clawker_fw.reconcile.containers import create_from
from clawker_fw.reconcile.lock import abandoned, holder, in_use, is_here
from clawker_fw.stack import labels
from clawker_fw.stack.container import LOG
from clawker_fw.stack.image_tar import BuiltImage

_LOOK_EVERY = 0.05
_MOST_LINES = 1000
_ENDED = {"exited", "dead"}

_KERNEL_SECONDS = 60.0

_REFUSED_LIMIT = "rlimit"
"""What runc calls a limit that it may not set ("error setting rlimit type 7")."""

DROPS_FRAMES = "the packet filter of the Docker host"
"""What `fwctl` names if the packet filter drops traffic between containers."""

ACCEPT_FRAMES = (
    "On that machine, run `sysctl -w net.bridge.bridge-nf-call-iptables=0`, or accept what is bridged in its "
    "FORWARD chain."
)


@contextmanager
def one_shot(
    engine: EngineWriter, project: str, spec: ContainerSpec, seconds: float, image: BuiltImage | None = None
) -> Iterator[tuple[str, ...] | None]:
    """Run a container to its end, and yield its output, or None if it has not ended after `seconds`.

    It is removed after the caller has read the output. `image` is its image, if that is ours.

    Raises:
        RefusedError: if a foreign container has its name.
    """
    readable = replace(spec, shape=replace(spec.shape, log=LOG))
    with in_turn(engine, project, readable, seconds, image) as container:
        engine.start(container)
        end = time.monotonic() + seconds
        while (view := engine.container(container)) and view.status not in _ENDED and time.monotonic() <= end:
            time.sleep(_LOOK_EVERY)
        ended = view is None or view.status in _ENDED
        yield engine.last_words(container, _MOST_LINES) if ended else None


@contextmanager
def in_turn(
    engine: EngineWriter, project: str, spec: ContainerSpec, seconds: float, image: BuiltImage | None = None
) -> Iterator[str]:
    """Create a container once its name is free, yield its id, and remove it.

    A container of another machine counts as abandoned after `seconds`. One whose process is alive on this machine
    is left alone.

    Raises:
        RefusedError: if a foreign container has its name, or such a process does not end.
    """
    container = _created(engine, project, spec, seconds, image)
    try:
        with in_use(container):
            yield container
    except BaseException as error:
        with after(error, f"the container {spec.name} was not removed either"):
            engine.remove(container)
        raise
    engine.remove(container)


def _created(
    engine: EngineWriter, project: str, spec: ContainerSpec, seconds: float, image: BuiltImage | None
) -> str:
    spec = replace(spec, labels={**spec.labels, **holder()})
    turns: dict[str, float] = {}  # by container id: since when it has had the name, because many may take turns
    began = time.monotonic()
    while True:
        try:
            return create_from(engine, spec, image)
        except ConflictError:
            other = engine.container(spec.name)
            if other is None and time.monotonic() > began + seconds:
                raise
        if other and other.project != project:
            raise RefusedError(
                "foreign-container",
                f"The container {spec.name} exists, but clawker-fw did not create it.",
                hint="Rename or remove that container.",
            )
        if other is None:
            time.sleep(_LOOK_EVERY)
        elif abandoned(other):
            engine.remove(other.id)
        elif time.monotonic() > turns.setdefault(other.id, time.monotonic()) + seconds:
            if is_here(other):
                process = other.labels.get(labels.LOCK_PROCESS, "?").partition(" ")[0]
                raise RefusedError(
                    "lock-held",
                    f"Another command uses the container {other.name}, and does not end.",
                    context=[f"process {process} on this machine"],
                    hint="Wait for it or end it, then run this again.",
                )
            engine.remove(other.id)
        else:
            time.sleep(_LOOK_EVERY)


def lacking(
    engine: EngineWriter, project: str, spec: ContainerSpec, image: BuiltImage | None = None
) -> tuple[str, ...]:
    """Return what the kernel lacks, one sentence each. `image` is the container's, if it is ours.

    Raises:
        EngineError: if there is no answer.
    """
    try:
        return _answered(engine, project, spec, image)
    except EngineError as error:
        if not any(_REFUSED_LIMIT in line for line in error.context):
            raise
        needed = (
            f"Envoy needs {spec.shape.ulimits['nofile']} open files, more than the engine may give a container"
        )
        remedy = "raise `LimitNOFILE` of its service, or run `sysctl -w fs.nr_open=1048576`"
        return (f"{needed}: {remedy}: {'; '.join(error.context)}",)


def _answered(
    engine: EngineWriter, project: str, spec: ContainerSpec, image: BuiltImage | None
) -> tuple[str, ...]:
    with one_shot(engine, project, spec, _KERNEL_SECONDS, image) as lines:
        try:
            return tuple(map(str, json.loads((lines or ("",))[-1])["lacking"]))
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(
                "machine-silent",
                "The Docker host's kernel could not be checked for what the firewall needs.",
                context=list((lines or (f"no answer within {_KERNEL_SECONDS:g} s",))[-3:]),
                hint="`clawker-fw doctor` looks for the cause.",
            ) from error


def require_kernel(engine: EngineWriter, project: str, spec: ContainerSpec, image: BuiltImage | None) -> None:
    """Require that the kernel has all that the siblings need.

    Raises:
        EngineError: if it lacks something; the context lists everything.
    """
    if missing := lacking(engine, project, spec, image):
        raise EngineError(
            "machine-lacks",
            "The Docker host's kernel lacks what the firewall needs. Nothing has been changed.",
            context=list(missing),
            hint="Each line says what is needed there. `clawker-fw doctor` checks again.",
        )
