"""An engine in memory, for speed: what `docker.py` shows of a real one, without one.

It holds containers, networks and images, and plays the two programs and their helper as far as the port can see
them. It passes the same contract suite as a real engine, which is what makes it worth trusting.
"""

import hashlib
import itertools
import json
import queue
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from clawker_fw.engine import archive
from clawker_fw.engine.inspection import image_form
from clawker_fw.engine.port import NOTHING, STOP_SECONDS, ProgressCallback
from clawker_fw.errors import ConflictError, EngineError, NotFoundError
from clawker_fw.model import (
    ContainerSpec,
    ContainerSummary,
    ContainerView,
    Endpoint,
    EngineFacts,
    Event,
    File,
    Files,
    ImageView,
    NetworkSpec,
    NetworkView,
    OwnImage,
    Probe,
)
from clawker_fw.stack import built
from clawker_fw.stack.container import COMMITTED, GOOD, HELPER_PATH, HOT, STAGE, program_of
from clawker_fw.stack.files import public
from clawker_fw.stack.resources import SIBLING, Resource, declared, plain

_HEALTH = {"created": "starting", "running": "healthy", "exited": "unhealthy"}
"""An engine calls a container that was stopped unhealthy."""

_ATTACHED = {"running", "paused"}
"""States in which a container is on its networks."""

_CLAIMED = "state/claimed"


@dataclass
class _Container:
    """A container's state, and that of the process in it."""

    id: str
    spec: ContainerSpec
    image: str
    created: str
    files: dict[str, File]
    networks: dict[str, str]
    remembered: dict[str, str] = field(default_factory=dict)
    status: str = "created"
    started: str = ""
    exit_code: int = 0
    restarts: int = 0
    said: list[str] = field(default_factory=list)
    live: dict[str, str] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    connections: int = 0
    lingering: int = 0
    """Connections that are still open when a drain ends."""
    network_differences: tuple[str, ...] = ()
    engine_files: tuple[str, ...] = ()
    agents_see: dict[str, tuple[str, ...]] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    silent: str = ""
    health: str = ""
    unhealthy: str = ""
    build: str = "memory"


