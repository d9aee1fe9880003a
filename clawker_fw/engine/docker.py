"""A Docker engine, through the Docker SDK (https://docs.docker.com/reference/api/engine/).

Raw JSON, SDK types and the engine's error texts stay in `engine`. The code uses only what API 1.41 (engine 20.10)
and all later versions have in common.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from docker import auth, errors, utils
from docker.types import IPAMConfig, IPAMPool

from clawker_fw.background import in_background
from clawker_fw.engine import archive, bounds, failures, host_network, pulling, requirements, streams, translate
from clawker_fw.engine.failures import FAILURES, readable, shortened, translated, unreachable
from clawker_fw.engine.helper_program import run_in_helper
from clawker_fw.engine.locate import EngineLocation, locate
from clawker_fw.engine.outputs import log_lines
from clawker_fw.engine.own_container import own_container
from clawker_fw.engine.port import NOTHING, STOP_SECONDS, ProgressCallback
from clawker_fw.engine.shapes import creation, hardware_address
from clawker_fw.engine.transport import Client, open_client
from clawker_fw.errors import ConflictError, EngineError, NotFoundError, SubnetTakenError, after
from clawker_fw.model.containers import ContainerSpec, ContainerSummary, ContainerView
from clawker_fw.model.engines import EngineFacts, Event, Machine
from clawker_fw.model.files import File, Files
from clawker_fw.model.images import ImageView, OwnImage
from clawker_fw.model.networks import NetworkSpec, NetworkView
from clawker_fw.model.volumes import VolumeView
from clawker_fw.stack import image_tar, labels
from clawker_fw.stack.container import VOLUME

_EVENTS = {
    "type": ["container", "network", "image"],
    "event": [
        *("create", "start", "die", "pause", "unpause", "rename", "update", "destroy", "health_status"),
        *("exec_start", "exec_die", "extract-to-dir", "connect", "disconnect", "untag", "delete"),
    ],
}
"""The events to subscribe to. `kill` and `stop` are left out, because `die` follows them."""

_PROGRESS_SECONDS = 0.2

_GOING = {"removing", "dead"}
"""The states of a container that is being removed, or was removed only partly."""

_LOG_SECONDS = 30.0
"""The longest silence of an engine that sends a log."""

_SHOWN = 64
"""The longest part of a name in an error, in characters."""

_View = TypeVar("_View")

_NO_ENGINE = "It does not answer as an engine does"


def connect(host: str | None, context: str | None, environment: Mapping[str, str]) -> "DockerEngine":
    """Connect to the engine that the docker CLI would use. Raise EngineError if that is impossible."""
    return connect_to(locate(host, context, environment))


def connect_to(place: EngineLocation, seconds: float | None = None) -> "DockerEngine":
    """Connect to an engine with a timeout for its answers (default: a minute). Raise EngineError if that fails."""
    seconds = seconds or failures.CALL_SECONDS
    with ExitStack() as failed:
        try:
            client = open_client(place, requirements.OLDEST_API, seconds)
            failed.callback(client.close)
            engine = _connected(client, place)
        except FAILURES as error:
            raise unreachable(place, error, seconds) from error
        failed.pop_all()
        return engine


def _connected(client: Client, place: EngineLocation) -> "DockerEngine":
    try:
        version = _object(client.version(api_version=False))
    except (LookupError, TypeError) as error:  # the SDK assumes a form of error messages
        raise ConnectionError(_NO_ENGINE) from error
    facts = requirements.facts(place.address, version)
    first, client = client, open_client(place, facts.api_version, client.timeout)
    client.adapters = first.adapters  # the same connections
    info = _object(client.info())
    requirements.require_abilities(place.address, info)
    inside = own_container(client, info)
    facts = replace(facts, endpoint=place.address, named_by=place.source, plain=place.plain, inside=inside)
    return DockerEngine(client, facts, requirements.container_root(info))


class DockerEngine:
    """An `EngineWriter` for a Docker engine, usable from several threads."""

    def __init__(self, client: Client, facts: EngineFacts, root: tuple[int, int]) -> None:
        """Use a connected client. `root` is the user and group on the host of a container's root."""
        self._client = client
        self._facts = facts
        self._root = root
        self._evidence: dict[str, str] = {}
        """By container: what `fwctl` has read of the program, so that a probe reads only changes.

        Dumping the config of an Envoy with thousands of rules blocks it for half a second. Only this process,
        where nobody else can write, stores it.
        """
        self._inspecting = threading.Lock()
        self._projects: dict[str, str] = {}
        """By the id of a container with our labels: the project for which we made it, or ""."""
        self._names: dict[str, str] = {}
        """By id: the names of containers, for errors. A name such as `clawker-envoy-next` shows the purpose."""

    def close(self) -> None:
        self._client.close()

    def facts(self) -> EngineFacts:
        return replace(self._facts, routes=host_network.routes() if self._facts.shares_network else ())

    def machine(self) -> Machine:
        with readable("its machine"), translated("describe its machine"):
            return requirements.machine(_object(self._client.info()))

    def networks(self) -> tuple[NetworkView, ...]:
        with readable("its networks"), translated("list its networks"):
            answers = _objects(self._client.networks())
        networks = tuple(_network(raw) for raw in answers)
        if not self._facts.shares_network:
            return networks
        return tuple(
            replace(network, sources_checked=host_network.checks_sources(translate.bridge_of(network)))
            for network in networks
        )

    def listing(self) -> tuple[ContainerSummary, ...]:
        """List without a filter, because the engine's name filter also matches parts of names.

        A list does not show the form of a container, so those with our labels are inspected once.
        """
        with readable("its containers"), translated("list its containers"):
            answers = _objects(self._client.containers(all=True))
        containers = [_read(translate.container_summary, raw, "container") for raw in answers]
        self._names = {container.id: container.name for container in containers if container.name}
        labelled = [container.id for container in containers if labels.project_of(container.labels)]
        with self._inspecting:  # threads that list for several stacks inspect a container once
            before, projects = self._projects, dict[str, str]()
            for id_ in labelled:
                if id_ in before:
                    projects[id_] = before[id_]
                elif view := self.container(id_):
                    projects[id_] = view.project
            self._projects = projects
        summaries = (replace(container, project=projects.get(container.id, "")) for container in containers)
        return tuple(sorted(summaries, key=lambda summary: summary.name))

    def container(self, container: str) -> ContainerView | None:
        """The engine also accepts a prefix of an id, so check the result."""
        what = f"container {self._named(container)}"
        try:
            with readable(what), translated(f"inspect {what}"):
                answer = _object(self._client.inspect_container(container))
        except NotFoundError:
            return None
        view = _read(translate.container_view, answer, "container")
        return view if container in {view.id, view.name} else None

    def _named(self, container: str) -> str:
        return self._names.get(container, shortened(container))

    def own_images(self) -> tuple[OwnImage, ...]:
        """Labels only select the images to inspect."""
        own_images: list[OwnImage] = []
        with readable("its images"), translated("list its images"):
            ours = [f"{key}={value}" for key, value in image_tar.LABELS.items()]
            identities = [raw["Id"] for raw in _objects(self._client.images(filters={"label": ours}))]
        for identity in identities:
            what = f"image {identity}"
            with suppress(NotFoundError), readable(what), translated(f"inspect {what}"):
                if tags := translate.own_tags(self._inspected_image(identity)):
                    own_images.append(OwnImage(identity, tags))
        return tuple(own_images)

    def unused_volumes(self, project: str) -> tuple[VolumeView, ...]:
        ours = [f"{key}={value}" for key, value in labels.ownership_labels(project).items()]
        with readable("its volumes"), translated("list its volumes"):
            answer = _object(self._client.volumes(filters={"label": ours, "dangling": True}))["Volumes"]
            unused = [translate.volume_view(raw) for raw in answer or () if translate.is_own_volume(raw, project)]
        return tuple(sorted(unused, key=lambda volume: volume.name))

    def volumes(self) -> tuple[VolumeView, ...]:
        with readable("its volumes"), translated("list its volumes"):
            return tuple(map(translate.volume_view, _object(self._client.volumes())["Volumes"] or ()))

    def image(self, reference: str) -> ImageView | None:
        try:
            with translated(f"inspect image {reference}"):
                raw = self._inspected_image(_without_tag(reference))
        except NotFoundError:
            return None
        with readable(f"image {reference}"):
            return ImageView(raw["Id"], tuple(raw["Config"].get("Env") or ()) if raw.get("Config") else ())

    def _inspected_image(self, reference: str) -> Mapping[str, Any]:
        return _object(self._client.inspect_image(reference))  # type: ignore[no-untyped-call]  # the stub has no types

    def files(self, container: str, known: Files = NOTHING) -> Files:
        with self._unless_removed(container), translated(f"read the files of container {self._named(container)}"):
            stream, _ = self._client.get_archive(container, VOLUME, chunk_size=archive.CHUNK)
            return archive.unpack(stream, known, self._root)

    @contextmanager
    def _unless_removed(self, container: str) -> Iterator[None]:
        """Translate errors about a container that is being removed into `NotFoundError`.

        During a removal, engines answer with internal errors ("RWLayer … is unexpectedly nil").
        """
        try:
            yield
        except NotFoundError:
            raise
        except EngineError as error:
            view = self.container(container)
            if view is None or view.status in _GOING:
                raise NotFoundError("not-found", error.message, context=error.context) from error
            raise

    def ask_helper(self, container: str, arguments: Sequence[str], silence: float, *, sent: bytes = b"") -> object:
        """A probe gets what an earlier one has read, so that it reads only changes."""
        evidence = self._evidence.get(container)
        earlier = [f"known={evidence}"] if evidence and arguments[0] == "probe" else []
        answers: list[object] = []
        self.run_helper(container, [*arguments, *earlier], answers.append, silence, sent=sent)
        return answers[0] if len(answers) == 1 else None

    def removal(self, container: str) -> Future[int]:
        """The engine sends the response's head once it waits."""
        waiting = f"wait for container {self._named(container)}"
        params = {"condition": "removed"}
        with translated(waiting):
            response = self._client.open_response("POST", f"/containers/{container}/wait", None, params=params)

        def wait() -> int:
            with readable(f"container {self._named(container)}"), translated(waiting), response:
                return int(json.loads(streams.read(response, bounds.COMPLAINT))["StatusCode"])

        return in_background(wait)

    def last_words(self, container: str, lines: int) -> tuple[str, ...]:
        with translated(f"read the log of container {self._named(container)}"):
            raw = self._client.logs(container, tail=lines)
        return tuple(raw.decode(errors="replace").splitlines())

    def clock(self) -> float:
        """Assume that the engine read its clock in the middle of the request."""
        before = time.monotonic()
        with readable("its time"), translated("tell its time"):
            system_time = str(_object(self._client.info())["SystemTime"])
            return datetime.fromisoformat(system_time).timestamp() - (time.monotonic() - before) / 2

    @contextmanager
    def log(self, container: str, lines: int | None, *, follow: bool = False) -> Iterator[Iterator[list[bytes]]]:
        """Never use `since`, because the engine would read the whole log to find the place."""
        what = f"read the log of container {self._named(container)}"
        tail = "all" if lines is None else lines
        params = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(follow), "tail": tail}
        silence = None if follow else _LOG_SECONDS
        with self._unless_removed(container), translated(what):
            response = self._client.open_response("GET", f"/containers/{container}/logs", silence, params=params)

        def arriving() -> Iterator[list[bytes]]:
            with self._unless_removed(container), translated(what):
                yield from log_lines(streams.contents(response))

        try:
            yield arriving()
        finally:
            response.close()

    def file(self, container: str, path: str) -> File | None:
        what = f"read a file of container {self._named(container)}"
        with suppress(NotFoundError), self._unless_removed(container), translated(what):
            stream, _ = self._client.get_archive(container, f"{VOLUME}/{path}", chunk_size=archive.CHUNK)
            return next(iter(archive.unpack(stream, root=self._root).values()), None)
        return None

    @contextmanager
    def events(self) -> Iterator[Iterator[Event]]:
        with translated("report its events"):
            stream = self._client.events(decode=False, filters=_EVENTS)
        try:
            yield streams.events_of(stream)
        finally:
            with suppress(*FAILURES):  # a stream over SSH can't be closed; it ends with the process
                stream.close()

    def load_image(self, archive_: Iterator[bytes], size: int, on_progress: ProgressCallback) -> None:
        def counted() -> Iterator[bytes]:
            sent = 0
            for chunk in archive_:
                yield chunk
                sent += len(chunk)
                on_progress(min(1.0, sent / size))

        with translated("load an image"):
            self._progress("/images/load", self._client.timeout, lambda _: None, data=counted())

    def pull_image(self, reference: str, on_progress: ProgressCallback) -> None:
        """Call `on_progress` several times a second, even without new data."""
        transfer = pulling.Transfer()
        pull = in_background(self._pull, reference, transfer)
        while not wait([pull], _PROGRESS_SECONDS).done:
            on_progress(transfer.share)
        pull.result()

    def _pull(self, reference: str, transfer: pulling.Transfer) -> None:
        changed = time.monotonic()

        def on_line(line: Mapping[str, Any]) -> None:
            nonlocal changed
            if transfer.take(line):
                changed = time.monotonic()
            elif time.monotonic() - changed > pulling.STALLED_SECONDS:
                raise TimeoutError

        with translated(f"pull {reference}"):
            try:
                name, tag = utils.parse_repository_tag(_without_tag(reference))
                registry, _ = auth.resolve_repository_name(name)
                login = auth.get_config_header(self._client, registry)
                self._progress(
                    "/images/create",
                    pulling.STALLED_SECONDS,
                    on_line,
                    params={"fromImage": name, "tag": tag or "latest"},
                    headers={"X-Registry-Auth": login} if login else {},
                )
            except TimeoutError as error:
                raise EngineError(
                    "pull-stalled",
                    f"Nothing more of {reference} has arrived for {pulling.STALLED_SECONDS} s.",
                    hint=f"{pulling.registry_of(reference)} does not answer the engine. Run again when it does.",
                ) from error
            except errors.DockerException as error:
                words = str(getattr(error, "explanation", None) or error)
                raise pulling.failure(reference, f"linux/{self._facts.architecture}", words) from error

    def _progress(
        self,
        path: str,
        silence: float,
        on_line: Callable[[Mapping[str, Any]], None],
        **options: Any,  # noqa: ANN401 - those of `requests`
    ) -> None:
        """Send a request, and read its progress as lines of JSON. A line with an error raises it."""
        with self._client.open_response("POST", path, silence, **options) as response:
            for line in streams.json_lines(streams.contents(response)):
                if "error" in line:
                    raise errors.DockerException(line["error"])
                on_line(line)

    def remove_image(self, reference: str) -> None:
        with suppress(NotFoundError, ConflictError), translated(f"remove image {reference}"):
            self._client.remove_image(reference)

    def remove_volume(self, volume: str) -> None:
        with suppress(NotFoundError, ConflictError), translated(f"remove volume {volume}"):
            self._client.remove_volume(volume)

    def create_network(self, spec: NetworkSpec) -> None:
        pool = IPAMPool(subnet=str(spec.subnet), iprange=str(spec.ip_range), gateway=str(spec.gateway))
        try:
            with translated(f"create network {spec.name}"):
                self._client.create_network(
                    spec.name,
                    driver="bridge",
                    internal=spec.internal,
                    ipam=IPAMConfig(pool_configs=[pool]),
                    options=dict(spec.options),
                    labels=dict(spec.labels),
                    check_duplicate=True,
                )
        except EngineError as error:
            # "Pool overlaps with other one on this address space", "networks have overlapping IPv4"
            if not any("overlap" in line for line in error.context):
                raise
            hint = "Repeat the command: it looks for a free subnet, if it may choose."
            raise SubnetTakenError("subnet-overlaps", error.message, context=error.context, hint=hint) from error

    def remove_network(self, network: str) -> None:
        with translated(f"remove network {network}"):
            self._client.remove_network(network)

    def create_container(self, spec: ContainerSpec) -> str:
        """Remove the container again if it can't be completed."""
        request, further = creation(spec, self._client.api_version)
        with translated(f"create container {spec.name}"):
            answer = self._client.create_container_from_config(request, spec.name)  # type: ignore[no-untyped-call]  # the stub lacks its types
            with readable(f"container {spec.name}"):
                identity = str(answer["Id"])
        self._names[identity] = spec.name
        try:
            with translated(f"create container {spec.name}"):
                for name, address in further.items():
                    self._client.connect_container_to_network(identity, name, ipv4_address=address)
                if spec.files:
                    self._client.put_archive(identity, VOLUME, archive.pack(spec.files))
        except BaseException as error:
            with after(error, "it was not removed either"), translated(f"remove container {spec.name}"):
                self._client.remove_container(identity, v=True, force=True)
            raise
        return identity

    def start(self, container: str) -> None:
        with translated(f"start container {self._named(container)}"):
            self._client.start(container)

    def stop(self, container: str, seconds: int = STOP_SECONDS) -> None:
        with translated(f"stop container {self._named(container)}"):
            self._client.stop(container, timeout=seconds)

    def unpause(self, container: str) -> None:
        with translated(f"unpause container {self._named(container)}"):
            self._client.unpause(container)

    def rename(self, container: str, name: str) -> None:
        with translated(f"rename container {self._named(container)} to {name}"):
            self._client.rename(container, name)

    def remove(self, container: str) -> None:
        with suppress(NotFoundError), translated(f"remove container {self._named(container)}"):
            self._client.stop(container, timeout=STOP_SECONDS)
            self._client.remove_container(container, v=True, force=True)

    def connect(self, network: str, container: str, address: str) -> None:
        with translated(f"put {self._named(container)} on network {network}"):
            self._client.connect_container_to_network(
                container,
                network,
                ipv4_address=address or None,
                mac_address=hardware_address(address) if address else None,
            )

    def disconnect(self, network: str, container: str) -> None:
        with translated(f"take {self._named(container)} off network {network}"):
            self._client.disconnect_container_from_network(container, network, force=True)

    def put_files(self, container: str, files: Files) -> None:
        with translated(f"write files into container {self._named(container)}"):
            self._client.put_archive(container, VOLUME, archive.pack(files))

    def run_helper(
        self,
        container: str,
        arguments: Sequence[str],
        on_line: Callable[[Any], None],
        silence: float,
        *,
        sent: bytes = b"",
    ) -> None:
        def keep(answer: object) -> None:
            if isinstance(answer, dict) and (evidence := answer.get("evidence")):
                self._evidence[container] = json.dumps(evidence, separators=(",", ":"))
            on_line(answer)

        run_in_helper(self._client, container, arguments, keep, silence, sent=sent)


