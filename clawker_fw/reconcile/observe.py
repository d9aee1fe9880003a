"""observe: read everything that decisions need from the engine, once and in parallel. Nothing here writes."""

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace

from clawker_fw.agents.namespaces import joined_by, matches, network_owner
from clawker_fw.background import in_background, shared_out
from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import EngineError, NotFoundError, RefusedError
from clawker_fw.fwctl import KEY_BYTES, HelperReader
from clawker_fw.model.containers import ContainerSummary, ContainerView
from clawker_fw.model.files import Files
from clawker_fw.model.networks import NetworkView
from clawker_fw.model.observed import Observed, ObservedRelay, ObservedSibling
from clawker_fw.model.probes import Probe
from clawker_fw.model.secrets import HeldSecrets
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.stack import labels, name_list
from clawker_fw.stack.container import container_names
from clawker_fw.stack.labels import is_lock, is_trial, sibling_of
from clawker_fw.stack.relay import is_relay
from clawker_fw.stack.topology import network_names, project_of_network, publishing_name

_LOOKS = 3

_UNREADABLE = {"dead", "removing"}
"""Container states in which the engine can't read its file system."""

_ANSWER_WITHIN = 2.0
"""Seconds that a just started program may take to answer."""
_ASK_EVERY = 0.1


@dataclass(frozen=True, slots=True)
class Expected:
    """The part of the desired state that decides what to read.

    `files` are large expected files, kept in memory once. `images` returns the references of the desired images.
    `secrets` is whether rules put secrets into requests. `own_lock` is the id of this run's lock.
    """

    files: Files = field(default_factory=dict)
    images: Callable[[], Iterable[str]] = tuple
    secrets: bool = False
    own_lock: str = ""


NOTHING_EXPECTED = Expected()


class _ChangedError(Exception):
    """A container's state changed between listing and inspecting it."""


def observe(reader: EngineReader, project: str, expected: Expected = NOTHING_EXPECTED) -> Observed:
    """Return the observed stack.

    If a container disappears or changes its state between two requests, everything is read again, up to three
    times in all. The last round accepts the latest state.

    Raises:
        RefusedError: if a foreign object has one of our names.
        EngineError: if the engine can't be read. Unreadable never counts as absent.
    """
    for _ in range(_LOOKS - 1):
        with suppress(NotFoundError, _ChangedError):
            return _read(reader, project, expected, last=False)
    return _read(reader, project, expected, last=True)


def _read(reader: EngineReader, project: str, expected: Expected, *, last: bool) -> Observed:
    lock, listing = _listing(reader, project)
    if lock and lock.id == expected.own_lock:
        lock = None
    ours = _our_containers(listing, project)
    running = [container for container in ours if container.status == "running"]
    # Until the last round, a change restarts the reading. In the last, a stopped Envoy may turn out to run.
    envoy = last or any(ours[container] is Sibling.ENVOY for container in running)
    # The slowest requests start first: programs in containers, then files.
    asking = {container: in_background(_probe, reader, container.id, envoy=envoy) for container in running}
    reading = {
        container: in_background(_sibling, reader, container, kind, expected.files, last=last)
        for container, kind in ours.items()
    }
    reading_networks = in_background(reader.networks)
    reading_machine = in_background(reader.machine)
    reading_own_images = in_background(reader.own_images)
    reading_unused = in_background(reader.unused_volumes, project)
    trial = next((container for container in listing if is_trial(container, project)), None)
    relays = [container for container in listing if is_relay(container, project)]
    reading_relays = {relay: in_background(_relay, reader, relay, expected.files) for relay in relays}
    publishers = [
        container.id for container in listing if labels.PUBLISHES in container.labels and not container.project
    ]
    reading_publishers = _reading_agents(reader, publishers)
    agents = _agents(reader, listing, {*ours, *relays}, network_names(project)[Role.AGENTS])
    reading_agents = _reading_agents(reader, agents)
    have_volumes = any(container.volumes for container in listing if container.id in agents)
    reading_volumes = in_background(reader.volumes) if have_volumes else None
    images = {container.image for container in ours}
    reading_images = {image: in_background(reader.image, image) for image in images}

    networks = reading_networks.result()
    our_networks = _our_networks(networks, project)
    siblings = {container: future.result() for container, future in reading.items()}
    probing = [
        in_background(_probed, reader, sibling, asking.get(container)) for container, sibling in siblings.items()
    ]
    views = sorted((view for future in reading_agents for view in future.result()), key=lambda view: view.name)
    unused, facts = reading_unused.result(), reader.facts()
    for reference in {*expected.images()} - images:
        reading_images[reference] = in_background(reader.image, reference)
    companions = _companions(reader, [*views, *(sibling.container for sibling in siblings.values())])
    probed = [future.result() for future in probing]
    starting = [sibling.sibling.value for sibling in probed if sibling.container.health == "starting"]
    views_of_agents = [sibling.probe.agents_see for sibling in probed if sibling.probe]
    troubled = {name for problems_of in views_of_agents for name, problems in problems_of.items() if problems}
    if not last and not troubled.isdisjoint(starting):  # it may serve by now
        raise _ChangedError
    serving = _serving(project, probed)
    leftovers = tuple(sibling for sibling in probed if sibling not in serving.values())
    held: HeldSecrets | None = None
    if (envoy_now := serving.get(Sibling.ENVOY)) and _has_secrets(envoy_now, expected):
        serving[Sibling.ENVOY], held = _secrets(reader, envoy_now)
    return Observed(
        engine=facts,
        networks=our_networks,
        siblings=serving,
        leftovers=leftovers,
        images={image: future.result() for image, future in reading_images.items()},
        attached={
            role: {
                container.name: container.networks[network.name]
                for container in listing
                if container not in ours
                and container is not trial
                and container not in reading_relays
                and container.attached
                and network.name in container.networks
            }
            for role, network in our_networks.items()
        },
        own_images={
            image: tuple(container.id for container in listing if container.image == image.id)
            for image in reading_own_images.result()
        },
        orphans=tuple(volume.name for volume in unused if labels.TRUST not in volume.labels),
        spare_trust=tuple(volume for volume in unused if labels.TRUST in volume.labels),
        lock=lock,
        trial=trial,
        listing=listing,
        machine=reading_machine.result(),
        agents=tuple(views),
        joined={agent: owner for agent, owner in agents.items() if owner != agent},
        others=_others(networks, project),
        companions=companions,
        volumes={volume.name: volume for volume in reading_volumes.result()} if reading_volumes else {},
        secrets=held,
        publishers=tuple(view for future in reading_publishers for view in future.result()),
        relays=tuple(relay for future in reading_relays.values() if (relay := future.result())),
        publishing=_publishing(networks, project),
    )