class MemoryEngine:
    """`EngineWriter` without an engine. Tests may also reach in, as a user with `docker` could."""

    def __init__(self, architecture: str = "amd64", routes: tuple[IPv4Network, ...] = ()) -> None:
        """Begin empty."""
        self._facts = EngineFacts(
            "memory", "1.41", architecture, routes, endpoint="unix:///memory.sock", named_by="the default"
        )
        self._networks: dict[str, NetworkView] = {}
        self._containers: dict[str, _Container] = {}
        self._images: dict[str, str] = {}
        self._forms: dict[str, built.Form] = {}
        self.volumes: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._followers: list[queue.SimpleQueue[Event | None]] = []

    # --- reading ----------------------------------------------------------------------------------------------

    def facts(self) -> EngineFacts:
        """See `EngineReader`."""
        return self._facts

    def networks(self) -> tuple[NetworkView, ...]:
        """See `EngineReader`."""
        return tuple(self._networks.values())

    def listing(self) -> tuple[ContainerSummary, ...]:
        """See `EngineReader`."""
        return tuple(_listed(each) for each in sorted(self._containers.values(), key=lambda each: each.spec.name))

    def container(self, container: str) -> ContainerView | None:
        """See `EngineReader`."""
        try:
            return _view(self.inside(container))
        except NotFoundError:
            return None

    def own_images(self) -> tuple[OwnImage, ...]:
        """See `EngineReader`."""
        tagged = {
            identity: sorted(tag for tag, of in self._images.items() if of == identity) for identity in self._forms
        }
        forms = (replace(form, references=tuple(tagged[identity])) for identity, form in self._forms.items())
        return tuple(OwnImage(form.id, tags) for form in forms if (tags := built.our_references(form)))

    def orphans(self, project: str) -> tuple[str, ...]:
        """See `EngineReader`. Here a volume only exists with its container, unless a test leaves one."""
        return tuple(sorted(name for name, owner in self.volumes.items() if owner == project))

    def image(self, reference: str) -> ImageView | None:
        """See `EngineReader`."""
        if reference in self._images:
            return ImageView(self._images[reference])
        return ImageView(reference) if reference in self._images.values() else None

    def files(self, container: str, known: Files = NOTHING) -> Files:
        """See `EngineReader`."""
        found = self.inside(container).files
        return {path: known[path] if known.get(path) == file else file for path, file in found.items()}

    def probe(self, container: str) -> Probe:
        """See `EngineReader`."""
        inside = self._running(container, "probe")
        self._tell_of(inside, "exec_start", f"{HELPER_PATH} probe")
        return Probe(
            build=inside.build,
            live={} if inside.silent else dict(inside.live),
            connections=inside.connections,
            addresses=tuple(sorted(inside.addresses)),
            claimed=_CLAIMED in inside.files,
            others=inside.others,
            network=inside.network_differences,
            engine_files=inside.engine_files,
            agents_see=dict(inside.agents_see),
            program=inside.program,
            processes=inside.processes,
            unhealthy=inside.unhealthy,
            error=inside.silent,
        )

    def last_words(self, container: str, lines: int) -> tuple[str, ...]:
        """See `EngineReader`."""
        return tuple(self.inside(container).said[-lines:])

    @contextmanager
    def events(self) -> Iterator[Iterator[Event]]:
        """See `EngineReader`."""
        told: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._followers.append(told)
        try:
            yield iter(told.get, None)
        finally:
            told.put(None)
            if told in self._followers:
                self._followers.remove(told)

    def close(self) -> None:
        """See `EngineReader`. There are none."""

    # --- writing ----------------------------------------------------------------------------------------------

    def load_image(self, archive_: Iterator[bytes], size: int, tell: ProgressCallback) -> None:
        """See `EngineWriter`. Listing and configs come before the layers, which are not kept."""
        del size
        listing, blobs = [], {}
        with tarfile.open(fileobj=archive.Reading(archive_), mode="r|") as tar:
            for member in tar:
                stream = tar.extractfile(member)
                blobs[member.name] = stream.read() if stream else b""
                listing = json.loads(blobs.get("manifest.json", b"[]"))
                if listing and all(image["Config"] in blobs for image in listing):
                    break
            else:
                raise EngineError("engine-error", "The engine could not load an image.")
        for image in listing:
            identity = image["Config"].replace("blobs/", "").replace("/", ":")
            self._images |= dict.fromkeys(image["RepoTags"], identity)
            self._forms[identity] = image_form({"Id": identity, **_inspected(json.loads(blobs[image["Config"]]))})
        tell(1.0)

    def pull_image(self, reference: str, tell: ProgressCallback) -> None:
        """See `EngineWriter`. The registry of a memory engine has everything."""
        self._images[reference] = f"sha256:{hashlib.sha256(reference.encode()).hexdigest()}"
        tell(1.0)

    def remove_image(self, reference: str) -> None:
        """See `EngineWriter`."""
        identity = self._images.get(reference, reference)
        if any(each.image == identity for each in tuple(self._containers.values())):
            return
        self._images.pop(reference, None)
        if identity not in self._images.values():
            self._forms.pop(identity, None)

    def remove_volume(self, volume: str) -> None:
        """See `EngineWriter`."""
        self.volumes.pop(volume, None)

    def create_network(self, spec: NetworkSpec) -> None:
        """See `EngineWriter`."""
        there = self.networks()  # a copy: two are made side by side
        if any(network.name == spec.name for network in there):
            raise ConflictError("engine-error", f"The engine could not create network {spec.name}: it exists.")
        if any(spec.subnet.overlaps(other) for network in there for other in network.subnets):
            raise EngineError("engine-error", f"The engine could not create network {spec.name}: it overlaps.")
        identity = self._identity()
        self._networks[identity] = NetworkView(
            identity,
            spec.name,
            "bridge",
            spec.internal,
            False,  # noqa: FBT003 - no IPv6
            (spec.subnet,),
            str(spec.gateway),
            spec.ip_range,
            dict(spec.options),
            dict(spec.labels),
        )
        self._tell(Event("network", "create", (spec.name,)))

    def remove_network(self, network: str) -> None:
        """See `EngineWriter`."""
        name = self._network(network).name
        if any(name in each.networks and each.status in _ATTACHED for each in tuple(self._containers.values())):
            raise EngineError("engine-error", f"The engine could not remove network {network}: it is in use.")
        self._tell(Event("network", "destroy", (self._networks.pop(network).name,)))

    def create_container(self, spec: ContainerSpec) -> str:
        """See `EngineWriter`."""
        if any(each.spec.name == spec.name for each in tuple(self._containers.values())):
            raise ConflictError("engine-error", f"The engine could not create container {spec.name}.")
        image = self.image(spec.image)
        if image is None:
            raise NotFoundError("not-found", f"The engine could not create container {spec.name}: no image.")
        networks = {name: self._address(name, wanted) for name, wanted in spec.shape.networks.items()}
        identity = self._identity()
        self._containers[identity] = _Container(identity, spec, image.id, self._now(), dict(spec.files), networks)
        self._tell_of(self._containers[identity], "create")
        return identity

    def start(self, container: str) -> None:
        """See `EngineWriter`. What ends at once is started once more, as far as can be seen."""
        inside = self.inside(container)
        if inside.status != "restarting":
            inside.restarts = 0
        there = {name: self._network(name).id for name in inside.networks}
        if gone := [id_ for name, id_ in inside.remembered.items() if name in there and id_ != there[name]]:
            raise NotFoundError("not-found", f"The engine could not start container {container}: no {gone[0]}.")
        inside.remembered = there
        for network in inside.networks:
            self._tell(Event("network", "connect", (network,), inside.id))
        self._tell_of(inside, "start")
        inside.started, inside.status = self._now(), "running"
        inside.addresses = set(inside.networks.values())
        if SIBLING not in inside.files and HELPER_PATH in inside.spec.shape.entrypoint:
            again = inside.spec.shape.restart == "always"
            inside.status, inside.exit_code = "restarting" if again else "exited", 1
            inside.restarts += again
            self._tell_of(inside, "die")
            inside.said.append("fwctl: open boot/sibling.json: no such file or directory")
            return
        if _CLAIMED in inside.files:
            inside.addresses.add(self._service_address(inside))
        inside.live, inside.processes = {}, ()
        inside.program = program_of(inside.spec.shape)
        resources = declared(inside.files)
        if resources and not _start_good(inside):
            inside.status, inside.exit_code = "exited", 1
            self._tell_of(inside, "die")
            inside.said.append("fwctl: the hot files are not what was committed")
            return
        for resource, digest in _loaded(resources, inside.files).items():
            inside.live[resource] = digest or ""

    def stop(self, container: str, seconds: int = STOP_SECONDS) -> None:
        """See `EngineWriter`. Whatever runs here stops at once."""
        del seconds
        inside = self.inside(container)
        if inside.status not in {"running", "paused", "restarting"}:
            return
        inside.status, inside.addresses, inside.live = "exited", set(), {}
        self._tell_of(inside, "die")

    def unpause(self, container: str) -> None:
        """See `EngineWriter`."""
        self.inside(container).status = "running"
        self._tell_of(self.inside(container), "unpause")

    def rename(self, container: str, name: str) -> None:
        """See `EngineWriter`."""
        if any(each.spec.name == name for each in tuple(self._containers.values())):
            raise ConflictError("engine-error", f"The engine could not rename a container to {name}.")
        inside = self.inside(container)
        before, inside.spec = inside.spec.name, replace(inside.spec, name=name)
        self._tell(Event("container", "rename", (name, before), inside.id))

    def remove(self, container: str) -> None:
        """See `EngineWriter`."""
        try:
            inside = self._containers.pop(self.inside(container).id)
        except NotFoundError:
            return
        if inside.status in {"running", "paused"}:
            self._tell_of(inside, "die")
        self._tell_of(inside, "destroy")

    def connect(self, network: str, container: str, address: str) -> None:
        """See `EngineWriter`."""
        inside = self.inside(container)
        name = self._network(network).name
        inside.networks[name] = self._address(name, address)
        networks = {**inside.spec.shape.networks, name: address}
        inside.spec = replace(inside.spec, shape=replace(inside.spec.shape, networks=networks))
        if inside.status == "running":
            inside.addresses.add(inside.networks[name])
            inside.remembered[name] = self._network(name).id
            self._tell(Event("network", "connect", (name,), inside.id))

    def disconnect(self, network: str, container: str) -> None:
        """See `EngineWriter`."""
        inside = self.inside(container)
        name = self._network(network).name
        inside.addresses.discard(inside.networks.pop(name, ""))
        inside.remembered.pop(name, None)
        self._tell(Event("network", "disconnect", (name,), inside.id))

    def put_files(self, container: str, files: Files) -> None:
        """See `EngineWriter`."""
        self.inside(container).files.update(files)
        self._tell_of(self.inside(container), "extract-to-dir")

    def run_helper(self, container: str, arguments: Sequence[str], on_line: Callable[[Any], None]) -> None:
        """See `EngineWriter`."""
        inside = self._running(container, arguments[0])
        self._tell_of(inside, "exec_start", " ".join((HELPER_PATH, *arguments)))
        match arguments:
            case ["commit"]:
                on_line(_commit(inside))
            case ["claim", _]:
                inside.files[_CLAIMED] = public(b"")
                inside.addresses.add(self._service_address(inside))
            case ["release"]:
                inside.files.pop(_CLAIMED, None)
                inside.addresses.discard(self._service_address(inside))
            case ["drain", _]:
                on_line({"connections": inside.connections})
                inside.connections = inside.lingering
                on_line({"connections": inside.lingering})
            case _:
                raise EngineError("helper-failed", f"fwctl {arguments[0]} failed: no such verb.")

    # --- reaching in ------------------------------------------------------------------------------------------

    def inside(self, container: str) -> _Container:
        """Return a container's state by its id or name."""
        if container in self._containers:
            return self._containers[container]
        for each in tuple(self._containers.values()):
            if each.spec.name == container:
                return each
        raise NotFoundError("not-found", f"There is no container {container}.")

    def retag(self, reference: str, image: str | None) -> None:
        """Have a reference name another image, or none, as `docker tag` and `docker rmi` do."""
        self._images.pop(reference, None)
        if image:
            self._images[reference] = image
        self._tell(Event("image", "untag", (reference,)))

    def alter_network(self, name: str, **fields: Any) -> None:  # noqa: ANN401 - those of `NetworkView`
        """Have a network be another one, with everybody still on it."""
        network = self._network(name)
        self._networks[network.id] = replace(network, **fields)

    def double_network(self, name: str) -> None:
        """Make another network of the same name, as engines before 25 do for whoever does not ask them to look."""
        identity = self._identity()
        self._networks[identity] = replace(self._network(name), id=identity)

    def pause(self, container: str) -> None:
        """Pause a container, as `docker pause` does."""
        self.inside(container).status = "paused"
        self._tell_of(self.inside(container), "pause")

    def go_away(self) -> None:
        """End what everybody follows, as an engine that is stopped does."""
        while self._followers:
            self._followers.pop().put(None)

    # --- the rest ---------------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        for told in self._followers:
            told.put(event)

    def _tell_of(self, inside: _Container, action: str, words: str = "") -> None:
        self._tell(Event("container", action, (inside.spec.name,), inside.id, words))

    def _running(self, container: str, verb: str) -> _Container:
        inside = self.inside(container)
        if inside.status != "running":
            raise EngineError(
                "engine-error", f"The engine could not run fwctl {verb} in {container}: it is {inside.status}."
            )
        return inside

    def _network(self, network: str) -> NetworkView:
        for each in self._networks.values():
            if network in {each.id, each.name}:
                return each
        raise NotFoundError("not-found", f"There is no network {network}.")

    def _address(self, network: str, wanted: str) -> str:
        view = self._network(network)
        taken = {each.networks.get(view.name) for each in tuple(self._containers.values())}
        if wanted:
            if wanted in taken or IPv4Address(wanted) not in view.subnets[0]:
                raise EngineError("engine-error", f"The engine could not give out {wanted}: already in use.")
            return wanted
        hosts = (view.ip_range or view.subnets[0]).hosts()
        return next(str(host) for host in hosts if str(host) not in taken and host != view.subnets[0][1])

    @staticmethod
    def _service_address(inside: _Container) -> str:
        return str(json.loads(inside.files[SIBLING].content)["service"]["address"])

    def _identity(self) -> str:
        return f"{next(self._numbers):064x}"

    def _now(self) -> str:
        return f"2026-01-01T00:00:{next(self._numbers):09.6f}Z"


