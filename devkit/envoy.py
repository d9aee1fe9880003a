"""The real Envoy on loopback, with the listeners and routes that we render."""

import contextlib
import functools
import http
import http.client
import itertools
import json
import os
import secrets
import socket
import subprocess
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from clawker_fw.model.stacks import Sibling
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.settings.values import LimitSettings
from clawker_fw.stack import images, virtual
from clawker_fw.stack.envoy import chains, lookups, tls_interception
from clawker_fw.stack.envoy import http as through
from clawker_fw.stack.envoy.bootstrap import bootstrap as rendered
from clawker_fw.stack.envoy.lookups import SUBTREES
from clawker_fw.stack.envoy.messages import THROUGH_RULES, extension
from clawker_fw.stack.envoy.sibling import (
    DRAIN_SECONDS,
    LOG_LEVELS,
    RESOURCES,
    configuration,
)
from clawker_fw.stack.envoy.telemetry import Reporting, Serving
from clawker_fw.stack.release import Release
from clawker_fw.stack.resources import discovery_response, watched_folder
from clawker_fw.stack.topology import EnvoyAddresses
from devkit.coredns import ADDRESSING
from devkit.hellos import client_hello
from devkit.memory.engine import MemoryEngine
from devkit.programs import free_port, machine
from devkit.stacks import installed_release, rule_set
from devkit.starting import get, listens, wait_for
from devkit.strategies import PORTS
from devkit.waiting import until

HERE = IPv4Address("127.0.0.1")
CHECKER = IPv4Address("127.0.0.9")
"""In place of CoreDNS's address."""

WRITTEN_WITHIN = 5.0
"""Seconds until a refusal is on record, on a busy machine. By default, Envoy would write its files after 10."""

PROVEN = [(each, each.envoy) for each in RESOURCES if each.envoy]
"""What Envoy itself reads."""

_STARTED = itertools.count()


def _own_block() -> IPv4Network:
    """Return addresses for names that need their own. Processes and recent proxies never share one."""
    number = os.getpid() % 2**8 * 2**3 + next(_STARTED) % 2**3
    return IPv4Network((int(IPv4Address("127.128.0.0")) + number * 2**12, 20))


_DIRECT_RESPONSE = "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config"


def here(content: bytes, folder: Path) -> bytes:
    """Return a file whose paths are in a folder. What Envoy watches are the folders of the files."""
    watched = content.replace(watched_folder("/").encode(), f"{folder}/hot/".encode())
    return watched.replace(b"/fw/", f"{folder}/".encode())


_ENDED = (ConnectionResetError, ConnectionRefusedError, BrokenPipeError)


@dataclass(frozen=True, slots=True)
class Request:
    """What an agent does with a name, at one of the addresses at which Envoy listens."""

    name: str
    protocol: Protocol
    port: int
    at: IPv4Address = HERE


FORWARDING = ("guarded", "exempt")
"""How the names of the clusters begin that look a rule's name up."""


def shipped(**values: Any) -> dict[str, Any]:  # noqa: ANN401 - values of several types
    usual = {"project": "test", "guarded": "", "exempt": "", "heap": 1 << 30, "connections": 1, "trusted_ca": ""}
    return rendered(**{"admin_socket": "", **usual, **values})


def shipped_clusters(*beginnings: str, **values: str) -> list[dict[str, Any]]:
    clusters = shipped(**values)["static_resources"]["clusters"]
    return [cluster for cluster in clusters if cluster["name"].startswith(beginnings)]


class Running:
    """A running Envoy. It ends with its context."""

    def start(
        self, folder: Path, command: Sequence[str | Path], bootstrap: Mapping[str, Any], options: str
    ) -> None:
        self.folder, self.log = folder, folder / "log"
        (folder / "bootstrap.json").write_text(json.dumps(bootstrap))
        options = f"--config-path {folder}/bootstrap.json --disable-hot-restart --log-level error {options}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*command, *options.split()], stdout=log, stderr=log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def admin(self, path: str, method: str = "GET") -> bytes:
        return get(self.folder / "admin", path, method, silence=60)  # of a thousand ports, it takes seconds


