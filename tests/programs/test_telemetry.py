"""Telemetry in the real Envoy: what it loads and where it sends, and that agents see nothing of it."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Self

import pytest

from clawker_fw.certificates.credentials import Credentials, Pair
from clawker_fw.certificates.store import TelemetryStore
from clawker_fw.model.files import Files
from clawker_fw.rules.policy import Policy
from clawker_fw.settings.values import LimitSettings
from clawker_fw.stack.collector import TelemetryTarget
from clawker_fw.stack.envoy.sibling import CLUSTERS, LISTENERS, RESOURCES, configuration
from clawker_fw.stack.envoy.telemetry import Reporting, Serving
from clawker_fw.stack.release import Release
from clawker_fw.stack.resources import live_digests
from clawker_fw.stack.topology import EnvoyAddresses
from devkit.dns import NameServer
from devkit.envoy import HERE, Loading, Resolving, program
from devkit.programs import free_port
from devkit.stacks import rule_set
from devkit.waiting import until

HOST = "localhost"
ADDRESSES = EnvoyAddresses(HERE, HERE, HERE, HERE, dict.fromkeys(("t.test", "u.test"), HERE))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TelemetryStore:
    found = TelemetryStore(tmp_path_factory.mktemp("certs"), "demo", keeps=True)
    found.provide()
    return found


def reporting(store: TelemetryStore, port: int, **changed: Any) -> Reporting:  # noqa: ANN401 - as in TelemetryTarget
    """Return Envoy's telemetry for a collector on loopback."""
    found = store.provide().credentials
    given = {"sample": 1.0, "server_name": HOST, **changed}
    telemetry = TelemetryTarget(
        "127.0.0.1",
        port,
        project="demo",
        release="0",
        build_sha="0",
        **{"credentials": found, "relay_port": free_port(), **given},
    )
    return Reporting(telemetry, HERE, HERE, (IPv4Address("127.0.0.2"),), 0)