def _inspected(config: dict[str, Any]) -> dict[str, Any]:
    """Return an image's config as `docker inspect` shows it."""
    return {
        "Config": config.get("config"),
        "Architecture": config.get("architecture"),
        "Os": config.get("os"),
        "Created": config.get("created"),
        "RootFS": {"Layers": config["rootfs"]["diff_ids"]},
    }


def _listed(inside: _Container) -> ContainerSummary:
    """Return a container in short; its hardware address follows from its id."""
    attached = inside.status in _ATTACHED
    hardware = ":".join(["02", *(inside.id[-10:][at : at + 2] for at in range(0, 10, 2))])
    return ContainerSummary(
        id=inside.id,
        name=inside.spec.name,
        image=inside.image,
        labels=dict(inside.spec.labels),
        status=inside.status,
        networks={
            name: Endpoint(address, hardware) if attached else Endpoint("", "")
            for name, address in inside.networks.items()
        },
        mounts=inside.spec.shape.mounts,
    )


def _view(inside: _Container) -> ContainerView:
    return ContainerView(
        id=inside.id,
        name=inside.spec.name,
        image=inside.image,
        labels=dict(inside.spec.labels),
        shape=replace(
            inside.spec.shape,
            networks={name: inside.spec.shape.networks.get(name, "") for name in inside.networks},
        ),
        status=inside.status,
        health=(inside.health or _HEALTH.get(inside.status, "")) if inside.spec.shape.healthcheck else "",
        created=inside.created,
        started=inside.started,
        exit_code=inside.exit_code,
        restarts=inside.restarts,
        connected=dict(inside.networks) if inside.status in _ATTACHED else {},
        remembered={name: inside.remembered.get(name, "") for name in inside.networks},
    )


