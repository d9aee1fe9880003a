"""An engine in memory, which makes tests fast.

It simulates containers, networks, images, the two programs and `fwctl`, and passes the contract suite.
"""

import hashlib
import itertools
import json
import queue
import secrets
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from clawker_fw.background import in_background
from clawker_fw.engine import archive
from clawker_fw.engine.port import NOTHING, STOP_SECONDS, ProgressCallback
from clawker_fw.engine.translate import own_tags
from clawker_fw.errors import ConflictError, DiskFullError, EngineError, NotFoundError, SubnetTakenError
from clawker_fw.model.containers import ATTACHED, ContainerSpec, ContainerSummary, ContainerView
from clawker_fw.model.engines import EngineFacts, Event, Machine
from clawker_fw.model.files import File, Files
from clawker_fw.model.images import ImageView, OwnImage
from clawker_fw.model.networks import NetworkSpec, NetworkView
from clawker_fw.model.probes import Probe
from clawker_fw.model.volumes import VolumeView
from clawker_fw.stack import labels
from clawker_fw.stack.container import ATTEMPTS, HELPER, HELPER_PATH, VOLUME, examination, program_of
from clawker_fw.stack.resources import SIBLING, declared
from devkit.memory import helper
from devkit.memory.container import MemoryContainer, is_published, summary_of, view_of
from devkit.waiting import until

_SLACK = 4096
"""By how many octets a file may grow on a full disk: the block that is kept for it."""


