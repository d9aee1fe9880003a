"""A Docker engine, through its HTTP API (https://docs.docker.com/reference/api/engine/).

With `ssh.py` the only module that imports `docker`: raw JSON, SDK types and error prose stop here. Written for API
1.41 (engine 20.10) and later, without anything that a later version changed.
"""

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests
from docker import APIClient, errors
from docker.tls import TLSConfig
from docker.types import EndpointConfig, HostConfig, IPAMConfig, IPAMPool, LogConfig, NetworkingConfig
from docker.types import Mount as VolumeMount
from requests.adapters import HTTPAdapter
from urllib3 import disable_warnings
from urllib3.exceptions import InsecureRequestWarning

from clawker_fw.engine import archive, pulling, requirements, routes
from clawker_fw.engine.inspection import (
    container_view,
    event_view,
    image_form,
    is_own_volume,
    listed,
    network_view,
)
from clawker_fw.engine.locate import DEFAULT_ADDRESS, EngineLocation, locate
from clawker_fw.engine.outputs import outputs
from clawker_fw.engine.port import NOTHING, STOP_SECONDS, ProgressCallback
from clawker_fw.engine.ssh import SshAdapter
from clawker_fw.errors import ConflictError, EngineError, NotFoundError
from clawker_fw.model import (
    ContainerSpec,
    ContainerSummary,
    ContainerView,
    EngineFacts,
    Event,
    Files,
    ImageView,
    NetworkSpec,
    NetworkView,
    OwnImage,
    Probe,
    Shape,
)
from clawker_fw.stack import built, labels
from clawker_fw.stack.container import HELPER_PATH, VOLUME

LOG = logging.getLogger("clawker_fw")

_EVENTS = {
    "type": ["container", "network", "image"],
    "event": [
        *("create", "start", "die", "pause", "unpause", "rename", "update", "destroy", "health_status"),
        *("exec_start", "extract-to-dir", "connect", "disconnect", "untag", "delete"),
    ],
}
"""What is asked for: a `kill` or `stop` tells of nothing that a `die` does not, and comes at another moment."""

_NANOSECONDS = 1_000_000_000
_CALL_SECONDS = 60
_SILENT_SECONDS = 5
"""How long an engine is waited for without a word."""

STALLED_SECONDS = 120
"""How long a pull may go on with nothing changing: a registry that is slow is waited for, a silent one is not."""

_LISTEN_SECONDS = 0.2


def connect(host: str | None, context: str | None, environment: Mapping[str, str]) -> "DockerEngine":
    """Return the engine that the docker CLI would use.

    Raises:
        EngineError: when it can't be found or reached, or could not carry the firewall.
    """
    place = locate(host, context, environment)
    try:
        first = _client(place, requirements.OLDEST_API)
        version = _version(first)
        facts = replace(requirements.facts(place.address, version), endpoint=place.address, named_by=place.source)
        client = _client(place, facts.api_version)
        client.adapters = first.adapters  # and with them the connections that are open
        info = client.info()
        requirements.require_abilities(place.address, info)
    except (errors.DockerException, requests.RequestException, OSError) as error:
        raise _unreachable(place, error) from error
    return DockerEngine(client, facts, place.address, requirements.container_root(info))


def _unreachable(place: EngineLocation, error: Exception) -> EngineError:
    """Return why an engine can't be reached, with what helps against it."""
    reason = _innermost(error)
    context = [str(reason), f"named by {place.source}", *_trust(place)]
    if isinstance(reason, PermissionError):
        return EngineError(
            "engine-denied",
            f"You may not use the Docker engine at {place.address}.",
            context=[*context, *_owner(place)],
            hint="Run this as root, or as a member of the group that the socket belongs to.",
        )
    if isinstance(error, requests.Timeout) or isinstance(reason, TimeoutError):
        return EngineError(
            "engine-silent",
            f"The Docker engine at {place.address} is there, and does not answer.",
            context=[f"waited {_CALL_SECONDS} s", *context],
            hint="It hangs, or has far too much to do: see its log, and restart it.",
        )
    return EngineError(
        "engine-unreachable",
        f"The Docker engine at {place.address} can't be reached.",
        context=context,
        hint="Start it, or say where it is with --host, --context or DOCKER_HOST.",
    )


def _owner(place: EngineLocation) -> list[str]:
    """Return whom an engine's socket belongs to, where that can be seen."""
    try:
        path = Path(place.address.removeprefix("unix://"))
        return [f"{path} belongs to user {path.owner()} and group {path.group()}"]
    except (OSError, KeyError):
        return []