def _loaded(resources: Sequence[Resource], files: Files) -> dict[str, str | None]:
    """Return the digest each resource would have, None for one that its program would refuse."""
    found: dict[str, str | None] = {}
    for each in resources:
        file = files.get(f"{HOT}{each.path}", public(b""))
        if each.proven:
            found[each.name] = each.digest(file.content) if _readable(each, file.content) else None
    return found


def _readable(resource: Resource, content: bytes) -> bool:
    """Whether a program can read a file: a list of names, or resources that have one."""
    try:
        document = json.loads(content)
        return bool(
            all("name" in each for each in document["resources"])
            if resource.envoy
            else isinstance(document["names"], dict)
        )
    except (KeyError, TypeError, ValueError):
        return False


def _commit(inside: _Container) -> dict[str, Any]:
    """Do what `fwctl commit` does: all of it live, or the old files back."""
    wanted = json.loads(inside.files[f"{STAGE}commit.json"].content)
    new = {f"{HOT}{file['path']}": inside.files[f"{STAGE}{HOT}{file['path']}"] for file in wanted["files"]}
    for file in wanted["files"]:
        if hashlib.sha256(plain(new[f"{HOT}{file['path']}"].content)).hexdigest() != file["sha256"]:
            raise EngineError("helper-failed", f"fwctl commit failed: staged {file['path']} has another digest.")
    loaded = _loaded(declared(inside.files), {**inside.files, **new})
    refused = sorted(name for name, digest in loaded.items() if digest != wanted["live"].get(name))
    staged = [path for path in inside.files if path.startswith(STAGE)]
    if refused:
        for path in staged:
            del inside.files[path]
        return {
            "committed": False,
            "rejected": refused,
            "missing": [],
            "reason": "it could not be read",
            "hung": False,
        }
    inside.files.update(new)
    for path in wanted["remove"]:
        inside.files.pop(f"{HOT}{path}", None)
    inside.files[COMMITTED] = inside.files[f"{STAGE}commit.json"]
    for path in staged:
        del inside.files[path]
    _keep_good(inside)
    inside.live = {name: digest for name, digest in loaded.items() if digest is not None}
    return {"committed": True, "rejected": [], "missing": [], "reason": "", "hung": False}