def _without_tag(reference: str) -> str:
    """Return a digest reference without its tag, which engines would take for part of the name."""
    name, at, digest = reference.partition("@")
    if not at:
        return reference
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}@{digest}"


def _read(view_of: Callable[[Mapping[str, Any]], _View], raw: Mapping[str, Any], kind: str) -> _View:
    """Translate the engine's description of an object. Errors name it."""
    with readable(f"{kind} {str(raw.get('Name') or raw.get('Id') or '')[:_SHOWN]}"):
        return view_of(raw)


def _network(raw: Mapping[str, Any]) -> NetworkView:
    """Read a network. If it is not ours and unreadable, return only its id and name."""
    try:
        return _read(translate.network_view, raw, "network")
    except EngineError as error:
        with readable("a network"):
            if labels.project_of(raw.get("Labels") or {}):
                raise
            return translate.unreadable_network(raw, error.context[0])


def _object(answer: object) -> Mapping[str, Any]:
    """Return an answer that must be an object, because the SDK passes on any JSON."""
    if isinstance(answer, dict):
        return answer
    raise ConnectionError(_NO_ENGINE)


def _objects(answer: object) -> Sequence[Mapping[str, Any]]:
    """Return an answer that must be a list of objects; nothing else counts as an empty list."""
    if isinstance(answer, list):
        return [_object(item) for item in answer]
    raise ConnectionError(_NO_ENGINE)