class Proxy(Running):
    """A running Envoy whose hot files can be replaced like by `fwctl commit`. It ends with its context."""

    clusters: Sequence[Mapping[str, Any]] = tuple(
        {"name": cluster["name"], "type": "STATIC"} for cluster in shipped_clusters(*FORWARDING)
    )

    limits = LimitSettings()

    workers: int = 1

    reporting: Reporting | None = None

    headers: Mapping[str, str] = MappingProxyType({})
    """The headers of secrets, by name."""

    first = RuleSet()

    most: tuple[int, int] | None = None
    """What it may take on at once, if it is bounded."""

    def __init__(self, folder: Path, program: Path, before: Sequence[str] = ()) -> None:
        """Start it without listeners. `before` are arguments that come before Envoy's, for another program."""
        self.folder = folder
        self.ports = {port: free_port() for port in PORTS}
        self._numbers, self._block = virtual.Numbers(), _own_block()
        self._answering = _answer_datagrams()
        for resource in RESOURCES:
            (folder / "hot" / resource.path).parent.mkdir(parents=True, exist_ok=True)
        self.serve(self.first)
        bootstrap = self.bootstrap()
        if self.most:
            heap, connections = self.most
            bootstrap["overload_manager"] = shipped(heap=heap, connections=connections)["overload_manager"]
        options = f"--concurrency {self.workers} --drain-time-s {DRAIN_SECONDS} --component-log-level {LOG_LEVELS}"
        self.start(
            folder,
            [program, *before],
            bootstrap,
            f"{options} --reject-unknown-dynamic-fields --file-flush-interval-msec 100",
        )

    def bootstrap(self) -> dict[str, Any]:
        made = json.loads(here(json.dumps(shipped()).encode(), self.folder))
        sources = made["dynamic_resources"]
        return {
            "dynamic_resources": {name: sources[name] for name in ("cds_config", "lds_config")},
            "layered_runtime": made["layered_runtime"],
            "admin": {"address": {"pipe": {"path": str(self.folder / "admin")}}},
            "node": {"id": "test", "cluster": "test"},
            "static_resources": {"clusters": [*self.clusters, *shipped_clusters("http-rules")]},
            "bootstrap_extensions": made["bootstrap_extensions"],
            "memory_allocator_manager": made["memory_allocator_manager"],
        }

    def serve(self, rules: RuleSet) -> None:
        """Replace the hot files in the order of a commit."""
        policy = Policy(rules)
        self._numbers = virtual.assigned(policy.opaque, self._numbers, self._block.num_addresses - 1)
        self.virtual = {name: self._block[1 + number] for name, number in self._numbers.names}
        addresses = EnvoyAddresses(HERE, HERE, HERE, HERE, self.virtual, (CHECKER,))
        files = configuration(Serving(policy, addresses, self.limits, self.reporting), self.headers)
        self.put({path: file.content for path, file in files.items()})

    def obey(self, rules: RuleSet, seconds: float = 30) -> None:
        self.serve(rules)
        until(self.serves, seconds)

    def apply(self, *rules: str | Mapping[str, Any]) -> None:
        self.obey(rule_set(*rules)[1])

    def put(self, files: Mapping[str, bytes]) -> None:
        """Replace files of resources, all with the same new version, one after the other."""
        self.version = secrets.token_hex(8)
        written: list[tuple[Path, Path]] = []
        for path, content in files.items():
            document = json.loads(here(content, self.folder))
            for resource in document["resources"]:
                self._decide_only(resource)
            fresh = self.folder / f"fresh-{len(written)}"
            fresh.write_text(json.dumps({**document, "version_info": self.version}))
            written.append((fresh, self.folder / path))
        for fresh, place in written:
            fresh.replace(place)

    def _decide_only(self, resource: dict[str, Any]) -> None:
        """Replace forwarding by a response with the chain's name, and datagrams' hosts by one that says `udp`."""
        if resource.get("name") == tls_interception.NAME:
            return
        self._free_port(resource)
        if "load_assignment" in resource:
            resource.pop("cluster_type", None)
            (endpoint,) = resource["load_assignment"]["endpoints"][0]["lb_endpoints"]
            host = {"address": str(HERE), "port_value": self._answering}
            endpoint["endpoint"]["address"]["socket_address"] = host
        for chain in resource.get("filter_chains", []):
            if chain["name"] != through.CHAIN:
                text = chain["name"]
                if resource["name"] == THROUGH_RULES:
                    text = f"HTTP/1.1 200 OK\r\ncontent-length: {len(text)}\r\n\r\n{text}"
                response = {} if text == chains.REFUSED else {"response": {"inline_string": text}}
                answer = {"@type": _DIRECT_RESPONSE, **response}
                chain["filters"] = [{"name": "answer", "typed_config": answer}]

    def _free_port(self, resource: dict[str, Any]) -> None:
        address = resource.get("address", {}).get("socket_address", {})
        if address.get("address") == str(HERE):
            address["port_value"] = self.ports.get(address["port_value"], address["port_value"])

    def serves(self) -> bool:
        return self.loaded(resource.envoy.statistics for resource in RESOURCES if resource.envoy)

    def loaded(self, statistics: Iterable[str]) -> bool:
        """Whether what has these statistics was loaded from the current files."""
        try:
            lines = self.admin("/stats?filter=version_text$").decode().splitlines()
        except OSError:
            return False
        live = dict(line.replace('"', "").split(": ") for line in lines)
        return all(live.get(f"{name}.version_text") == self.version for name in statistics)

    def digests_loaded(self) -> dict[str, str]:
        """Return the digest of what Envoy has loaded of each resource, computed like by `fwctl`."""
        found = {}
        for resource, proof in PROVEN:
            if proof.runtime:
                text = json.loads(self.admin("/runtime"))["entries"].get(proof.runtime, {}).get("final_value", "")
                found[resource.name] = sha256(text.encode()).hexdigest()
                continue
            dumped = json.loads(self.admin(f"/config_dump?resource={proof.dump}")).get("configs", [])
            inner = [functools.reduce(lambda inside, key: inside.get(key, {}), proof.at, each) for each in dumped]
            shown = [each for each in inner if each and proof.named in {"", each["name"]}]
            found[resource.name] = resource.digest(discovery_response(shown))
        return found

    def shows_its_files(self) -> bool:
        files = {each.name: json.loads((self.folder / "hot" / each.path).read_bytes()) for each, _ in PROVEN}
        written = {each.name: each.digest(discovery_response(files[each.name]["resources"])) for each, _ in PROVEN}
        return self.digests_loaded() == written

    def chain(self, name: str, port: int) -> str:
        return self.outcome(Request(name, Protocol.HTTPS, port))

    def route(self, name: str, port: int) -> str:
        return self.outcome(Request(name, Protocol.HTTP, port))

    def opened(self, port: int, at: IPv4Address) -> str:
        return self.outcome(Request("", Protocol.TCP, port, at))

    def outcome(self, request: Request) -> str:
        """Return the chain for a request, or an empty string if it is refused."""
        kind = socket.SOCK_DGRAM if request.protocol is Protocol.UDP else socket.SOCK_STREAM
        with socket.socket(type=kind) as connection, contextlib.suppress(*_ENDED):
            connection.settimeout(10)
            connection.connect(self.place(request.port, request.at))
            connection.sendall(_content(request))
            match request.protocol:
                case Protocol.UDP:
                    return _datagram(connection)
                case Protocol.HTTP:
                    return _response(connection)
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        return ""

    def place(self, port: int, at: IPv4Address) -> tuple[str, int]:
        """Return the address and port to connect to: ports at the shared address are others in tests."""
        return str(at), self.ports[port] if at == HERE else port