class MemoryEngine:
    """An `EngineWriter` without an engine. Tests also change its state directly, as a user with `docker` could."""

    def __init__(self, architecture: str = "amd64", routes: tuple[IPv4Network, ...] = ()) -> None:
        self._facts = EngineFacts(
            "memory", "1.41", architecture, routes, endpoint="unix:///memory.sock", named_by="the default"
        )
        self.has = Machine(processors=2, memory=8 << 30)
        self._networks: dict[str, NetworkView] = {}
        self.sources_checked: bool | None = None
        self.clock_ahead = 0.0
        self.lacking: tuple[str, ...] = ()
        """What its kernel lacks that a sibling needs."""
        self.attempted: dict[str, str] = {}
        """What attempts of an agent end with, by their id, if not as in a stack that confines it."""
        self._containers: dict[str, MemoryContainer] = {}
        self._images: dict[str, str] = {}
        self._built: dict[str, dict[str, Any]] = {}
        self.lost_volumes: dict[str, str] = {}
        """The projects of volumes that have lost their containers."""
        self.drivers: dict[str, VolumeView] = {}
        """Volumes by their names: as far as it matters what keeps them, and those with a name of their own."""
        self.named_files: dict[str, dict[str, File]] = {}
        """The files of volumes with a name, by these."""
        self.disk_full = False
        """Whether nothing can be written any more."""
        self._numbers = itertools.count(1)
        self._followers: list[queue.SimpleQueue[Event | None]] = []

    def facts(self) -> EngineFacts:
        return self._facts

    def machine(self) -> Machine:
        return self.has

    def networks(self) -> tuple[NetworkView, ...]:
        found = tuple(self._networks.values())
        return tuple(replace(each, sources_checked=self.sources_checked) for each in found)

    def listing(self) -> tuple[ContainerSummary, ...]:
        return tuple(
            summary_of(each) for each in sorted(self._containers.values(), key=lambda each: each.spec.name)
        )

    def container(self, container: str) -> ContainerView | None:
        try:
            return view_of(self.inside(container))
        except NotFoundError:
            return None

    def own_images(self) -> tuple[OwnImage, ...]:
        shown = (
            (identity, {**raw, "RepoTags": [tag for tag, of in self._images.items() if of == identity]})
            for identity, raw in self._built.items()
        )
        return tuple(OwnImage(identity, tags) for identity, raw in shown if (tags := own_tags(raw)))

    def unused_volumes(self, project: str) -> tuple[VolumeView, ...]:
        """A volume without a name outlives its container only when a test says so."""
        used = {name for each in tuple(self._containers.values()) for name in each.volumes.values()}
        lost = [VolumeView(name, "local", {}) for name, owner in self.lost_volumes.items() if owner == project]
        named = [self.drivers[name] for name in self.named_files if name not in used]
        ours = [each for each in named if labels.project_of(each.labels) == project]
        return tuple(sorted((*lost, *ours), key=lambda each: each.name))

    def volumes(self) -> tuple[VolumeView, ...]:
        return tuple(self.drivers.values())

    def image(self, reference: str) -> ImageView | None:
        if reference in self._images:
            return ImageView(self._images[reference])
        return ImageView(reference) if reference in self._images.values() else None

    def files(self, container: str, known: Files = NOTHING) -> Files:
        found = self.inside(container).files
        return {path: known[path] if known.get(path) == file else file for path, file in found.items()}

    def ask_helper(  # noqa: PLR0911 - one case a verb
        self, container: str, arguments: Sequence[str], silence: float, *, sent: bytes = b""
    ) -> object:
        match arguments:
            case ["relayed", *_]:
                return {"network": list(self._ran(container, "relayed").relayed), "closed": []}
            case ["probe", *words]:
                report = self.probe(container, envoy="without-envoy" not in words)
                return helper.probe_answer(report, self.inside(container).protocol)
            case ["lookup", name]:
                return asdict(helper.lookup(self._ran(container, *arguments), name))
            case ["try", name, protocol, *_]:
                return helper.trial_answer(helper.trial(self._ran(container, *arguments), name, protocol))
            case ["suppressed"]:
                inside = self._running(container, "suppressed")
                told = {"refusals": self.suppressed(container), "dropped": inside.limited}
                return {**told, "lines": inside.lines, "counted": inside.counted}
            case ["secrets", _] | ["usage"]:
                answers: list[object] = []
                self.run_helper(container, arguments, answers.append, silence, sent=sent)
                return answers[0]
            case ["see", _]:
                self._running(container, "see")
                return {"agents_see": []}
            case _:
                raise EngineError(
                    "helper-failed", f"fwctl {arguments[0]} failed.", context=[f'unknown verb "{arguments[0]}"']
                )

    def probe(self, container: str, *, envoy: bool = True) -> Probe:
        """Return what `fwctl probe` reports. Tests override this."""
        return helper.probe(self._ran(container, "probe"), envoy=envoy)

    def suppressed(self, container: str) -> int:
        """Return what `fwctl suppressed` reports. Tests override this."""
        return self._ran(container, "suppressed").suppressed

    def removal(self, container: str) -> Future[int]:
        inside = self.inside(container)

        def wait() -> int:
            until(lambda: inside.id not in self._containers)
            return inside.exit_code

        return in_background(wait)

    def last_words(self, container: str, lines: int) -> tuple[str, ...]:
        return tuple(self.inside(container).log[-lines:])

    def clock(self) -> float:
        return time.time() + self.clock_ahead

    @contextmanager
    def log(self, container: str, lines: int | None, *, follow: bool = False) -> Iterator[Iterator[list[bytes]]]:
        """What is followed ends with the context, too. There is no standard error."""
        inside = self.inside(container)
        first = 0 if lines is None else max(0, len(inside.log) - lines)
        left = threading.Event()

        def arriving(at: int) -> Iterator[list[bytes]]:
            while True:  # whether it runs is asked before the last lines are read
                runs = inside.status == "running" and inside.id in self._containers
                written = inside.log[at:]
                at += len(written)
                if written:
                    yield [f"{inside.logged_at} {line}\n".encode() for line in written]
                if not follow or not runs or left.wait(0.01):
                    return

        try:
            yield arriving(first)
        finally:
            left.set()

    def file(self, container: str, path: str) -> File | None:
        try:
            return self.inside(container).files.get(path)
        except NotFoundError:
            return None

    @contextmanager
    def events(self) -> Iterator[Iterator[Event]]:
        events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._followers.append(events)
        try:
            yield iter(events.get, None)
        finally:
            events.put(None)
            if events in self._followers:
                self._followers.remove(events)

    def close(self) -> None:
        """There is no connection to close."""

    def load_image(self, archive_: Iterator[bytes], size: int, on_progress: ProgressCallback) -> None:
        """Reading stops before the layers, which are not kept."""
        del size
        self._require_room("load an image")
        listing, blobs = [], {}
        with tarfile.open(fileobj=archive.IteratorReader(archive_), mode="r|") as tar:
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
            self._built[identity] = _inspected(json.loads(blobs[image["Config"]]))
        on_progress(1.0)

    def pull_image(self, reference: str, on_progress: ProgressCallback) -> None:
        """Every image can be pulled."""
        self._images[reference] = f"sha256:{hashlib.sha256(reference.encode()).hexdigest()}"
        on_progress(1.0)

    def remove_image(self, reference: str) -> None:
        identity = self._images.get(reference, reference)
        if any(each.image == identity for each in tuple(self._containers.values())):
            return
        self._images.pop(reference, None)
        if identity not in self._images.values():
            self._built.pop(identity, None)

    def remove_volume(self, volume: str) -> None:
        self.lost_volumes.pop(volume, None)
        if all(volume not in each.volumes.values() for each in tuple(self._containers.values())):
            self.named_files.pop(volume, None)
            self.drivers.pop(volume, None)

    def create_network(self, spec: NetworkSpec) -> None:
        there = self.networks()  # a copy, because two networks are created concurrently
        if any(network.name == spec.name for network in there):
            raise ConflictError("engine-error", f"The engine could not create network {spec.name}: it exists.")
        if any(spec.subnet.overlaps(other) for network in there for other in network.subnets):
            raise SubnetTakenError("subnet-overlaps", f"The engine could not create network {spec.name}.")
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
        self._emit(Event("network", "create", (spec.name,)))

    def remove_network(self, network: str) -> None:
        found = self._network(network)
        name = found.name
        if any(name in each.networks and each.status in ATTACHED for each in tuple(self._containers.values())):
            raise EngineError("engine-error", f"The engine could not remove network {network}: it is in use.")
        self._emit(Event("network", "destroy", (self._networks.pop(found.id).name,)))

    def create_container(self, spec: ContainerSpec) -> str:
        if any(each.spec.name == spec.name for each in tuple(self._containers.values())):
            raise ConflictError("engine-error", f"The engine could not create container {spec.name}.")
        image = self.image(spec.image)
        if image is None:
            raise NotFoundError("not-found", f"The engine could not create container {spec.name}: no image.")
        self._require_room(f"create container {spec.name}")
        networks = {name: self._address(name, wanted) for name, wanted in spec.shape.networks.items()}
        identity = self._identity()
        requested = any(mount.target == VOLUME and mount.kind == "volume" for mount in spec.shape.mounts)
        volume = labels.volume_labels(spec.labels) if requested else None
        self._containers[identity] = MemoryContainer(
            identity, spec, image.id, dict(spec.files), networks, volume=volume
        )
        self._containers[identity].volumes = self._volumes_of(identity, spec)
        self._mount(self._containers[identity])
        self._emit_for(self._containers[identity], "create")
        return identity

    def _mount(self, inside: MemoryContainer) -> None:
        for mount in inside.spec.shape.mounts:
            if mount.kind == "volume" and mount.source:
                made = VolumeView(
                    mount.source, "local", {}, labels.volume_labels(inside.spec.labels, mount.source)
                )
                self.drivers.setdefault(mount.source, made)
                files = self.named_files.setdefault(mount.source, {})
                if below := _below(mount.target):
                    inside.files |= {f"{below}{path}": file for path, file in files.items()}

    def start(self, container: str) -> None:
        """A program that ends at once is restarted once, like its restart policy says."""
        inside = self.inside(container)
        if inside.status != "restarting":
            inside.restarts = 0
        there = {name: self._network(name).id for name in inside.networks}
        if gone := [id_ for name, id_ in inside.remembered.items() if name in there and id_ != there[name]]:
            raise NotFoundError("not-found", f"The engine could not start container {container}: no {gone[0]}.")
        self._publish(inside)
        inside.remembered = there
        for network in inside.networks:
            self._emit(Event("network", "connect", (network,), inside.id))
        self._emit_for(inside, "start")
        inside.started, inside.status = self._now(), "running"
        inside.addresses = set(inside.networks.values())
        examines = inside.spec.shape.command == examination({}).command
        if examines or ATTEMPTS in inside.files:
            said = [json.dumps({"lacking": self.lacking})] if examines else helper.attempts(inside, self.attempted)
            inside.log += said
            inside.status, inside.exit_code = "exited", 0
            self._emit_for(inside, "die")
            return
        if inside.spec.shape.command[:1] == ("relay",) and HELPER in inside.files:
            return
        if SIBLING not in inside.files and HELPER_PATH in inside.spec.shape.entrypoint:
            again = inside.spec.shape.restart == "always"
            inside.status, inside.exit_code = "restarting" if again else "exited", 1
            inside.restarts += again
            self._emit_for(inside, "die")
            inside.log.append("fwctl: open boot/sibling.json: no such file or directory")
            return
        if helper.CLAIMED in inside.files:
            inside.addresses.add(helper.service_address(inside))
        inside.live, inside.processes = {}, ()
        inside.secrets = {name: each for name, each in inside.secrets.items() if name in inside.secrets_at_rest}
        inside.program = program_of(inside.spec.shape)
        resources = declared(inside.files)
        if resources and not helper.restore_good(inside):
            inside.status, inside.exit_code = "exited", 1
            self._emit_for(inside, "die")
            inside.log.append("fwctl: the hot files are not what was committed")
            return
        for resource, digest in helper.loaded(resources, inside.files).items():
            inside.live[resource] = digest or ""

    def _publish(self, inside: MemoryContainer) -> None:
        others = [each for each in tuple(self._containers.values()) if each.status == "running"]
        taken = {
            text.rpartition(":")[0] for each in others if each is not inside for text in view_of(each).published
        }
        for each in filter(is_published, inside.spec.shape.ports):
            host, at, _ = each.split(":")
            if at and f"{host}:{at}" in taken:
                raise EngineError(
                    "engine-error",
                    f"The engine could not start container {inside.spec.name}.",
                    context=[f"Bind for {host}:{at} failed: port is already allocated"],
                )
            if not at:
                inside.chosen_ports[each] = next(
                    port for port in range(32768, 65536) if f"{host}:{port}" not in taken
                )
                taken.add(f"{host}:{inside.chosen_ports[each]}")

    def stop(self, container: str, seconds: int = STOP_SECONDS) -> None:
        """Every program stops at once."""
        del seconds
        inside = self.inside(container)
        if inside.status not in {"running", "paused", "restarting"}:
            return
        inside.status, inside.addresses, inside.live = "exited", set(), {}
        self._emit_for(inside, "die")

    def unpause(self, container: str) -> None:
        self.inside(container).status = "running"
        self._emit_for(self.inside(container), "unpause")

    def rename(self, container: str, name: str) -> None:
        if any(each.spec.name == name for each in tuple(self._containers.values())):
            raise ConflictError("engine-error", f"The engine could not rename a container to {name}.")
        inside = self.inside(container)
        before, inside.spec = inside.spec.name, replace(inside.spec, name=name)
        self._emit(Event("container", "rename", (name, before), inside.id))

    def remove(self, container: str) -> None:
        try:
            inside = self._containers.pop(self.inside(container).id)
        except NotFoundError:
            return
        if inside.status in ATTACHED:
            self._emit_for(inside, "die")
        self._emit_for(inside, "destroy")

    def connect(self, network: str, container: str, address: str) -> None:
        inside = self.inside(container)
        name = self._network(network).name
        inside.networks[name] = self._address(name, address)
        networks = {**inside.spec.shape.networks, name: address}
        inside.spec = replace(inside.spec, shape=replace(inside.spec.shape, networks=networks))
        if inside.status == "running":
            inside.addresses.add(inside.networks[name])
            inside.remembered[name] = self._network(name).id
            self._emit(Event("network", "connect", (name,), inside.id))

    def disconnect(self, network: str, container: str) -> None:
        """On a full disk, an engine does it, and fails to write it down."""
        inside = self.inside(container)
        name = self._network(network).name
        inside.addresses.discard(inside.networks.pop(name, ""))
        inside.remembered.pop(name, None)
        self._emit(Event("network", "disconnect", (name,), inside.id))
        self._require_room(f"take {container} off network {network}")

    def put_files(self, container: str, files: Files) -> None:
        self._require_room(f"write files into container {container}")
        inside = self.inside(container)
        inside.files.update(files)
        for mount in inside.spec.shape.mounts:
            if mount.source in self.named_files and (below := _below(mount.target)):
                here = {path.removeprefix(below): file for path, file in files.items() if path.startswith(below)}
                self.named_files[mount.source].update(here)
        self._emit_for(inside, "extract-to-dir")

    def run_helper(
        self,
        container: str,
        arguments: Sequence[str],
        on_line: Callable[[Any], None],
        silence: float,
        *,
        sent: bytes = b"",
    ) -> None:
        del silence
        inside = self._running(container, arguments[0])
        with self._program(inside, *arguments):
            if arguments[0] == "commit-in-place" and helper.growth(inside, sent) > _SLACK:
                self._require_room(f"run fwctl {arguments[0]} in container {container}")
            helper.run_verb(inside, arguments, on_line, sent)

    def _require_room(self, what: str) -> None:
        if self.disk_full:
            raise DiskFullError("engine-disk-full", f"The engine could not {what}, because its disk is full.")

    def inside(self, container: str) -> MemoryContainer:
        """Return a container's state by its id or name."""
        if container in self._containers:
            return self._containers[container]
        for each in tuple(self._containers.values()):
            if each.spec.name == container:
                return each
        raise NotFoundError("not-found", f"There is no container {container}.")

    def retag(self, reference: str, image: str | None) -> None:
        """Move a tag to another image, or remove it, as `docker tag` and `docker rmi` do."""
        self._images.pop(reference, None)
        if image:
            self._images[reference] = image
        self._emit(Event("image", "untag", (reference,)))

    def alter_network(self, name: str, **fields: Any) -> None:  # noqa: ANN401 - those of `NetworkView`
        """Change fields of a network that containers stay connected to."""
        network = self._network(name)
        self._networks[network.id] = replace(network, **fields)

    def join(self, container: str, joined: str) -> None:
        """Put a container into the network of another one, as `docker run --network container:JOINED` does."""
        inside, other = self.inside(container), self.inside(joined)
        inside.network_mode, inside.networks = f"container:{joined}", {}
        inside.network_owner = other.network_owner or other.id

    def pause(self, container: str) -> None:
        self.inside(container).status = "paused"
        self._emit_for(self.inside(container), "pause")

    def go_away(self) -> None:
        """End every stream of events, as a stopping engine does."""
        while self._followers:
            self._followers.pop().put(None)

    def _emit(self, event: Event) -> None:
        for events in self._followers:
            events.put(event)

    def _emit_for(self, inside: MemoryContainer, action: str, words: str = "", run: str = "") -> None:
        self._emit(Event("container", action, (inside.spec.name,), inside.id, words, run))

    @contextmanager
    def _program(self, inside: MemoryContainer, *arguments: str) -> Iterator[None]:
        run = secrets.token_hex(32)
        self._emit_for(inside, "exec_start", " ".join((HELPER_PATH, *arguments)), run)
        try:
            yield
        finally:
            self._emit_for(inside, "exec_die", run=run)

    def _ran(self, container: str, *arguments: str) -> MemoryContainer:
        inside = self._running(container, arguments[0])
        with self._program(inside, *arguments):
            return inside

    def _running(self, container: str, verb: str) -> MemoryContainer:
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

    def _volumes_of(self, identity: str, spec: ContainerSpec) -> dict[str, str]:
        """Return the names of a container's volumes by their places: its own, and those of other containers."""
        found: dict[str, str] = {}
        for each in spec.shape.volumes_from:
            found |= self.inside(each).volumes
        mounted = [mount for mount in spec.shape.mounts if mount.kind == "volume"]
        return found | {each.target: each.source or f"{identity[-8:]}{each.target}" for each in mounted}

    def _identity(self) -> str:
        return f"{next(self._numbers):064x}"

    def _now(self) -> str:
        later = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(self._numbers))
        return f"{later:%Y-%m-%dT%H:%M:%S.%f}Z"


def _below(target: str) -> str:
    """Return how the paths in our own volume begin of what is mounted in it, or an empty string."""
    return f"{target.removeprefix(VOLUME)[1:]}/" if target.startswith(f"{VOLUME}/") else ""


def _inspected(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "Config": config.get("config"),
        "Architecture": config.get("architecture"),
        "RootFS": {"Layers": config["rootfs"]["diff_ids"]},
    }
