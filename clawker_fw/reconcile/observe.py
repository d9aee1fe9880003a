"""observe: read everything that a decision needs from the engine, once. Nothing here compares or writes.

Independent questions are asked side by side; asking a process inside a container costs most.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv4Network

from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import EngineError, NotFoundError, RefusedError
from clawker_fw.model import (
    ContainerView,
    NetworkView,
    Observed,
    ObservedSibling,
    Probe,
    Role,
    Sibling,
)
from clawker_fw.stack import coredns, labels
from clawker_fw.stack.container import container_names
from clawker_fw.stack.topology import network_names

_READERS = 8
_LOOKS = 3
_UNREADABLE = {"dead", "removing"}
"""States of a container in which an engine has no file system of it to show."""

_ANSWER_WITHIN = 2.0
"""Seconds in which a program that has only just started may begin to answer."""
_ASK_EVERY = 0.1


def observe(reader: EngineReader, project: str, references: tuple[str, ...]) -> Observed:
    """Read the project's stack. `references` are the images it should be made from.

    What goes away between two questions belongs to a run at work: the world is looked at once more.

    Raises:
        RefusedError: when something with one of our names is not ours.
        EngineError: when the engine can't be read; what is unreadable is never taken for absent.
    """
    for _ in range(_LOOKS - 1):
        with suppress(NotFoundError):
            return _observe(reader, project, references)
    return _observe(reader, project, references)


def _observe(reader: EngineReader, project: str, references: tuple[str, ...]) -> Observed:
    with ThreadPoolExecutor(_READERS) as pool:
        reading_networks = pool.submit(reader.networks)
        reading_images = {reference: pool.submit(reader.image, reference) for reference in references}
        names = {name: sibling for sibling in Sibling for name in container_names(project, sibling)}
        containers = reader.containers(names)
        for container in containers:
            _require_ours("container", container.name, container.labels, project)
        reading = [pool.submit(_sibling, reader, names[view.name], view, pool.submit) for view in containers]
        for container in containers:
            reading_images.setdefault(container.image, pool.submit(reader.image, container.image))

        networks = reading_networks.result()
        ours = _our_networks(networks, project)
        reading_attached = {role: pool.submit(reader.attached, network.id) for role, network in ours.items()}
        found = [each.result() for each in reading]
        serving = _serving(project, found)
        return Observed(
            engine=reader.facts(),
            networks=ours,
            subnets=_subnets_of_others(networks, ours),
            siblings=serving,
            leftovers=tuple(each for each in found if each not in serving.values()),
            images={reference: each.result() for reference, each in reading_images.items()},
            attached={
                role: tuple(name for name in each.result() if name not in names)
                for role, each in reading_attached.items()
            },
        )


def _require_ours(kind: str, name: str, found: Mapping[str, str], project: str) -> None:
    if not labels.is_ours(found, project):
        raise RefusedError(
            f"foreign-{kind}",
            f"There is a {kind} called {name} that this firewall did not make.",
            context=[
                f"It lacks the label {key}={value}"
                for key, value in labels.ownership_labels(project).items()
                if found.get(key) != value
            ],
            hint="Rename or remove it, or choose another name for this stack with --project.",
        )


def _our_networks(networks: tuple[NetworkView, ...], project: str) -> dict[Role, NetworkView]:
    ours: dict[Role, NetworkView] = {}
    for role, name in network_names(project).items():
        for network in networks:
            if network.name == name:
                _require_ours("network", name, network.labels, project)
                ours[role] = network
    return ours


def _subnets_of_others(
    networks: tuple[NetworkView, ...], ours: Mapping[Role, NetworkView]
) -> tuple[IPv4Network, ...]:
    own = {network.id for network in ours.values()}
    return tuple(subnet for network in networks if network.id not in own for subnet in network.subnets)


def _sibling(
    reader: EngineReader,
    sibling: Sibling,
    container: ContainerView,
    submit: Callable[[Callable[[EngineReader, str], Probe], EngineReader, str], "Future[Probe]"],
) -> ObservedSibling:
    probing = submit(_probe, reader, container.id) if container.running else None
    files = {} if container.status in _UNREADABLE else reader.files(container.id)
    slot = container.labels.get(labels.SLOT, "0")
    return ObservedSibling(
        sibling,
        container,
        int(slot) if slot in {"0", "1"} else 0,
        files,
        probing.result() if probing else None,
    )


def _probe(reader: EngineReader, container: str) -> Probe:
    """Ask until the program answers; one that never does has its silence recorded, not taken for an answer."""
    end = time.monotonic() + _ANSWER_WITHIN
    while True:
        try:
            probe = reader.probe(container)
        except EngineError as error:
            probe = Probe("", {}, 0, (), claimed=False, network=(), error="; ".join((str(error), *error.context)))
        if not probe.error or time.monotonic() > end:
            return probe
        time.sleep(_ASK_EVERY)


def _serving(project: str, found: list[ObservedSibling]) -> dict[Sibling, ObservedSibling]:
    """Return the container that serves as each sibling, where a run that did not end left two.

    CoreDNS serves when it has claimed the service address, its replacement first: it was verified before it did.
    Envoy serves when the zone that is served points to it.
    """
    serving: dict[Sibling, ObservedSibling] = {}
    for sibling in (Sibling.COREDNS, Sibling.ENVOY):
        candidates = sorted(
            (each for each in found if each.sibling is sibling),
            key=lambda each: container_names(project, sibling).index(each.container.name),
        )
        if not candidates:
            continue
        if sibling is Sibling.COREDNS:
            chosen = [each for each in reversed(candidates) if each.probe and each.probe.claimed]
        else:
            zone = serving[Sibling.COREDNS].files.get(coredns.ZONE, b"") if Sibling.COREDNS in serving else b""
            addresses = {line.rpartition(b" IN A ")[2] for line in zone.splitlines()}
            chosen = [each for each in candidates if _agent_address(project, each).encode() in addresses]
        serving[sibling] = (chosen or candidates)[0]
    return {sibling: serving[sibling] for sibling in Sibling if sibling in serving}


def _agent_address(project: str, observed: ObservedSibling) -> str:
    return observed.container.shape.networks.get(network_names(project)[Role.AGENTS], "")
