"""Running an agent: its container is created, judged by what the engine says of it, and started or removed."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from clawker_fw.agents.attachment import Attachment
from clawker_fw.agents.docker_options import RunWords
from clawker_fw.agents.exposure import HINT
from clawker_fw.agents.judge import resolving
from clawker_fw.agents.trust import Known, roots_of, trust_for
from clawker_fw.cli.docker_cli import FAILED, RUN_FAILED, DockerCli
from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.errors import EngineError, RefusedError, after
from clawker_fw.model import Sibling
from clawker_fw.reconcile.entrust import known_to, provide
from clawker_fw.reconcile.observe import with_agent
from clawker_fw.reconcile.pipeline import Comparison
from clawker_fw.stack import policy

_NOT_EXECUTED = frozenset({126, 127})
"""What engines record as the exit code of a command that can't be executed, or is not there."""

_REMOVAL_SECONDS = 10.0
"""How long an engine may take to remove a container that has ended."""


def entrusted(
    engine: EngineWriter, seen: Comparison, attached: Attachment, known: Callable[[], Known]
) -> Attachment:
    """Return how an agent is attached with what it has to trust, which the engine keeps from now on.

    `known` returns what it trusts by itself. It is not asked if the stack inspects no connection.

    Raises:
        EngineError, RefusedError: when the engine can't keep it.
    """
    if not (roots := roots_of(seen.observed)):
        return attached
    trust = trust_for(seen.desired.project, roots, known())
    provide(engine, seen.desired.project, seen.observed, trust)
    return replace(attached, trust=trust)


def run_agent(
    engine: EngineWriter, seen: Comparison, docker: DockerCli, attached: Attachment, wanted: RunWords
) -> int:
    """Create an agent's container, and start it if it is confined. Returns the exit code of `docker run`.

    Where the stack inspects connections, it is created twice: the first container shows what it trusts by itself.

    Raises:
        RefusedError: when it is not confined, or can't be judged. It has been removed.
        KeyboardInterrupt: when a signal has come before it was started. It has been removed.
    """
    container = _created(docker, attached, wanted)
    if isinstance(container, str) and roots_of(seen.observed):
        first = container
        with _removed_after_error(docker, first, wanted):
            attached = entrusted(engine, seen, attached, lambda: known_to(engine, first))
        _remove(docker, first, wanted)
        docker.go_on()
        container = _created(docker, attached, wanted)
    if isinstance(container, int):
        docker.go_on()
        return container
    with _removed_after_error(docker, container, wanted):
        require_confined(engine, seen, container)
        removal = engine.removal(container) if wanted.removed else None
        docker.go_on()
    return _start(engine, docker, container, wanted, removal)


def _created(docker: DockerCli, attached: Attachment, wanted: RunWords) -> str | int:
    return docker.create([*attached.flags, *wanted.create])


@contextmanager
def _removed_after_error(docker: DockerCli, container: str, wanted: RunWords) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        with after(error, "It was created, and could not be removed"):
            _remove(docker, container, wanted)
        raise


def _remove(docker: DockerCli, container: str, wanted: RunWords) -> None:
    docker.remove(container)
    if wanted.cid_file:  # with it, docker would refuse to create another one with the same command
        with suppress(OSError):
            Path(wanted.cid_file).unlink()


def require_confined(engine: EngineReader, seen: Comparison, container: str) -> None:
    """Require that a container, once it runs, is an agent that `status` calls fenced, and publishes no port.

    Raises:
        RefusedError: when it is not, with every reason, or when it can't be judged.
    """
    try:
        observed = with_agent(engine, seen.desired.project, seen.observed, container)
    except EngineError as error:
        raise RefusedError(
            "agent-unconfined",
            "The agent was not started, because the engine does not say how its container was created.",
            context=[error.in_one_line],
        ) from error
    (view,) = (each for each in observed.agents if each.id == container)
    if view.shape.ports or view.shape.publish_all:
        raise RefusedError(
            "agent-unreachable",
            "The agent was not started, because it would publish a port: its network leads nowhere, so nobody "
            "would reach it there.",
            hint="Leave out --publish and --publish-all.",
        )
    now = time.time()
    live, wanted = resolving(observed, now), policy.answers(seen.desired.siblings[Sibling.COREDNS].hot, now)
    judged = seen.judged(observed, lambda name: live(name) or wanted(name))
    (agent,) = (each for each in judged if each.id == container)
    if reasons := (*agent.openings, *agent.weaknesses):
        codes = {each.code for each in reasons}
        hints = (
            "A container that needs this is no agent: start it with docker itself.",
            HINT if "settings" in codes else "",
            "If the engine sends logs by default, `--log-driver local` keeps them." if "log" in codes else "",
        )
        raise RefusedError(
            "agent-unconfined",
            f"The agent was not started, because {'; '.join(each.phrase for each in reasons)}.",
            hint=" ".join(filter(None, hints)),
        )


def _start(
    engine: EngineReader, docker: DockerCli, container: str, wanted: RunWords, removal: Future[int] | None
) -> int:
    """Start a container, and return the exit code that `docker run` would have.

    `docker start` has one code for every failure. What the engine has recorded says which one it was.
    """
    code = docker.start(container, wanted)
    if code == 0:
        return code
    view, last = None, FAILED
    with suppress(EngineError, TimeoutError):
        view = engine.container(container)
        if removal and code == FAILED:
            last = removal.result(_REMOVAL_SECONDS)
    never_started = view is not None and view.status == "created"
    if never_started and docker.stopped:
        docker.remove(container)
        raise KeyboardInterrupt
    if code != FAILED:
        return code
    if view and never_started:
        last = view.exit_code
    elif last == FAILED:
        return code
    return last if last in _NOT_EXECUTED else RUN_FAILED