def _has_secrets(envoy: ObservedSibling, expected: Expected) -> bool:
    probe = envoy.probe
    if probe is None or probe.error or probe.signer:
        return False
    return expected.secrets or probe.secrets > 0


def _secrets(reader: EngineReader, envoy: ObservedSibling) -> tuple[ObservedSibling, HeldSecrets | None]:
    """Return Envoy with its secrets, or with a probe error if unreadable: it may use a revoked one."""
    try:
        return envoy, HelperReader(reader, envoy.container.id).secrets(secrets.token_bytes(KEY_BYTES))
    except EngineError as error:
        probe = envoy.probe and replace(envoy.probe, error=f"secrets: {error.in_one_line}")
        return replace(envoy, probe=probe), None


def _publishing(networks: tuple[NetworkView, ...], project: str) -> NetworkView | None:
    """Return our network for published ports. A foreign one with its name is ignored."""
    named = (network for network in networks if network.name == publishing_name(project))
    return next((network for network in named if project_of_network(network) == project), None)


def _relay(reader: EngineReader, summary: ContainerSummary, expected: Files) -> ObservedRelay | None:
    try:
        files = {} if summary.status in _UNREADABLE else reader.files(summary.id, expected)
        container = reader.container(summary.id)
    except NotFoundError:
        return None
    if container is None:
        return None
    return ObservedRelay(container, files, _settled(reader, container) if container.running else ())


def _settled(reader: EngineReader, relay: ContainerView) -> tuple[str, ...]:
    """Return the differences inside a relay, once it has had time to start."""
    end = time.monotonic() + _ANSWER_WITHIN
    while (problems := inside(reader, relay)) and time.monotonic() < end:
        time.sleep(_ASK_EVERY)
    return problems


def inside(reader: EngineReader, relay: ContainerView) -> tuple[str, ...]:
    """Return the differences inside a running relay: in its network, and ports without a listener."""
    try:
        return HelperReader(reader, relay.id).relayed(relay.shape.command[1:])
    except EngineError as error:
        return (f"unreadable: {error.in_one_line}",)


def _agents(
    reader: EngineReader,
    listing: tuple[ContainerSummary, ...],
    ours: Collection[ContainerSummary],
    network: str,
) -> dict[str, str]:
    """Return the ids of the agents, each with the id of the container whose network it uses, usually its own.

    Agents are the containers on the agent network, and those that share the network of one or of a sibling, or a
    sibling's files.
    """

    def ask(container: str) -> str:
        view = reader.container(container)
        return view.network_owner if view else ""

    by_word = {key: container for container in listing for key in (container.id, container.name)}
    containers = [container for container in listing if container.attached]
    attached = {container.id for container in containers if container in ours or network in container.networks}
    owner_of = {
        container.id: network_owner(container, by_word, ask) for container in containers if container not in ours
    }
    files = {name for container in ours for name in container.volumes.values()}
    sharing = {container.id for container in containers if not files.isdisjoint(container.volumes.values())}
    return {id_: owner for id_, owner in owner_of.items() if owner in attached or id_ in sharing}