def _keep_good(inside: _Container) -> None:
    """Do what `fwctl` does when what lies there has been proven: keep a copy of it."""
    kept = {path: file for path, file in inside.files.items() if not path.startswith(GOOD)}
    copies = {f"{GOOD}{path}": file for path, file in kept.items() if path.startswith(HOT)}
    inside.files = {**kept, **copies, f"{GOOD}committed.json": kept[COMMITTED]}


def _intact(files: Files, folder: str, record: str) -> bool:
    """Whether the hot files in a folder are those that a record speaks of."""
    try:
        recorded = {each["path"]: each["sha256"] for each in json.loads(files[record].content)["files"]}
    except (KeyError, TypeError, ValueError):
        return False
    present = {
        path.removeprefix(folder): hashlib.sha256(plain(file.content)).hexdigest()
        for path, file in files.items()
        if path.startswith(folder)
    }
    return present == recorded


def _start_good(inside: _Container) -> bool:
    """Do what `fwctl serve` does first: see to it that what was proven is there. Whether there is such a set."""
    if not _intact(inside.files, HOT, COMMITTED):
        if not _intact(inside.files, f"{GOOD}{HOT}", f"{GOOD}committed.json"):
            return False
        kept = {path: file for path, file in inside.files.items() if not path.startswith(HOT)}
        good = {path.removeprefix(GOOD): file for path, file in kept.items() if path.startswith(f"{GOOD}{HOT}")}
        inside.files = {**kept, **good, COMMITTED: kept[f"{GOOD}committed.json"]}
    _keep_good(inside)
    return True
