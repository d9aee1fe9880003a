"""The real Envoy on loopback that looks into TLS, the real signer, and a host behind that says what reached it."""

import http.client
import http.server
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from clawker_fw.certificates.store import InspectionStore
from clawker_fw.model.files import Files
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.envoy import chains, signing, tls_interception
from clawker_fw.stack.envoy.messages import Json, extension
from clawker_fw.stack.release import Release
from devkit.certificates import make
from devkit.envoy import HERE, Resolving, Running, program, shipped, shipped_clusters
from devkit.programs import OWN_LOOPBACK, free_port, machine
from devkit.requests import WEBSOCKET
from devkit.stacks import installed_release
from devkit.starting import exchange, wait_for
from devkit.waiting import until

PORT, SECOND_PORT = 8080, 8443
"""Where the host listens, and where it may listen as well."""

TABLE = tls_interception.PATH
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Reached:
    """A request as it reached the host. The names of its headers are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    port: int = PORT
    tls: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every method, and says what has reached it."""

    reached: list[Reached]
    contents: dict[str, bytes]
    """What there is by its path. Without any, whatever is asked for is there, and empty."""
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        _, port = self.connection.getsockname()
        version = self.connection.version() if isinstance(self.connection, ssl.SSLSocket) else ""
        self.reached.append(Reached(self.command, self.path, headers, port, version or ""))
        if self.path.endswith("/slow"):
            self.drip()
            return
        if self.path.endswith("/tunnel"):
            self.echo()
            return
        upgrading = headers.get("upgrade") == "websocket"
        place = self.path.partition("?")[0]
        missing = 404 if self.contents and place not in self.contents else 200
        refused = 401 if "refused" in self.path else missing
        self.send_response(101 if upgrading else refused)
        for name, value in (("connection", "upgrade"), ("upgrade", "websocket")) if upgrading else ():
            self.send_header(name, value)
        content = self.contents.get(place, b"")
        self.send_header("content-length", str(len(content)))
        if content:
            self.send_header("content-type", "text/html")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.close_connection = upgrading

    def echo(self) -> None:
        """Agree to a WebSocket, and send back whatever octets come, until the proxy ends it."""
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        with suppress(OSError):
            while some := self.connection.recv(4096):
                self.wfile.write(some)

    def drip(self) -> None:
        """Send an octet at a time for longer than any test takes, until the proxy ends it."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b"1\r\n.\r\n")
                time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Host:
    """A host with TLS, whose certificate is for some names."""

    handler: type[http.server.BaseHTTPRequestHandler] = Handler

    def __init__(self, folder: Path, *names: str, ports: Sequence[int] = (PORT,)) -> None:
        """Listen at this process's own address. How it speaks TLS with further connections is in its `context`."""
        self.reached: list[Reached] = []
        self.contents: dict[str, bytes] = {}
        self.certificate, self.key = certificate(folder, *names)
        handler = type("Handler", (self.handler,), {"reached": self.reached, "contents": self.contents})
        self.context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        # Each connection is a handshake: one that is resumed would not be asked for what a test demands since.
        context.num_tickets = 0
        self._open = connections = set[ssl.SSLSocket]()

        class Server(http.server.ThreadingHTTPServer):
            def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the base
                with context.wrap_socket(request, server_side=True) as agent:
                    connections.add(agent)
                    try:
                        super().finish_request(agent, client_address)
                    finally:
                        connections.discard(agent)

            def handle_error(self, *_: object) -> None:
                """Say nothing: what ends a handshake is tested at the other end."""

        self._servers = [Server((OWN_LOOPBACK, port), handler) for port in ports]
        for each in self._servers:
            threading.Thread(target=each.serve_forever, daemon=True).start()

    def hang_up(self) -> None:
        """End all connections, also those that somebody keeps for further requests."""
        for each in self._open.copy():
            with suppress(OSError):  # it has just ended by itself
                each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._servers:
            each.shutdown()
            each.server_close()


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """Make a certificate for names, which is its own authority. Return its file and that of its key."""
    alternative = ",".join(f"DNS:{name}" for name in names)
    make(folder, ("basicConstraints=critical,CA:true", f"subjectAltName={alternative}"))
    return folder / "cert.pem", folder / "key.pem"