def _reading_agents(reader: EngineReader, agents: Collection[str]) -> "list[Future[list[ContainerView]]]":
    def read(some: Sequence[str]) -> list[ContainerView]:
        return [view for id_ in some if (view := reader.container(id_))]

    return shared_out(read, list(agents))


def _companions(reader: EngineReader, views: list[ContainerView]) -> tuple[ContainerView, ...]:
    """Inspect the containers, at any depth, whose processes or memory those in `views` share."""
    containers = list(views)
    missing: set[str] = set()
    for container in containers:  # which grows meanwhile
        shape = container.shape
        for word in filter(None, (joined_by(shape.pid_mode), joined_by(shape.ipc_mode))):
            if word in missing or any(matches(other, word) for other in containers):
                continue
            if view := reader.container(word):
                containers.append(view)
            else:
                missing.add(word)
    return tuple(containers[len(views) :])


def unchanged(reader: EngineReader, project: str, observed: Observed) -> bool:
    """Whether containers and our networks are unchanged since `observed`, and no other run held the lock then.

    The caller holds the lock. Removed images and changed files are found by the comparison after the plan.
    """
    _, listing = _listing(reader, project)
    networks = _our_networks(reader.networks(), project)
    return observed.lock is None and listing == observed.listing and networks == observed.networks


def with_agent(reader: EngineReader, project: str, observed: Observed, container: str) -> Observed:
    """Return `observed` with one more agent: the container with this id, created since, as if it ran.

    Networks, volumes and the containers it has joined are read again.

    Raises:
        NotFoundError: if it is gone.
        EngineError: if the engine can't be read.
    """
    view = reader.container(container)
    _, listing = _listing(reader, project)
    if view is None or all(container.id != view.id for container in listing):
        raise NotFoundError("not-found", f"The container {container} has been removed.")
    agents = tuple(sorted((*observed.agents, view), key=lambda agent: agent.name))
    siblings = [sibling.container for sibling in (*observed.siblings.values(), *observed.leftovers)]
    return replace(
        observed,
        listing=listing,
        agents=agents,
        others=_others(reader.networks(), project),
        companions=_companions(reader, [*agents, *siblings]),
        volumes={volume.name: volume for volume in reader.volumes()},
    )


def with_publisher(reader: EngineReader, project: str, observed: Observed, container: str) -> Observed:
    """Return `observed` as if only this container published ports. Networks are read again.

    Raises:
        EngineError: if the engine can't be read.
    """
    view, networks = reader.container(container), reader.networks()
    return replace(
        observed,
        publishers=(view,) if view else (),
        publishing=_publishing(networks, project),
        others=_others(networks, project),
    )


def _listing(reader: EngineReader, project: str) -> tuple[ContainerSummary | None, tuple[ContainerSummary, ...]]:
    listing = reader.listing()
    lock = next((container for container in listing if is_lock(container, project)), None)
    return lock, tuple(container for container in listing if container is not lock)


def _our_containers(listing: tuple[ContainerSummary, ...], project: str) -> dict[ContainerSummary, Sibling]:
    """Return the siblings' containers. The label says which sibling one is; without a valid label, the name."""
    names = {name: sibling for sibling in Sibling for name in container_names(project, sibling)}
    ours: dict[ContainerSummary, Sibling] = {}
    for container in listing:
        if container.name in names:
            is_ours = container.project == project
            _require_ours("container", container.name, container.labels, project, labels.SIBLING, form=is_ours)
        elif container.project != project or not container.labels.keys() >= {*labels.MADE_WITH}:
            continue
        if kind := sibling_of(container, project):
            ours[container] = kind
        elif container.name in names:
            ours[container] = names[container.name]
    return ours


def _require_ours(
    kind: str, name: str, object_labels: Mapping[str, str], project: str, *further: str, form: bool = True
) -> None:
    missing = [f"missing label: {label}" for label in labels.lacking(object_labels, project, *further)]
    if missing or not form:
        raise RefusedError(
            f"foreign-{kind}",
            f"The {kind} {name} exists, but clawker-fw did not create it.",
            context=missing or ["it has the labels, but not the volume that clawker-fw requests"],
            hint=f"Rename or remove that {kind}, or choose another name for this stack with --project.",
        )


