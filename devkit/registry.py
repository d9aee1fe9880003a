"""A real registry (Debian's docker-registry) in the network of a private engine, on its loopback interface.

`python -m devkit.registry` is a proxy in front of a registry, with one fault: see `FAULTS`.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from docker import APIClient

from devkit.engines import PrivateEngine, install
from devkit.programs import free_port
from devkit.starting import listens, running

USER, PASSWORD = "agent-keeper", "open sesame"
_HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"
"""The password, hashed with bcrypt: `perl -e 'print crypt("open sesame", q($2y$05$abcdefghijklmnopqrstuu))'`."""

_CONFIG = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {folder}/data}}
  delete: {{enabled: true}}
http: {{addr: {address}}}
"""
_AUTH = "auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n"

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"

_ASK = """
import base64, json, sys, urllib.request
method, url, headers, body = json.load(sys.stdin)
request = urllib.request.Request(url, body.encode() or None, headers, method=method)
with urllib.request.urlopen(request) as answer:
    print(json.dumps([dict(answer.headers), answer.read().decode()]))
"""


@dataclass(frozen=True)
class Registry:
    """A registry. `address` is its name for the engine. Engines use plain HTTP for registries on loopback."""

    engine: PrivateEngine
    address: str
    credentials: Mapping[str, str] | None = None

    def push(self, client: APIClient, image: str, repository: str) -> str:
        """Push an image of the engine, and return its digest reference."""
        name = f"{self.address}/{repository}"
        client.tag(image, name, "pushed")
        pushing = client.push(name, tag="pushed", stream=True, decode=True, auth_config=self.credentials)
        lines: list[dict[str, Any]] = list(pushing)
        found = re.search(r"digest: (sha256:[0-9a-f]{64})", "".join(str(line.get("status")) for line in lines))
        if found is None:
            raise RuntimeError(f"nothing was pushed: {lines[-1]}")
        client.remove_image(f"{name}:pushed")
        return f"{name}:pushed@{found[1]}"

    def index(self, repository: str, platforms: Mapping[str, str]) -> str:
        """Push an index of images for several architectures, in this order, and return its reference."""
        manifests = []
        for architecture, reference in platforms.items():
            digest = reference.partition("@")[2]
            headers, body = self._ask("GET", repository, digest, {"Accept": MANIFESTS})
            manifests.append(
                {
                    "mediaType": headers["Content-Type"],
                    "digest": digest,
                    "size": len(body.encode()),
                    "platform": {"os": "linux", "architecture": architecture},
                }
            )
        content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
        headers, _ = self._ask("PUT", repository, "index", {"Content-Type": INDEX}, content)
        return f"{self.address}/{repository}@{headers['Docker-Content-Digest']}"

    def _ask(
        self, method: str, repository: str, manifest: str, headers: Mapping[str, str], body: str = ""
    ) -> tuple[dict[str, str], str]:
        url = f"http://{self.address}/v2/{repository}/manifests/{manifest}"
        asked = json.dumps([method, url, headers, body])
        answer = self.engine.run_in_network([sys.executable, "-c", _ASK], stdin=asked)
        found, content = json.loads(answer.stdout)
        return found, content


@contextmanager
def registry(
    engine: PrivateEngine, folder: Path, *, port: int = 5000, password: bool = False
) -> Iterator[Registry]:
    """Yield an empty registry that ends afterwards."""
    address = f"127.0.0.1:{port}"
    credentials = {"username": USER, "password": PASSWORD} if password else None
    argv = engine.network_argv(*_program(folder, address, password=password))
    with running(argv, folder / "log", lambda: engine.answers(address)):
        yield Registry(engine, address, credentials)