def _content(request: Request) -> bytes:
    match request.protocol:
        case Protocol.HTTPS:
            return client_hello(request.name.encode())
        case Protocol.HTTP:
            return f"GET / HTTP/1.1\r\nHost: {request.name}:2222\r\nConnection: close\r\n\r\n".encode()
        case Protocol.UDP:
            return b"?"
    return b""


def _response(connection: socket.socket) -> str:
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return response.read().decode() if response.status == http.HTTPStatus.OK else ""


def _datagram(connection: socket.socket) -> str:
    connection.settimeout(0.2)
    for _ in range(50):  # a listener that is about to go drops what is sent to it
        try:
            return connection.recv(64).decode()
        except TimeoutError:
            connection.sendall(b"?")
    raise TimeoutError("nobody answers a datagram")


def _answer_datagrams() -> int:
    """Have somebody answer datagrams until the end of the process, and return the port."""
    host = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    host.bind((str(HERE), 0))

    def serve() -> None:
        while True:
            _, sender = host.recvfrom(64)
            host.sendto(b"udp", sender)

    threading.Thread(target=serve, daemon=True).start()
    return int(host.getsockname()[1])


def program(release: Release) -> Path:
    bundled = images.bundled(Sibling.ENVOY, release, MemoryEngine(machine()).facts())
    return next(each.source for each in bundled.entries if each.path == "usr/local/bin/envoy" and each.source)


