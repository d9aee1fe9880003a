"""A Docker engine, through its HTTP API (https://docs.docker.com/reference/api/engine/).

The only module that imports `docker`: raw JSON, SDK types and error prose stop here. Written for API 1.41
(engine 20.10) and later, without anything that a later version changed.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

import requests
from docker import APIClient, errors
from docker.constants import DEFAULT_UNIX_SOCKET
from docker.context import ContextAPI
from docker.types import EndpointConfig, HostConfig, IPAMConfig, IPAMPool, LogConfig, NetworkingConfig
from docker.types import Mount as VolumeMount

from clawker_fw.engine import archive
from clawker_fw.engine.inspection import container_view, listed, network_view
from clawker_fw.engine.port import Tell
from clawker_fw.errors import ConflictError, EngineError, NotFoundError
from clawker_fw.model import (
    ContainerSpec,
    ContainerView,
    EngineFacts,
    Files,
    ImageView,
    Listed,
    NetworkSpec,
    NetworkView,
    OwnImage,
    Probe,
    Shape,
)
from clawker_fw.stack import labels
from clawker_fw.stack.container import HELPER_PATH, VOLUME

OLDEST_API = (1, 41)
"""Engine 20.10, the oldest that the siblings were tried on."""

_NANOSECONDS = 1_000_000_000
_CALL_SECONDS = 60
_STOP_SECONDS = 5


def connect(host: str | None, context: str | None, environment: Mapping[str, str]) -> "DockerEngine":
    """Return the engine that the docker CLI would use.

    In order: `host`, `context`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context
    (https://docs.docker.com/engine/manage-resources/contexts/).

    Raises:
        EngineError: when it can't be found or reached, or is too old.
    """
    place = "the engine"
    try:
        where = _locate(host, context, environment)
        place = str(where.get("base_url", "the default socket"))
        client = APIClient(version="auto", timeout=_CALL_SECONDS, use_ssh_client=True, **where)
        version = client.version()
    except (errors.DockerException, requests.RequestException, OSError) as error:
        raise EngineError(
            "engine-unreachable",
            f"The Docker engine at {place} can't be reached.",
            context=[_innermost(error)],
            hint="Start it, or say where it is with --host, --context or DOCKER_HOST.",
        ) from error
    api = tuple(int(part) for part in version["ApiVersion"].split("."))
    if api < OLDEST_API:
        raise EngineError(
            "engine-too-old",
            f"The engine at {place} is version {version['Version']} (API {version['ApiVersion']}).",
            hint="Engine 20.10 (API 1.41) or later is needed.",
        )
    facts = EngineFacts(version["Version"], version["ApiVersion"], version["Arch"])
    return DockerEngine(client, facts, where.get("base_url") or DEFAULT_UNIX_SOCKET)


def _locate(host: str | None, context: str | None, environment: Mapping[str, str]) -> dict[str, Any]:
    if host or (not context and environment.get("DOCKER_HOST")):
        place = host or environment["DOCKER_HOST"]
        return {"base_url": place, **_tls({**environment, "DOCKER_HOST": place})}
    name = context or environment.get("DOCKER_CONTEXT")
    if name and ContextAPI.get_context(name) is None:
        raise EngineError(
            "context-unknown",
            f"There is no docker context called {name!r}.",
            hint="`docker context ls` lists them.",
        )
    return dict(ContextAPI.kwargs_from_context(name, dict(environment)))


def _tls(environment: Mapping[str, str]) -> dict[str, Any]:
    from docker.utils import kwargs_from_env  # noqa: PLC0415 - only for engines by environment

    found = kwargs_from_env(environment=dict(environment))
    return {"tls": found["tls"]} if "tls" in found else {}


def _innermost(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn whatever the SDK raises into one of our errors; `what` completes "The engine could not …"."""
    try:
        yield
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
            context=[_innermost(error)],
        ) from error


class DockerEngine:
    """`EngineWriter` over a Docker engine. Calls may be made from several threads."""

    def __init__(self, client: APIClient, facts: EngineFacts, address: str) -> None:
        """Use a connected client."""
        self._client = client
        self._facts = facts
        self.address = address

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # --- reading ----------------------------------------------------------------------------------------------

    def facts(self) -> EngineFacts:
        """See `EngineReader`."""
        return self._facts

    def networks(self) -> tuple[NetworkView, ...]:
        """See `EngineReader`."""
        with _translated("list its networks"):
            return tuple(network_view(raw) for raw in self._client.networks())

    def listing(self) -> tuple[Listed, ...]:
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
        """See `EngineReader`."""
        with _translated("list its images"):
            found = self._client.images(filters={"label": f"{labels.MANAGED}=true"})
        return tuple(OwnImage(raw["Id"], tuple(sorted(raw.get("RepoTags") or ()))) for raw in found)

    def orphans(self, project: str) -> tuple[str, ...]:
        """See `EngineReader`."""
        ours = [f"{key}={value}" for key, value in labels.ownership_labels(project).items()]
        with _translated("list its volumes"):
            found = self._client.volumes(filters={"label": ours, "dangling": True})["Volumes"]
        return tuple(sorted(raw["Name"] for raw in found or ()))

    def image(self, reference: str) -> ImageView | None:
        """See `EngineReader`."""
        try:
            with _translated(f"inspect image {reference}"):
                raw = self._client.inspect_image(_without_tag(reference))  # type: ignore[no-untyped-call]
        except NotFoundError:
            return None
        return ImageView(raw["Id"], tuple(raw["Config"].get("Env") or ()) if raw.get("Config") else ())

    def files(self, container: str) -> Files:
        """See `EngineReader`."""
        with _translated(f"read the files of container {container}"):
            stream, _ = self._client.get_archive(container, VOLUME)
            return archive.unpack(b"".join(stream))

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

    # --- writing ----------------------------------------------------------------------------------------------

    def load_image(self, archive_: Iterator[bytes], size: int, tell: Tell) -> None:
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

    def pull_image(self, reference: str, tell: Tell) -> None:
        """See `EngineWriter`."""
        layers: dict[str, tuple[int, int]] = {}

        def on_line(line: Mapping[str, Any]) -> None:
            detail = line.get("progressDetail") or {}
            if "total" in detail:
                layers[line["id"]] = (detail.get("current", 0), detail["total"])
                total = sum(size for _, size in layers.values())
                tell(sum(done for done, _ in layers.values()) / max(1, total))

        with _translated(f"pull {reference}"):
            self._drain_stream(self._client.pull(_without_tag(reference), stream=True, decode=True), on_line)

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
                self._client.stop(container, timeout=_STOP_SECONDS)
                self._client.remove_container(container, v=True, force=True)
        except NotFoundError:
            return

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
            with closing(self._client.exec_start(identity, stream=True, demux=True)) as stream:
                for answer, talk in stream:
                    complaint += talk or b""
                    *lines, words = (words + (answer or b"")).split(b"\n")
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
        tmpfs=dict(shape.tmpfs),
        ipc_mode=shape.ipc_mode or None,
        mem_limit=shape.memory or None,
        pids_limit=shape.pids or None,
        restart_policy={"Name": shape.restart} if shape.restart else None,
        log_config=LogConfig(type=options.pop("driver"), config=options) if options else None,
    )