@contextmanager
def own_registry(folder: Path) -> Iterator[str]:
    """Yield the address of an empty registry of this machine, on its loopback interface, that ends afterwards."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    argv = _program(folder, address, password=False)
    with running(argv, folder / "log", lambda: listens("127.0.0.1", port)):
        yield address


def _program(folder: Path, address: str, *, password: bool) -> Sequence[str]:
    install({"docker-registry": "docker-registry"})
    (folder / "htpasswd").write_text(_HTPASSWD)
    settings = (_CONFIG + (_AUTH if password else "")).format(folder=folder, address=address)
    (folder / "registry.yml").write_text(settings)
    return ["docker-registry", "serve", f"{folder}/registry.yml"]


@contextmanager
def faulty(behind: Registry, fault: str, folder: Path) -> Iterator[str]:
    """Yield the address of a proxy with a fault in front of a registry."""
    address = "127.0.0.1:5009"
    argv = behind.engine.network_argv(sys.executable, "-m", "devkit.registry", address, behind.address, fault)
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with running(argv, folder / "proxy.log", lambda: behind.engine.answers(address), variables=variables):
        yield address


# --- a proxy with a fault --------------------------------------------------------------------------------------

_CHUNK = 1 << 16
_SLOW_ANSWER, _SLOW_CHUNK = 0.3, 0.02
_FOREVER = 3600
_TLS_HANDSHAKE = b"\x16"


def _slowly(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _CHUNK):
        time.sleep(_SLOW_CHUNK)
        yield body[start : start + _CHUNK]


def _changed(body: bytes) -> Iterator[bytes]:
    middle = len(body) // 2
    yield body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def _respelled(body: bytes) -> Iterator[bytes]:
    """Write a key of a manifest differently: its meaning is the same, but its digest is another."""
    yield body.replace(b'"mediaType"', b'"mediatype"', 1)


def _never(body: bytes) -> Iterator[bytes]:
    yield body[:1]
    time.sleep(_FOREVER)


def _whole(body: bytes) -> Iterator[bytes]:
    yield body


@dataclass(frozen=True, slots=True)
class Fault:
    """A change of responses whose path contains one of the words: a delay, another status, another body."""

    paths: tuple[str, ...]
    delay: float = 0.0
    status: int = 0
    body: Callable[[bytes], Iterable[bytes]] = _whole


FAULTS = {
    "slow": Fault(("/",), delay=_SLOW_ANSWER, body=_slowly),
    "broken": Fault(("/manifests/",), status=500),
    "broken-blobs": Fault(("/blobs/",), status=500),
    "forbidden": Fault(("/manifests/",), status=403),
    "other-manifest": Fault(("/manifests/",), body=_respelled),
    "other-bytes": Fault(("/blobs/",), body=_changed),
    "silent": Fault(("/blobs/",), body=_never),
}


class _Handler(BaseHTTPRequestHandler):
    """Forwards requests and responses, with the fault."""

    protocol_version = "HTTP/1.1"
    upstream: str
    fault: Fault

    def handle(self) -> None:
        """Answer a TLS handshake like a plain HTTP server in Go. Some engines only then try plain HTTP."""
        if self.connection.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE:
            self.wfile.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            return
        super().handle()

    def do_GET(self) -> None:
        connection = http.client.HTTPConnection(self.upstream)
        connection.request(self.command, self.path, headers=dict(self.headers))
        answer = connection.getresponse()
        body = answer.read()
        fault = self.fault if any(word in self.path for word in self.fault.paths) else Fault(())
        time.sleep(fault.delay)
        self.send_response(fault.status or answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"content-length", "connection", "date", "server"}:
                self.send_header(name, value)
        chunks = fault.body(body) if body else ()
        self.send_header("Content-Length", answer.getheader("Content-Length") or "0")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for chunk in chunks:
                self.wfile.write(chunk)
                self.wfile.flush()

    do_HEAD = do_GET  # noqa: N815 - http.server's own name


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m devkit.registry", description=__doc__)
    parser.add_argument("address", help="where to listen, HOST:PORT")
    parser.add_argument("upstream", help="the registry behind")
    parser.add_argument("fault", choices=sorted(FAULTS))
    chosen = parser.parse_args()
    host, port = chosen.address.split(":")
    handler = type("Handler", (_Handler,), {"upstream": chosen.upstream, "fault": FAULTS[chosen.fault]})
    ThreadingHTTPServer((host, int(port)), handler).serve_forever()


if __name__ == "__main__":
    main()
