"""Create a relay on an engine, or leave nothing of it."""

import time
from collections.abc import Mapping

from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.errors import ConflictError, NotFoundError, NotProvenError, RefusedError, after
from clawker_fw.model.containers import ContainerSpec
from clawker_fw.model.desired import Desired
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.compare.relays import RelayComparison, foreign_relay
from clawker_fw.reconcile.containers import create_from, last_words
from clawker_fw.reconcile.observe import inside, with_publisher
from clawker_fw.stack import labels
from clawker_fw.stack.image_tar import BuiltImage
from clawker_fw.stack.relay import is_relay

_READY_SECONDS = 15.0
_LOOK_EVERY = 0.05


def publish_for(
    engine: EngineWriter, observed: Observed, desired: Desired, built: Mapping[Sibling, BuiltImage], agent: str
) -> str:
    """Create the relay of the just created agent with this id, and return the relay's id.

    This takes no lock. A concurrent run creates the same relay, unless another agent got the number.

    Raises:
        SettingsError: if no subnet is free.
        ConflictError: if another container has its name, or the network was just created.
        RefusedError: if the network for published ports was changed, or a foreign container has the relay's name.
        EngineError, NotProvenError: see `publish`.
    """
    comparison = RelayComparison(with_publisher(engine, desired.project, observed, agent), desired)
    comparison.subnet()
    network = comparison.network
    if network is None:
        raise NotFoundError("not-found", f"The container {agent} publishes nothing, or has been removed.")
    if comparison.unlike:
        raise RefusedError(
            "not-serving",
            f"The network {network.name}, on which ports are published, is not as clawker-fw made it.",
            hint="`clawker-fw drift` shows what differs, `clawker-fw run` repairs it.",
        )
    (spec,) = comparison.specs.values()
    if comparison.observed.publishing is None:
        engine.create_network(network)
    try:
        return publish(engine, spec, built.get(Sibling.COREDNS))
    except ConflictError:
        container = engine.container(spec.name)
        if container and not is_relay(container, desired.project):
            raise foreign_relay(spec.name) from None
        if (
            container is None
            or container.project != desired.project
            or container.labels.get(labels.RELAY_OF) != agent
        ):
            raise
    _require_listening(engine, spec, container.id)
    return container.id


def publish(engine: EngineWriter, spec: ContainerSpec, image: BuiltImage | None) -> str:
    """Create and start a relay, wait until it listens, and return its id. After an error, nothing of it is left.

    Raises:
        ConflictError: if a container has its name.
        EngineError: if it can't be started, for example because a port of the host is in use.
        NotProvenError: if it does not listen.
    """
    relay = create_from(engine, spec, image)
    try:
        engine.start(relay)
        _require_listening(engine, spec, relay)
    except BaseException as error:
        with after(error, f"the container {spec.name} was not removed either"):
            engine.remove(relay)
        raise
    return relay


def _require_listening(engine: EngineReader, spec: ContainerSpec, relay: str) -> None:
    end = time.monotonic() + _READY_SECONDS
    problems: tuple[str, ...] = ("it does not run",)
    while time.monotonic() < end:
        view = engine.container(relay)
        if view and view.running and not (problems := inside(engine, view)):
            return
        if view is None or view.restarts:  # it ends whenever it is started
            break
        time.sleep(_LOOK_EVERY)
    raise NotProvenError(
        "relay-not-ready",
        f"The relay {spec.name} does not listen, so the ports are not published.",
        context=[*problems, *last_words(engine, relay)],
    )