class _Client(APIClient):
    """Says who is waited for when an engine is silent. Only what is asked: what is to be done may take long."""

    address = ""
    silent = False

    def send(self, request: Any, **options: Any) -> Any:  # noqa: ANN401 - requests' own
        """Send a request."""
        if request.method != "GET":
            return super().send(request, **options)
        timer = threading.Timer(_SILENT_SECONDS, self._tell)
        timer.daemon = True
        timer.start()
        try:
            answer = super().send(request, **options)
        finally:
            timer.cancel()
        self.silent = False
        return answer

    def _tell(self) -> None:
        """Say so once, until it answers again."""
        if not self.silent:
            self.silent = True
            words = (
                f"Waiting for the Docker engine at {self.address}, which has not answered for {_SILENT_SECONDS} s."
            )
            fields = {"address": self.address, "seconds": _SILENT_SECONDS}
            LOG.warning("engine_silent", extra={"words": words, "fields": fields})


def _version(client: APIClient) -> Mapping[str, Any]:
    """Return what an engine says it is; what answers in another form is none."""
    try:
        found: object = client.version(api_version=False)
    except (LookupError, TypeError) as error:  # the SDK takes every answer for an engine's
        raise errors.DockerException("It does not answer as an engine does") from error
    if isinstance(found, dict):
        return found
    raise errors.DockerException("It does not answer as an engine does")


def _client(place: EngineLocation, version: str) -> APIClient:
    """Return a client for an engine; nothing is asked of it yet."""
    options: dict[str, Any] = {}
    trusted: str | bool = False
    if place.tls:
        authority = str(place.tls.authority) if place.tls.authority else None
        trusted = place.tls.verify and (authority or True)
        certificate = (str(place.tls.client[0]), str(place.tls.client[1])) if place.tls.client else None
        options["tls"] = TLSConfig(certificate, authority, place.tls.verify)
    address = DEFAULT_ADDRESS if place.over_ssh else place.address
    try:
        client = _Client(base_url=address, version=version, timeout=_CALL_SECONDS, **options)
    except (errors.InvalidConfigFile, ValueError) as error:
        raise EngineError(
            "docker-config-invalid",
            "The credentials in the docker CLI's configuration make no sense.",
            context=[str(error)],
            hint="They are under `auths` in its config.json; `docker login` writes them.",
        ) from error
    client.address = place.address
    if place.over_ssh:
        client.mount("http+docker://", SshAdapter(place.address, _CALL_SECONDS))
    elif place.tls:
        client.mount("https://", _Trusting(trusted))
    return client


class _Trusting(HTTPAdapter):
    """Trusts whom the docker CLI would; left to itself, `requests` would rather trust `REQUESTS_CA_BUNDLE`."""

    def __init__(self, trusted: str | bool) -> None:  # noqa: FBT001 - what `requests` calls `verify`
        super().__init__()
        self._trusted = trusted
        if trusted is False:
            disable_warnings(InsecureRequestWarning)  # the user asked for it

    def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]  # noqa: ANN401 - requests' own
        """Send a request."""
        return super().send(request, **{**options, "verify": self._trusted})


def _trust(place: EngineLocation) -> list[str]:
    """Return what an error says about TLS."""
    if place.tls is None:
        return []
    parts = {"ca.pem": place.tls.authority, "cert.pem and key.pem": place.tls.client}
    missing = [name for name, path in parts.items() if path is None]
    return [f"TLS by the files in {place.tls.folder}{''.join(f', without {name}' for name in missing)}"]


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return error