@dataclass
class Signer:
    """The signer, with its files in a folder. Its sockets are handed down at each start, as by the supervisor."""

    folder: Path
    given: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.at = self.folder / "signer"
        self.at.mkdir()
        for name in (signing.SOCKET, "status", "secrets"):
            one = socket.socket(socket.AF_UNIX)
            one.bind(str(self.at / name))
            one.listen()
            self.given.append(one.detach())
        self.given += [os.memfd_create("secrets"), os.memfd_create("secrets at rest")]

    def give(self, names: Iterable[str], subtrees: Iterable[str], covered: Iterable[str]) -> None:
        provided = InspectionStore(self.folder / "store", "demo", keeps=True).provide(covered)
        if provided.reason:
            raise AssertionError(provided.reason)
        self.trust = provided.trust
        self.intermediates = provided.intermediates
        self.put(signing.files(names, subtrees, provided.intermediates))

    def inspect(self, names: Iterable[str], subtrees: Iterable[str]) -> None:
        self.put({signing.NAMES: signing.files(names, subtrees, ())[signing.NAMES]})

    def put(self, files: Files) -> None:
        for path, file in files.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.folder / "fresh"
            fresh.write_bytes(file.content)
            fresh.replace(target)

    def start(self) -> None:
        program = str(installed_release().binary("fwctl", machine()))
        arguments = [
            str(self.at),
            *(str(self.folder / path) for path in (signing.NAMES, signing.INTERMEDIATES)),
        ]
        places = " ".join(f"{3 + number}<&{number_here}" for number, number_here in enumerate(self.given))
        command = ["bash", "-c", f'exec "$0" "$@" {places}', program, "sign", *arguments]
        environment = {**os.environ, "GOMAXPROCS": "1", "LISTEN_FDS": str(len(self.given))}
        self.process = subprocess.Popen(command, pass_fds=self.given, env=environment)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.process.pid}/stat")
        until(lambda: state.read_text(encoding="ascii").rpartition(") ")[2].startswith("T"))

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.kill()
        while self.given:
            os.close(self.given.pop())

    def status(self) -> dict[str, Any]:
        return dict(json.loads(exchange(self.at / "status")))