@dataclass
class Receiver:
    """A TLS server with our certificate that records its clients, and answers nothing."""

    trust: bytes
    pair: Pair
    folder: Path
    clients: list[tuple[tuple[str, str], ...]] = field(default_factory=list)
    protocols: list[str | None] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.trust.decode())
        for name, content in (("crt", self.pair.certificate), ("key", self.pair.key)):
            (self.folder / name).write_bytes(content)
        context.load_cert_chain(self.folder / "crt", self.folder / "key")
        context.set_alpn_protocols(["h2"])
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._socket.accept()
                threading.Thread(target=self._hear, args=(context, plain), daemon=True).start()

    def _hear(self, context: ssl.SSLContext, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
            certificate: Any = connection.getpeercert()
            self.clients.append(certificate["subjectAltName"])
            self.protocols.append(connection.selected_alpn_protocol())
            while connection.recv(4096):
                pass


@pytest.fixture
def receiver(store: TelemetryStore, tmp_path: Path) -> Iterator[Receiver]:
    with Receiver(*store.export(HOST, tmp_path / "tls"), tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Loading]:
    with Loading(tmp_path_factory.mktemp("envoy"), program(release)) as started:
        started.obey(RULES)  # which starts it
        yield started


RULES = rule_set(
    "a.test",
    ".sub.test",
    {"dst": "h.test", "proto": "http"},
    {"dst": "t.test", "proto": "tcp", "port": 9000},
    {"dst": "u.test", "proto": "udp", "port": 9001},
)[1]


def counted(envoy: Loading, name: str) -> int:
    lines = envoy.admin(f"/stats?filter={name}").decode().splitlines()
    return sum(int(line.rpartition(": ")[2]) for line in lines if line)


def serve(envoy: Loading, told: Reporting) -> None:
    """Have Envoy load our files with this telemetry, and wait until it reports exactly them."""
    envoy.reporting = told
    envoy.obey(RULES)
    until(envoy.shows_its_files)


def test_envoy_shows_what_it_was_told_but_no_key(
    envoy: Loading, store: TelemetryStore, receiver: Receiver
) -> None:
    """Our files with telemetry are in canonical form, and Envoy reports them without keys."""
    for sample in (1.0, 0.25, 0.0):
        told = reporting(store, receiver.port, sample=sample)
        serve(envoy, told)
    credentials = told.telemetry.credentials
    assert credentials is not None
    dump = json.dumps(json.loads(envoy.admin("/config_dump?include_eds")))
    secret = credentials.envoy.key.splitlines()[1].decode()
    assert secret not in dump
    assert secret in (envoy.folder / CLUSTERS).read_text()


def test_live_digests_tell_certificates_apart_without_their_keys(store: TelemetryStore) -> None:
    """Another certificate has another digest. The key does not matter, because Envoy takes only a matching one."""
    told = reporting(store, 4317)
    credentials = told.telemetry.credentials
    assert credentials is not None
    other = replace(credentials, envoy=Pair(credentials.envoy.certificate, credentials.coredns.key))
    renewed = replace(credentials, envoy=credentials.coredns)

    def digest(found: Credentials) -> str:
        changed = replace(told, telemetry=replace(told.telemetry, credentials=found))

        files = configuration(Serving(Policy(RULES), ADDRESSES, LimitSettings(), changed))
        assert files[CLUSTERS].secret
        return live_digests([each for each in RESOURCES if each.envoy], files)["clusters"]

    assert digest(credentials) == digest(other)
    assert digest(credentials) != digest(renewed)


@pytest.mark.parametrize("name", ["other.test", "127.0.0.1"])
def test_a_collector_of_another_name_gets_nothing(
    name: str, envoy: Loading, store: TelemetryStore, receiver: Receiver
) -> None:
    """The name or address in the collector's certificate must match the settings."""
    before = counted(envoy, r"cluster.telemetry.ssl.fail_verify_san")
    serve(envoy, reporting(store, receiver.port, server_name=name))
    assert envoy.route("b.test", 80) == ""
    until(lambda: counted(envoy, r"cluster.telemetry.ssl.fail_verify_san") > before)
    assert receiver.clients == []


def test_envoy_proves_who_it_is_by_the_newest_certificate(
    envoy: Loading, store: TelemetryStore, receiver: Receiver
) -> None:
    """Each refusal reaches the collector over TLS 1.3 and HTTP/2, with Envoy's newest certificate."""
    told = reporting(store, receiver.port)
    serve(envoy, told)
    assert envoy.route("b.test", 80) == ""
    until(lambda: receiver.clients)
    assert receiver.clients[0] == (("URI", "spiffe://clawker-fw/demo/envoy"),)
    assert receiver.protocols[0] == "h2"
    listeners = (envoy.folder / LISTENERS).read_bytes()
    credentials = told.telemetry.credentials
    assert credentials is not None
    as_other = replace(credentials, envoy=credentials.coredns)
    serve(envoy, replace(told, telemetry=replace(told.telemetry, credentials=as_other)))
    assert _unversioned(listeners) == _unversioned((envoy.folder / LISTENERS).read_bytes())
    assert envoy.route("b.test", 80) == ""
    until(lambda: receiver.clients[-1] == (("URI", "spiffe://clawker-fw/demo/coredns"),))


def _unversioned(content: bytes) -> object:
    return json.loads(content)["resources"]


def test_the_relay_takes_in_the_resolver_alone(envoy: Loading, store: TelemetryStore, receiver: Receiver) -> None:
    """Data from CoreDNS's address is passed on unchanged; a connection from elsewhere ends at once."""
    told = reporting(store, receiver.port)
    serve(envoy, told)
    place = ("127.0.0.1", told.telemetry.relay_port)
    with socket.create_connection(place, timeout=5) as stranger, contextlib.suppress(ConnectionResetError):
        assert stranger.recv(1) == b""
    assert receiver.clients == []
    context = ssl.create_default_context(cadata=receiver.trust.decode())
    credentials = told.telemetry.credentials
    assert credentials is not None
    for name, content in (("c.crt", credentials.coredns.certificate), ("c.key", credentials.coredns.key)):
        (receiver.folder / name).write_bytes(content)
    context.load_cert_chain(receiver.folder / "c.crt", receiver.folder / "c.key")
    resolver = socket.create_connection(place, timeout=5, source_address=("127.0.0.2", 0))
    with context.wrap_socket(resolver, server_hostname=HOST):
        until(lambda: receiver.clients)
    assert receiver.clients == [(("URI", "spiffe://clawker-fw/demo/coredns"),)]


def test_a_collector_that_is_down_costs_no_request(envoy: Loading, store: TelemetryStore) -> None:
    """Requests are answered as usual, and unsent records are counted."""
    before = counted(envoy, "logs_dropped")
    serve(envoy, reporting(store, free_port()))
    for _ in range(50):
        assert envoy.route("b.test", 80) == ""
    until(lambda: counted(envoy, "logs_dropped") > before)
    serve(envoy, reporting(store, free_port(), credentials=None))
    assert envoy.route("b.test", 80) == ""


ORIGIN = "10.9.9.9"
"""The address that rules name instead of loopback, for a test's origin."""


@pytest.fixture
def origin() -> Iterator[tuple[int, int]]:
    """The ports of an origin that sends something over TCP, and answers over UDP."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))

        def send() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with tcp.accept()[0] as connection:
                        connection.sendall(b"hello")

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    udp.sendto(*udp.recvfrom(100))

        for work in (send, answer):
            threading.Thread(target=work, daemon=True).start()
        yield tcp.getsockname()[1], udp.getsockname()[1]


@pytest.fixture
def forwarding(tmp_path: Path, release: Release, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolving]:
    """An Envoy that forwards to the origin."""

    def at_origin(serving: Serving, headers: Mapping[str, str]) -> Files:
        files = configuration(serving, headers)
        return {
            path: file.saying(file.content.replace(ORIGIN.encode(), b"127.0.0.1")) for path, file in files.items()
        }

    monkeypatch.setattr("devkit.envoy.configuration", at_origin)
    with NameServer() as names, Resolving(tmp_path, program(release), names.port) as proxy:
        yield proxy


def forward(proxy: Resolving, told: Reporting, tcp: int, udp: int) -> None:
    """Have Envoy forward `t.test` and `u.test` to the origin's ports, and wait until it does."""
    proxy.reporting = told
    opaque = {"dst": ORIGIN, "allow_private": True}
    proxy.apply(
        {**opaque, "as": "t.test", "proto": "tcp", "port": tcp},
        {**opaque, "as": "u.test", "proto": "udp", "port": udp},
    )
    until(proxy.shows_its_files)


def test_forwarded_connections_and_sessions_have_one_record(
    forwarding: Resolving, origin: tuple[int, int], store: TelemetryStore
) -> None:
    """A forwarded TCP connection or UDP session has one record when it ends, although its protocol is unknown."""
    tcp, udp = origin
    forwarding.limits = LimitSettings(idle=1)
    forward(forwarding, reporting(store, free_port(), credentials=None), tcp, udp)
    with socket.create_connection((str(forwarding.virtual["t.test"]), tcp), timeout=5) as connection:
        assert connection.recv(5) == b"hello"
    until(lambda: counted(forwarding, "logs_dropped") == 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as session:
        session.settimeout(5)
        session.sendto(b"x", (str(forwarding.virtual["u.test"]), udp))
        assert session.recv(5) == b"x"
        until(lambda: counted(forwarding, "logs_dropped") == 2)


def test_another_share_is_sent_at_once_and_cuts_nothing(
    forwarding: Resolving, origin: tuple[int, int], store: TelemetryStore
) -> None:
    """An open session goes on, no listener is replaced, and the new share applies at once."""
    tcp, udp = origin
    relay_port = free_port()

    def tell(share: float) -> None:
        told = reporting(store, 4317, credentials=None, sample=share, relay_port=relay_port)
        forward(forwarding, told, tcp, udp)

    def connect() -> None:
        with socket.create_connection((str(forwarding.virtual["t.test"]), tcp), timeout=5) as connection:
            assert connection.recv(5) == b"hello"

    tell(0)
    listeners = counted(forwarding, r"^listener_manager\.listener_(added|modified|removed)$")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as session:
        session.settimeout(5)
        session.connect((str(forwarding.virtual["u.test"]), udp))

        def goes_on() -> bool:
            session.send(b"x")
            return session.recv(5) == b"x"

        assert goes_on()
        for _ in range(20):
            connect()
        tell(1)
        assert goes_on()
        for _ in range(10):
            connect()
        until(lambda: counted(forwarding, "logs_dropped") >= 10)
        tell(0.5)
        for _ in range(100):
            connect()
        tell(0)
        assert goes_on()
        assert counted(forwarding, r"^udp\..*downstream_sess_total$") == 1
    until(lambda: counted(forwarding, "logs_dropped") > 30)
    assert counted(forwarding, "logs_dropped") < 100
    assert counted(forwarding, r"^listener_manager\.listener_(added|modified|removed)$") == listeners