def _our_networks(networks: tuple[NetworkView, ...], project: str) -> dict[Role, NetworkView]:
    ours: dict[Role, NetworkView] = {}
    for role, name in network_names(project).items():
        named = [network for network in networks if network.name == name]
        if len(named) > 1:
            raise RefusedError(
                "network-ambiguous",
                f"There are {len(named)} networks called {name}, so the name is ambiguous.",
                context=[
                    f"{network.id}, {network.driver}, made by "
                    f"{'another program' if labels.lacking(network.labels, project) else 'clawker-fw'}"
                    for network in named
                ],
                hint="Remove the unused one with `docker network rm ID`.",
            )
        for network in named:
            _require_ours("network", name, network.labels, project, labels.ROLE)
            ours[role] = network
    return ours


def _others(networks: tuple[NetworkView, ...], project: str) -> tuple[NetworkView, ...]:
    own = {network.id for network in _our_networks(networks, project).values()}
    return tuple(network for network in networks if network.id not in own)


def _sibling(
    reader: EngineReader, summary: ContainerSummary, sibling: Sibling, expected: Files, *, last: bool
) -> ObservedSibling:
    files = {} if summary.status in _UNREADABLE else reader.files(summary.id, expected)
    container = reader.container(summary.id)
    if container is None:
        raise NotFoundError("not-found", f"Container {summary.name} has been removed.")
    if container.status != summary.status and not last:
        raise _ChangedError
    slot = 1 if container.labels.get(labels.SLOT) == "1" else 0
    return ObservedSibling(sibling, container, slot, files, probe=None)


def _probed(reader: EngineReader, sibling: ObservedSibling, asking: "Future[Probe] | None") -> ObservedSibling:
    """Return a sibling with its probe, if it runs. The slow probe is usually under way in `asking`.

    On a busy host, a restarted program may need longer to answer, so it is probed again while its container is
    `starting`.
    """
    now: ContainerView | None = sibling.container
    if not sibling.container.running:
        return sibling
    probe = asking.result() if asking else _probe(reader, sibling.container.id)
    check = sibling.container.shape.healthcheck
    end = time.monotonic() + (check.start_period if check else 0)
    while probe.error and now and now.running and now.health == "starting" and time.monotonic() < end:
        probe = _probe(reader, now.id)
        now = reader.container(now.id)
    return replace(sibling, probe=probe)


def settled_health(reader: EngineReader, sibling: ObservedSibling) -> str:
    """Return why a sibling is unhealthy after time to recover, or empty if it is healthy."""
    problem = sibling.probe.unhealthy if sibling.probe else ""
    end = time.monotonic() + _ANSWER_WITHIN
    while problem and time.monotonic() < end:
        time.sleep(_ASK_EVERY)
        probe = _probe(reader, sibling.container.id)
        problem = probe.error or probe.unhealthy
    return problem


def _probe(reader: EngineReader, container: str, *, envoy: bool = True) -> Probe:
    """Probe until the program answers. After a timeout, the probe carries the error."""
    end = time.monotonic() + _ANSWER_WITHIN
    while True:
        try:
            probe = HelperReader(reader, container).probe(envoy=envoy)
        except EngineError as error:
            probe = Probe(error="; ".join((str(error), *error.context)))
        if not probe.error or time.monotonic() > end:
            return probe
        time.sleep(_ASK_EVERY)


def _serving(project: str, siblings: list[ObservedSibling]) -> dict[Sibling, ObservedSibling]:
    """Return the serving container of each sibling: an interrupted run may have left two.

    The serving CoreDNS holds the service address. If both do, it is the replacement, which was verified first. The
    serving Envoy is the one to which that CoreDNS sends agents.
    """
    serving: dict[Sibling, ObservedSibling] = {}
    for sibling in (Sibling.COREDNS, Sibling.ENVOY):
        names = container_names(project, sibling)
        candidates = sorted(
            (candidate for candidate in siblings if candidate.sibling is sibling),
            key=lambda candidate: (candidate.container.name not in names, candidate.container.name),
        )
        if not candidates:
            continue
        if sibling is Sibling.COREDNS:
            chosen = [
                candidate for candidate in reversed(candidates) if candidate.probe and candidate.probe.claimed
            ]
        else:
            resolver = serving.get(Sibling.COREDNS)
            address = name_list.envoy_address(resolver.files) if resolver else ""
            agents = network_names(project)[Role.AGENTS]
            chosen = [
                candidate
                for candidate in candidates
                if address and address == candidate.container.shape.networks.get(agents)
            ]
        serving[sibling] = (chosen or candidates)[0]
    return {sibling: serving[sibling] for sibling in Sibling if sibling in serving}


def projects(reader: EngineReader) -> tuple[str, ...]:
    """Return the projects of all our containers and networks, sorted."""
    containers = {container.project for container in reader.listing()}
    networks = {project_of_network(network) for network in reader.networks()}
    return tuple(sorted((containers | networks) - {""}))