def _heard(listen: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """Yield what a stream says, and an empty line whenever it has said nothing for a moment.

    It is listened to in a thread of its own: an engine is silent for as long as its registry is. Whoever does not
    want to hear more leaves the thread behind; it ends with the process, and with it the engine's pull.
    """
    lines: queue.Queue[Any] = queue.Queue()
    end = object()

    def hear() -> None:
        try:
            for line in listen():
                lines.put(line)
            lines.put(end)
        except Exception as error:  # noqa: BLE001 - raised again, by whoever listens
            lines.put(error)

    threading.Thread(target=hear, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=_LISTEN_SECONDS)
        except queue.Empty:
            line = {}
        if line is end:
            return
        if isinstance(line, Exception):
            raise line
        yield line


@contextmanager
def _translated(what: str, *, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Translate what the SDK raises into one of our errors; `what` completes "The engine could not …".

    What is excepted with `but` is left to whoever knows more about it.
    """
    try:
        yield
    except but:
        raise
    except errors.NotFound as error:
        explanation = str(error.explanation)
        raise NotFoundError("not-found", f"The engine could not {what}.", context=[explanation]) from error
    except errors.APIError as error:
        kind = ConflictError if error.status_code == requests.codes.conflict else EngineError
        raise kind(
            "engine-error", f"The engine could not {what}.", context=[str(error.explanation or error)]
        ) from error
    except (errors.DockerException, requests.RequestException, OSError) as error:
        raise EngineError(
            "engine-unreachable",
            f"The engine did not answer when asked to {what}.",
            context=[str(_innermost(error))],
        ) from error


class DockerEngine:
    """`EngineWriter` over a Docker engine. Calls may be made from several threads."""

    def __init__(self, client: APIClient, facts: EngineFacts, address: str, root: tuple[int, int]) -> None:
        """Use a connected client. `root` is the owner that the engine knows for files of a container's root."""
        self._client = client
        self._facts = facts
        self._root = root
        self.address = address

    def close(self) -> None:
        """See `EngineReader`."""
        self._client.close()

    # --- reading ----------------------------------------------------------------------------------------------

    def facts(self) -> EngineFacts:
        """See `EngineReader`."""
        return replace(self._facts, routes=routes.of_this_machine() if self._facts.local else ())

    def networks(self) -> tuple[NetworkView, ...]:
        """See `EngineReader`."""
        with _translated("list its networks"):
            return tuple(network_view(raw) for raw in self._client.networks())

    def listing(self) -> tuple[ContainerSummary, ...]:
        """See `EngineReader`. Unfiltered, since the engine's name filter matches parts of names."""
        with _translated("list its containers"):
            found = (listed(raw) for raw in self._client.containers(all=True))
            return tuple(sorted(found, key=lambda each: each.name))

    def container(self, container: str) -> ContainerView | None:
        """See `EngineReader`. An engine also takes the beginning of an id for the whole."""
        try:
            with _translated(f"inspect container {container}"):
                view = container_view(self._client.inspect_container(container))
        except NotFoundError:
            return None
        return view if container in {view.id, view.name} else None

    def own_images(self) -> tuple[OwnImage, ...]:
        """See `EngineReader`. Labels only say which images to look at."""
        found: list[OwnImage] = []
        with _translated("list its images"):
            wanted = [f"{key}={value}" for key, value in built.LABELS.items()]
            listing = self._client.images(filters={"label": wanted})
        for listed_ in listing:
            with suppress(NotFoundError), _translated(f"inspect image {listed_['Id']}"):
                form = image_form(self._client.inspect_image(listed_["Id"]))  # type: ignore[no-untyped-call]
                if references := built.our_references(form):
                    found.append(OwnImage(form.id, references))
        return tuple(found)

    def orphans(self, project: str) -> tuple[str, ...]:
        """See `EngineReader`."""
        ours = [f"{key}={value}" for key, value in labels.ownership_labels(project).items()]
        with _translated("list its volumes"):
            found = self._client.volumes(filters={"label": ours, "dangling": True})["Volumes"]
        return tuple(sorted(raw["Name"] for raw in found or () if is_own_volume(raw, project)))

    def image(self, reference: str) -> ImageView | None:
        """See `EngineReader`."""
        try:
            with _translated(f"inspect image {reference}"):
                raw = self._client.inspect_image(_without_tag(reference))  # type: ignore[no-untyped-call]
        except NotFoundError:
            return None
        return ImageView(raw["Id"], tuple(raw["Config"].get("Env") or ()) if raw.get("Config") else ())

    def files(self, container: str, known: Files = NOTHING) -> Files:
        """See `EngineReader`."""
        with _translated(f"read the files of container {container}"):
            stream, _ = self._client.get_archive(container, VOLUME, chunk_size=archive.CHUNK)
            return archive.unpack(stream, known, self._root)

    def probe(self, container: str) -> Probe:
        """See `EngineReader`."""
        answers: list[Any] = []
        self.run_helper(container, ["probe"], answers.append)
        if len(answers) != 1:
            raise EngineError("probe-unreadable", f"Container {container} gave no readable answer to a probe.")
        return archive.probe(answers[0])

    def last_words(self, container: str, lines: int) -> tuple[str, ...]:
        """See `EngineReader`."""
        with _translated(f"read the log of container {container}"):
            raw = self._client.logs(container, tail=lines)
        return tuple(raw.decode(errors="replace").splitlines())

    @contextmanager
    def events(self) -> Iterator[Iterator[Event]]:
        """See `EngineReader`."""
        with _translated("tell what happens on it"):
            stream = self._client.events(decode=True, filters=_EVENTS)
        try:
            yield _told(stream)
        finally:
            with suppress(
                errors.DockerException, OSError
            ):  # one over SSH can't be closed; it ends with the process
                stream.close()

    # --- writing ----------------------------------------------------------------------------------------------

    def load_image(self, archive_: Iterator[bytes], size: int, tell: ProgressCallback) -> None:
        """See `EngineWriter`."""

        def counted() -> Iterator[bytes]:
            sent = 0
            for chunk in archive_:
                yield chunk
                sent += len(chunk)
                tell(min(1.0, sent / size))

        with _translated("load an image"):
            stream = self._client.load_image(counted())  # type: ignore[no-untyped-call]
            self._drain_stream(stream, lambda _: None)

    def pull_image(self, reference: str, tell: ProgressCallback) -> None:
        """See `EngineWriter`. `tell` is called several times a second, also while nothing arrives."""
        transfer, changed = pulling.Transfer(), time.monotonic()

        def on_line(line: Mapping[str, Any]) -> None:
            nonlocal changed
            if transfer.take(line):
                changed = time.monotonic()
            elif time.monotonic() - changed > STALLED_SECONDS:
                raise pulling.stalled(reference, STALLED_SECONDS)
            tell(transfer.share)

        try:
            with _translated(f"pull {reference}", but=errors.DockerException):
                lines = _heard(lambda: self._client.pull(_without_tag(reference), stream=True, decode=True))
                self._drain_stream(lines, on_line)
        except errors.DockerException as error:
            words = str(getattr(error, "explanation", None) or error)
            raise pulling.failure(reference, f"linux/{self._facts.architecture}", words) from error

    @staticmethod
    def _drain_stream(stream: Iterator[Any], on_line: Callable[[Mapping[str, Any]], None]) -> None:
        """Read a stream of JSON objects to its end; an error in it is the answer of the whole call."""
        for line in stream:
            if "error" in line:
                raise errors.DockerException(line["error"])
            on_line(line)

    def remove_image(self, reference: str) -> None:
        """See `EngineWriter`."""
        with suppress(NotFoundError, ConflictError), _translated(f"remove image {reference}"):
            self._client.remove_image(reference)

    def remove_volume(self, volume: str) -> None:
        """See `EngineWriter`."""
        with suppress(NotFoundError, ConflictError), _translated(f"remove volume {volume}"):
            self._client.remove_volume(volume)

    def create_network(self, spec: NetworkSpec) -> None:
        """See `EngineWriter`."""
        pool = IPAMPool(subnet=str(spec.subnet), iprange=str(spec.ip_range), gateway=str(spec.gateway))
        with _translated(f"create network {spec.name}"):
            self._client.create_network(
                spec.name,
                driver="bridge",
                internal=spec.internal,
                ipam=IPAMConfig(pool_configs=[pool]),
                options=dict(spec.options),
                labels=dict(spec.labels),
                check_duplicate=True,
            )

    def remove_network(self, network: str) -> None:
        """See `EngineWriter`."""
        with _translated(f"remove network {network}"):
            self._client.remove_network(network)

    def create_container(self, spec: ContainerSpec) -> str:
        """See `EngineWriter`. What fails half-way is removed again."""
        networks = sorted(spec.shape.networks.items())
        version = self._client.api_version
        first = {name: EndpointConfig(version=version, ipv4_address=address) for name, address in networks[:1]}
        with _translated(f"create container {spec.name}"):
            identity: str = self._client.create_container(
                spec.image,
                command=list(spec.shape.command),
                entrypoint=list(spec.shape.entrypoint),
                environment=list(spec.shape.environment),
                user=spec.shape.user or None,
                name=spec.name,
                labels=dict(spec.labels),
                healthcheck=_healthcheck(spec.shape),
                host_config=_host_config(spec, networks[0][0] if networks else "none", version),
                networking_config=NetworkingConfig(first) if first else None,  # type: ignore[arg-type]  # the stub forgets the name
                use_config_proxy=False,  # the proxies of this client are none of a sibling's business
            )["Id"]
            try:
                for name, address in networks[1:]:
                    self._client.connect_container_to_network(identity, name, ipv4_address=address)
                if spec.files:
                    self._client.put_archive(identity, VOLUME, archive.pack(spec.files))
            except BaseException:
                self._client.remove_container(identity, v=True, force=True)
                raise
        return identity

    def start(self, container: str) -> None:
        """See `EngineWriter`."""
        with _translated(f"start container {container}"):
            self._client.start(container)

    def stop(self, container: str, seconds: int = STOP_SECONDS) -> None:
        """See `EngineWriter`."""
        with _translated(f"stop container {container}"):
            self._client.stop(container, timeout=seconds)

    def unpause(self, container: str) -> None:
        """See `EngineWriter`."""
        with _translated(f"unpause container {container}"):
            self._client.unpause(container)

    def rename(self, container: str, name: str) -> None:
        """See `EngineWriter`."""
        with _translated(f"rename container {container} to {name}"):
            self._client.rename(container, name)

    def remove(self, container: str) -> None:
        """See `EngineWriter`."""
        try:
            with _translated(f"remove container {container}"):
                self._client.stop(container, timeout=STOP_SECONDS)
                self._client.remove_container(container, v=True, force=True)
        except NotFoundError:
            return

    def connect(self, network: str, container: str, address: str) -> None:
        """See `EngineWriter`."""
        with _translated(f"put {container} on network {network}"):
            self._client.connect_container_to_network(container, network, ipv4_address=address)

    def disconnect(self, network: str, container: str) -> None:
        """See `EngineWriter`."""
        with _translated(f"take {container} off network {network}"):
            self._client.disconnect_container_from_network(container, network, force=True)

    def put_files(self, container: str, files: Files) -> None:
        """See `EngineWriter`."""
        with _translated(f"write files into container {container}"):
            self._client.put_archive(container, VOLUME, archive.pack(files))

    def run_helper(self, container: str, arguments: Sequence[str], on_line: Callable[[Any], None]) -> None:
        """See `EngineWriter`."""
        words, complaint = b"", b""
        with _translated(f"run fwctl {arguments[0]} in container {container}"):
            identity = self._client.exec_create(container, [HELPER_PATH, *arguments])["Id"]
            with closing(outputs(self._client.exec_start(identity, stream=True))) as written:
                for answer, talk in written:
                    complaint += talk
                    *lines, words = (words + answer).split(b"\n")
                    for line in lines:
                        try:
                            on_line(json.loads(line))
                        except ValueError:  # not the helper's words: the engine's, about why it did not run
                            complaint += line
            code = self._client.exec_inspect(identity)["ExitCode"]
        if code != 0:
            raise EngineError(
                "helper-failed",
                f"fwctl {arguments[0]} failed in container {container}.",
                context=[(complaint or words).decode(errors="replace").strip() or f"exit code {code}"],
            )


def _told(stream: Iterator[Mapping[str, Any]]) -> Iterator[Event]:
    """Yield events until the stream breaks, however it does."""
    with suppress(errors.DockerException, requests.RequestException, OSError):
        for raw in stream:
            yield event_view(raw)


def _without_tag(reference: str) -> str:
    """Return a digest reference without the tag in it, which engines take for part of the name."""
    name, at, digest = reference.partition("@")
    if not at:
        return reference
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}@{digest}"


def _healthcheck(shape: Shape) -> dict[str, Any] | None:
    check = shape.healthcheck
    if check is None:
        return None
    return {
        "test": ["CMD", *check.test],
        "interval": int(check.interval * _NANOSECONDS),
        "timeout": int(check.timeout * _NANOSECONDS),
        "retries": check.retries,
        "start_period": int(check.start_period * _NANOSECONDS),
    }


def _host_config(spec: ContainerSpec, network: str, version: str) -> HostConfig:
    """Return the part of a configuration that is about the host. A volume has no name, but says whose it is."""
    shape = spec.shape
    options = dict(shape.log)
    ours = {key: value for key, value in spec.labels.items() if key in labels.OWNERSHIP}
    return HostConfig(
        version=version,
        network_mode=network,
        mounts=[VolumeMount(mount.target, None, labels=ours) for mount in shape.mounts],
        read_only=shape.read_only,
        cap_add=list(shape.capabilities_added),
        cap_drop=list(shape.capabilities_dropped),
        security_opt=list(shape.security_options),
        sysctls=dict(shape.sysctls),
        dns_search=list(shape.dns_search) or None,
        dns_opt=list(shape.dns_options) or None,
        tmpfs=dict(shape.tmpfs),
        ipc_mode=shape.ipc_mode or None,
        mem_limit=shape.memory or None,
        pids_limit=shape.pids or None,
        restart_policy={"Name": shape.restart} if shape.restart else None,
        log_config=LogConfig(type=options.pop("driver"), config=options) if options else None,
    )