class Loading(Proxy):
    """An Envoy that loads our unchanged files, except for port numbers."""

    def _decide_only(self, resource: dict[str, Any]) -> None:
        """Replace only the port numbers, except where many ports are tested."""
        self._free_port(resource)


_NEVER = {
    "dns_refresh_rate": "3600s",
    "dns_failure_refresh_rate": {"base_interval": "3600s", "max_interval": "3600s"},
}
"""When a name without an address is looked up again: not during a test."""


def _forwarder(listen: int, name_server: int, subtrees: Path) -> subprocess.Popen[bytes]:
    """Start the forwarder of lookups as the supervisor does, but without sockets: it opens its own."""
    places = (f"{HERE}:{port}" for port in (listen, name_server))
    networks = map(str, (ADDRESSING.agents, ADDRESSING.egress))
    program = str(installed_release().binary("fwctl", machine()))
    process = subprocess.Popen([program, "forward", *places, str(subtrees), *networks])
    wait_for(process, lambda: listens(str(HERE), listen))
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


_GIVEN_UP = ("RemoteReset", "-")
"""What `fwctl record` leaves out: the agent has ended the connection before there was an answer."""


class Resolving(Loading):
    """A proxy that looks names up at a name server on loopback, through a forwarder that ends with this object.

    With `refreshing=False`, it looks up a name only when a client asks for it.
    """

    read = 0

    def __init__(
        self, folder: Path, program: Path, name_server: int, before: Sequence[str] = (), *, refreshing: bool = True
    ) -> None:
        """Start it; `name_server` is the port of the one that it asks."""
        self._rates = {} if refreshing else _NEVER
        asked = free_port()
        self._name_server = {"socket_address": {"address": str(HERE), "port_value": asked}}
        self._subtrees = folder / SUBTREES
        self._subtrees.parent.mkdir(parents=True)
        weakref.finalize(self, _end, _forwarder(asked, name_server, self._subtrees))
        self.clusters = tuple(
            {
                **{key: value for key, value in each.items() if key != "upstream_bind_config"},
                "cluster_type": extension(
                    "clusters.dynamic_forward_proxy.v3.ClusterConfig",
                    dns_cache_config=self._asking(each["cluster_type"]["typed_config"]["dns_cache_config"]),
                ),
            }
            for each in shipped_clusters(*FORWARDING)
        )
        super().__init__(folder, program, before)

    def serve(self, rules: RuleSet) -> None:
        fresh = self.folder / "fresh"
        fresh.write_bytes(lookups.subtrees(Policy(rules)))
        fresh.replace(self._subtrees)
        super().serve(rules)

    def _decide_only(self, resource: dict[str, Any]) -> None:
        super()._decide_only(resource)
        for cache in _caches(resource):
            cache.update(self._asking(cache))
        if "cluster_type" in resource and "load_assignment" in resource:
            resource["cluster_type"]["typed_config"] |= self._resolver

    def _asking(self, cache: Mapping[str, Any]) -> dict[str, Any]:
        return {**cache, **self._rates, **self._resolver}

    @property
    def _resolver(self) -> dict[str, Any]:
        resolver = shipped()["typed_dns_resolver_config"]
        config = {**resolver["typed_config"], "resolvers": [self._name_server]}
        return {"typed_dns_resolver_config": {**resolver, "typed_config": config}}

    def records(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        fresh, self.read = lines[self.read :], len(lines)
        records = [json.loads(line) for line in fresh if line.startswith("{")]
        return [each for each in records if (each.get("ended"), each["flags"]) != _GIVEN_UP]

    def send(self, content: bytes, port: int, *, source: str = "127.0.0.1") -> bytes:
        with socket.create_connection(
            ("127.0.0.1", self.ports[port]), timeout=15, source_address=(source, 0)
        ) as agent:
            agent.sendall(content)
            try:
                return agent.recv(65536)
            except ConnectionResetError:
                return b""

    def hello(self, name: bytes, port: int) -> bytes:
        return self.send(client_hello(name), port)

    def request(self, host: bytes, port: int) -> bytes:
        """Return the first line of what comes back for a request with a Host header of any octets."""
        answer = self.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n", port)
        return answer.partition(b"\r\n")[0]


def _caches(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        if "dns_cache_config" in value:
            yield value["dns_cache_config"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _caches(each)