class Inspecting(Resolving):
    """A proxy that looks into TLS with one certificate for all names, and trusts one authority."""

    signer: Signer | None = None

    def __init__(
        self, folder: Path, program: Path, name_server: int, own: tuple[Path, Path], trusted: Path
    ) -> None:
        """Start it. `own` are the files of its certificate and key."""
        self._own, self._trusted = own, trusted
        super().__init__(folder, program, name_server, refreshing=False)
        self.ports[SECOND_PORT] = free_port()

    def bootstrap(self) -> Json:
        made = super().bootstrap()
        made["static_resources"]["clusters"] += shipped_clusters("https-rules", trusted_ca=str(self._trusted))
        if self.signer:
            whole = shipped()
            made["dynamic_resources"]["ads_config"] = whole["dynamic_resources"]["ads_config"]
            made["static_resources"]["clusters"] += _to(self.signer)
            made["stats_config"] = whole["stats_config"]
        return made

    def _decide_only(self, resource: Json) -> None:
        super()._decide_only(resource)
        chain, key = ({"filename": str(each)} for each in self._own)
        socket_ = extension(
            "transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context={
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{"certificate_chain": chain, "private_key": key}],
                "tls_params": {"ecdh_curves": list(signing.GROUPS)},
            },
        )
        for each in resource.get("filter_chains", ()):
            if each["name"] == chains.INSPECTED:
                each["transport_socket"] = socket_

    def given_and_loaded(self, place: str, kind: str, *at: str) -> bool:
        """Whether Envoy's dump has a file's resources, at least one. `kind` and `at` find them there."""
        found = _read(self.admin(f"/config_dump?resource={kind}"))["configs"]
        for key in at:
            found = [each[key] for each in found if key in each]  # a listener that drains is not active
        written = {each["name"]: each for each in _read((self.folder / "hot" / place).read_bytes())["resources"]}
        return bool(written) and {each["name"]: each for each in found if each["name"] in written} == written

    @contextmanager
    def connected(
        self, name: str, port: int = PORT, *over: str, source: str = "127.0.0.1"
    ) -> Iterator[ssl.SSLSocket]:
        """Connect as an agent that trusts everybody. `over` is what it offers in ALPN, `source` its address."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if over:
            context.set_alpn_protocols(over)
        with (
            socket.create_connection((str(HERE), self.ports[port]), 10, (source, 0)) as plain,
            context.wrap_socket(plain, server_hostname=name) as agent,
        ):
            agent.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield agent

    @contextmanager
    def running(self, name: str, target: str, status: int = 200, *headers: str) -> Iterator[ssl.SSLSocket]:
        """Have a request under way, whose answer has this status, and does not end by itself."""
        with self.connected(name) as agent:
            agent.sendall("\r\n".join((f"GET {target} HTTP/1.1", f"Host: {name}", *headers, "", "")).encode())
            answer = b""
            while _END not in answer and (some := agent.recv(1)):
                answer += some
            if not answer.startswith(f"HTTP/1.1 {status}".encode()):
                raise AssertionError(answer)
            yield agent

    def tunnel(self, name: str, target: str) -> AbstractContextManager[ssl.SSLSocket]:
        return self.running(name, target, 101, *WEBSOCKET)

    def raw(self, request: bytes, name: str, port: int = PORT) -> tuple[int, bytes]:
        """Send octets, and return the status of the answer, or 0 if there is none, and the answer."""
        with self.connected(name, port) as agent:
            agent.sendall(request)
            answer = http.client.HTTPResponse(agent, method="HEAD" if request.startswith(b"HEAD ") else None)
            try:
                answer.begin()
            except http.client.RemoteDisconnected:
                return 0, b""
            return answer.status, answer.read()

    def ask(self, method: str, target: str, name: str, port: int = PORT, *headers: str) -> tuple[int, bytes]:
        lines = (f"{method} {target} HTTP/1.1", f"Host: {name}", *headers, "", "")
        return self.raw("\r\n".join(lines).encode("latin-1"), name, port)


class Injecting(Inspecting):
    """The proxy, with a signer that has secrets."""

    signer: Signer

    def __init__(
        self,
        folder: Path,
        release: Release,
        names: int,
        own: tuple[Path, Path],
        trusted: Path,
        *,
        first: RuleSet,
        **headers: str,
    ) -> None:
        """Start both. Envoy asks only for secrets of its first table. `headers` are theirs, by name."""
        self.headers, self.first = headers, first
        (folder / "signing").mkdir()
        self.signer = Signer(folder / "signing")
        self.signer.give((), (), ["a.test"])
        self.signer.start()
        super().__init__(folder, program(release), names, own, trusted)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.signer.end()

    def give(self, given: Mapping[str, str]) -> None:
        sent = json.dumps({"key": "A" * 43 + "=", "give": dict(given)}).encode()
        answer = json.loads(exchange(self.signer.at / "secrets", sent))
        if answer["secrets"].keys() != given.keys():
            raise AssertionError(answer)


def _read(content: bytes) -> dict[str, Any]:
    """Return JSON without the name of the key's file, which is the test's and which Envoy does not show."""
    read: dict[str, Any] = json.loads(re.sub(rb'"private_key": *[{][^}]*[}]', b'"private_key": {}', content))
    return read


def _to(signer: Signer) -> list[Json]:
    return shipped_clusters("signer", signer_socket=f"{signer.at}/{signing.SOCKET}")


class Echoing(Running):
    """An Envoy that ends TLS for every name, and sends back what it gets."""

    def __init__(self, folder: Path, program: Path, signer: Signer) -> None:
        self.signer, self.port = signer, free_port()
        echo = extension("filters.network.echo.v3.Echo", "echo")
        inspector = extension("filters.listener.tls_inspector.v3.TlsInspector")
        listener = {
            "name": "inspected",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": self.port}},
            "listener_filters": [inspector],
            "filter_chains": [{"name": "inspected", "filters": [echo], **signing.chain()}],
        }
        whole = shipped()
        bootstrap = {
            "admin": {"address": {"pipe": {"path": str(folder / "admin")}}},
            "node": {"id": "test", "cluster": "test"},
            "dynamic_resources": {"ads_config": whole["dynamic_resources"]["ads_config"]},
            "static_resources": {"listeners": [listener], "clusters": _to(signer)},
            "stats_config": whole["stats_config"],
        }
        self.start(folder, [program], bootstrap, "--concurrency 1")
        wait_for(self.process, self._listens, self.log)

    def _listens(self) -> bool:
        try:
            return b"LIVE" in self.admin("/ready")
        except (OSError, http.client.HTTPException):
            return False

    def stats(self, names: str) -> dict[str, int]:
        lines = self.admin(f"/stats?filter={names}").decode().splitlines()
        return {
            name: int(value) for name, _, value in (line.rpartition(": ") for line in lines) if value.isdigit()
        }

    def loaded(self) -> dict[str, Any]:
        dump = json.loads(self.admin("/config_dump?resource=static_listeners"))
        (one,) = dump["configs"]
        found: dict[str, Any] = one["listener"]["filter_chains"][0]
        return found

    def connect(self, name: str | None, seconds: float = 10) -> ssl.SSLSocket:
        """Connect as a client that trusts only the root, or raise `OSError` for a handshake that fails."""
        context = trusting(self.signer.trust)
        context.check_hostname = name is not None
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=seconds)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return context.wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise

    def serves(self, name: str) -> bool:
        """Whether a handshake succeeds, with a certificate for the name that leads to the root."""
        try:
            with self.connect(name) as connection:
                return answers(connection)
        except ssl.SSLError:
            return False


def answers(connection: ssl.SSLSocket) -> bool:
    connection.sendall(b"x")
    return connection.recv(1) == b"x"


def trusting(trust: bytes) -> ssl.SSLContext:
    """Return a client that trusts these roots, and is as strict as it can be."""
    context = ssl.create_default_context(cadata=trust.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context
