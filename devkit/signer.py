"""The real signer (`fwctl sign`) and a real Envoy that ends TLS with its certificates, on loopback."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clawker_fw.certificates.store import InspectionStore
from clawker_fw.model import Files
from clawker_fw.stack.envoy import signing
from clawker_fw.stack.envoy.messages import extension
from devkit.envoy import Running
from devkit.programs import free_port, machine
from devkit.stacks import installed_release
from devkit.starting import exchange, wait_for
from devkit.waiting import until


@dataclass
class Signer:
    """The signer, with its files in a folder. It can be killed and started again.

    Its sockets and the files of its secrets are ours, as they are its keeper's, and are handed down at each start.
    """

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
        """Replace its files: what is inspected, and what new intermediates are constrained to."""
        provided = InspectionStore(self.folder / "store", "demo", keeps=True).provide(covered)
        if provided.reason:
            raise AssertionError(provided.reason)
        self.trust = provided.trust
        self.intermediates = provided.intermediates
        self.put(signing.files(names, subtrees, provided.intermediates))

    def inspect(self, names: Iterable[str], subtrees: Iterable[str]) -> None:
        self.put({signing.NAMES: signing.files(names, subtrees, ())[signing.NAMES]})

    def put(self, files: Files) -> None:
        """Replace files like a commit."""
        for path, file in files.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.folder / "fresh"
            fresh.write_bytes(file.content)
            fresh.replace(target)

    def start(self) -> None:
        """Start it, and wait until it answers."""
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
        """End it, and close what it was handed."""
        self.kill()
        while self.given:
            os.close(self.given.pop())

    def status(self) -> dict[str, Any]:
        return dict(json.loads(exchange(self.at / "status")))


class Inspecting(Running):
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
        bootstrap = {
            "admin": {"address": {"pipe": {"path": str(folder / "admin")}}},
            "node": {"id": "test", "cluster": "test"},
            "dynamic_resources": {"ads_config": signing.ads_config()},
            "static_resources": {"listeners": [listener], "clusters": [signing.cluster(str(signer.at))]},
            "stats_config": signing.stats_config(),
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
    """Whether an open connection still works."""
    connection.sendall(b"x")
    return connection.recv(1) == b"x"


def trusting(trust: bytes) -> ssl.SSLContext:
    """Return a client that trusts these roots, and is as strict as it can be."""
    context = ssl.create_default_context(cadata=trust.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context
