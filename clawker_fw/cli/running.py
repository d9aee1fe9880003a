"""Run an agent: create its container, judge the engine's record of it, and start or remove it."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from clawker_fw.agents.attachment import Attachment
from clawker_fw.agents.docker_options import RunWords, free_number
from clawker_fw.agents.exposure import HINT
from clawker_fw.agents.judge import resolving
from clawker_fw.agents.trusted_roots import roots_of
from clawker_fw.cli.docker_cli import FAILED, RUN_FAILED, DockerCli
from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.errors import ConflictError, EngineError, RefusedError, after
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.reconcile.desired_state import built_images
from clawker_fw.reconcile.observe import with_agent
from clawker_fw.reconcile.pipeline import Comparison, agents_of
from clawker_fw.reconcile.publishing import publish_for
from clawker_fw.reconcile.trust_volume import create_trust_volume, trust_for
from clawker_fw.report import log
from clawker_fw.stack import labels, name_list
from clawker_fw.stack.relay import Publication, PublishedPort, is_relay
from clawker_fw.stack.topology import Addressing

_NOT_EXECUTED = frozenset({126, 127})
"""The recorded exit codes of a command that can't be executed, or does not exist."""

_REMOVAL_SECONDS = 10.0
"""How long an engine may take to remove a container that has ended."""


def with_trust_volume(engine: EngineWriter, comparison: Comparison, attached: Attachment) -> Attachment:
    """Return how to attach an agent with its trust volume, which the engine keeps from now on.

    Raises:
        EngineError, RefusedError: if the engine can't keep it.
    """
    if not (roots := roots_of(comparison.observed)):
        return attached
    trust = trust_for(comparison.desired.project, roots, comparison.blueprint.authorities)
    create_trust_volume(engine, comparison.desired.project, comparison.observed, trust)
    return replace(attached, trust=trust)


def run_agent(
    engine: EngineWriter, comparison: Comparison, docker: DockerCli, attached: Attachment, run_words: RunWords
) -> int:
    """Create an agent's container, and start it if it is confined. Returns the exit code of `docker run`.

    Raises:
        RefusedError: if it is not confined, or can't be judged. It has been removed.
        KeyboardInterrupt: if a signal came before the start. It has been removed.
    """
    attached = publishing(engine, comparison, attached, run_words.ports)
    container = _created(docker, attached, run_words)
    if isinstance(container, int):
        docker.go_on()
        return container
    relay = ""
    with _removed_after_error(docker, container, run_words), ExitStack() as undoing:
        require_confined(engine, comparison, container)
        removal = engine.removal(container) if run_words.removed else None
        docker.go_on()
        if run_words.ports:
            relay = _published(engine, comparison, container)
            undoing.callback(engine.remove, relay)
            docker.go_on()
            undoing.pop_all()
    try:
        return _start(engine, docker, container, run_words, removal)
    finally:
        if relay:
            _unpublished(engine, container, relay, removal)


def publishing(
    engine: EngineWriter, comparison: Comparison, attached: Attachment, ports: tuple[PublishedPort, ...]
) -> Attachment:
    """Return how to attach an agent that publishes these ports, with a number that is free now."""
    if not ports:
        return attached
    subnet = comparison.desired.networks[Role.AGENTS].subnet
    places = Addressing(subnet, subnet)
    listing = engine.listing()
    existing = {container.id for container in listing}
    for container in listing:
        if is_relay(container, comparison.desired.project) and container.labels[labels.RELAY_OF] not in existing:
            engine.remove(container.id)  # its agent has been removed, so it only takes a number and ports
    labelled = (Publication.read(container.labels.get(labels.PUBLISHES, "")) for container in engine.listing())
    number = free_number({publication.number for publication in labelled if publication}, places.publishers)
    return replace(attached, publishes=Publication(number, ports), address=str(places.publisher(number)))


def _published(engine: EngineWriter, comparison: Comparison, container: str) -> str:
    try:
        relay = publish_for(
            engine, comparison.observed, comparison.desired, built_images(comparison.blueprint), container
        )
    except ConflictError as error:
        raise RefusedError(
            "agent-unreachable",
            "The agent was not started, because another that publishes ports was started at the same moment.",
            hint="Try again.",
        ) from error
    except EngineError as error:
        raise EngineError(
            "agent-not-published",
            "The agent was not started, because its ports could not be published.",
            context=[error.in_one_line],
            hint="If another program has a port of the Docker host, choose another one: --publish PORT:PORT.",
        ) from error
    view = engine.container(relay)
    for binding in view.published if view else ():
        host, at, port = binding.removesuffix("/tcp").split(":")
        log.notice("agent_published", f"{host}:{at} leads to port {port} of the agent.")
    return relay


def _unpublished(engine: EngineWriter, container: str, relay: str, removal: Future[int] | None) -> None:
    """Remove a removed agent's relay. In other cases, and after a failure, `run` does it."""
    with suppress(EngineError, TimeoutError):
        view = engine.container(container)
        if view and not view.running and removal:
            removal.result(_REMOVAL_SECONDS)
            view = engine.container(container)
        if view is None:
            engine.remove(relay)


def _created(docker: DockerCli, attached: Attachment, run_words: RunWords) -> str | int:
    return docker.create([*attached.flags, *run_words.create])


@contextmanager
def _removed_after_error(docker: DockerCli, container: str, run_words: RunWords) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        with after(error, "It was created, and could not be removed"):
            docker.remove(container)
            if run_words.cid_file:  # with it, docker would refuse to create another one with the same command
                with suppress(OSError):
                    Path(run_words.cid_file).unlink()
        raise


def require_confined(engine: EngineReader, comparison: Comparison, container: str) -> None:
    """Require that a container will be `fenced` once it runs, and that docker publishes none of its ports.

    Raises:
        RefusedError: if not, with every reason, or if it can't be judged.
    """
    try:
        observed = with_agent(engine, comparison.desired.project, comparison.observed, container)
    except EngineError as error:
        raise RefusedError(
            "agent-unconfined",
            "The agent was not started, because the engine does not say how its container was created.",
            context=[error.in_one_line],
        ) from error
    (view,) = (agent for agent in observed.agents if agent.id == container)
    if view.shape.ports or view.shape.publish_all:
        raise RefusedError(
            "agent-unreachable",
            "The agent was not started, because docker itself would publish a port: its network leads nowhere, so "
            "nobody would reach it there.",
            hint="Name each port with --publish in place of --publish-all: then a relay publishes it.",
        )
    now = time.time()
    live, desired = (
        resolving(observed, now),
        name_list.answers(comparison.desired.siblings[Sibling.COREDNS].hot, now),
    )
    judged = agents_of(
        observed, comparison.desired.project, comparison.blueprint.files, lambda name: live(name) or desired(name)
    )
    (agent,) = (agent for agent in judged if agent.id == container)
    if reasons := (*agent.openings, *agent.weaknesses):
        codes = {reason.code for reason in reasons}
        hints = (
            "A container that needs this can't run as an agent; use plain `docker run`.",
            HINT if "settings" in codes else "",
            "If the engine sends logs by default, `--log-driver local` keeps them." if "log" in codes else "",
        )
        raise RefusedError(
            "agent-unconfined",
            f"The agent was not started, because {'; '.join(reason.phrase for reason in reasons)}.",
            hint=" ".join(filter(None, hints)),
        )


def _start(
    engine: EngineReader, docker: DockerCli, container: str, run_words: RunWords, removal: Future[int] | None
) -> int:
    """Start a container, and return the exit code of `docker run`, which the engine's record tells."""
    code = docker.start(container, run_words)
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
