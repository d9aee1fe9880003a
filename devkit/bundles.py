"""Bundles for tests: keys, pushes, and a registry in this process that answers what it is told to."""

import hashlib
import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from clawker_fw.settings.bundles import publishing
from clawker_fw.settings.bundles.http import Http
from clawker_fw.settings.bundles.reference import Reference, parse_reference
from clawker_fw.settings.bundles.registry import Repository
from clawker_fw.settings.bundles.signature import signing_key
from clawker_fw.settings.bundles.store import Bundle

RULES = b"rules: [{dst: a.test}]\n"


@dataclass(frozen=True)
class Keys:
    """A private key and its public half, as PEM files."""

    private: Path
    public: Path


def keys(folder: Path, name: str, *, ed: bool = False) -> Keys:
    """Make a pair of keys: ECDSA P-256, or Ed25519."""
    key = ed25519.Ed25519PrivateKey.generate() if ed else ec.generate_private_key(ec.SECP256R1())
    made = Keys(folder / f"{name}.key", folder / f"{name}.pub")
    made.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    made.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return made


def opened(reference: Reference, *, seconds: float = 5.0) -> Repository:
    """Return a repository for which nobody has a login."""
    return Repository(reference, lambda _: None, Http(reference.host, os.environ, seconds), writes=True)


def pushed(reference: str, key: Path | None, text: bytes = RULES, created: float | None = None) -> Bundle:
    """Push a text as a bundle."""
    parsed = parse_reference(reference)
    repository = opened(parsed)
    try:
        signer = signing_key(key) if key else None
        return publishing.push(repository, text, parsed, time.time() if created is None else created, signer)
    finally:
        repository.close()


@dataclass
class Answer:
    """What a scripted registry answers: a status, headers and a body, perhaps in pieces with pauses."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    pause: float = 0.0
    """Seconds before each octet of the body."""

    length: int | None = None
    """The length that is announced, if it is not that of the body."""


@dataclass
class Scripted:
    """A registry in this process. `answers` are by path; `seen` are the requests, with their headers."""

    address: str
    answers: dict[str, Answer | Callable[[Mapping[str, str]], Answer]] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def has(self, name: str, reference: str, content: bytes) -> None:
        """Have a manifest, under a tag or a digest."""
        headers = {
            "Content-Type": "application/vnd.oci.image.manifest.v1+json",
            "Docker-Content-Digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
        }
        self.answers[f"/v2/{name}/manifests/{reference}"] = Answer(headers=headers, body=content)

    def blob(self, name: str, content: bytes) -> str:
        """Have a blob. Return its path."""
        path = f"/v2/{name}/blobs/sha256:{hashlib.sha256(content).hexdigest()}"
        self.answers[path] = Answer(body=content)
        return path

    def copy(self, address: str, name: str, tag: str) -> str:
        """Have what another registry has under a tag, with its signature. Return the digest."""
        repository = opened(parse_reference(f"{address}/{name}:{tag}"))
        manifest = repository.manifest(tag)
        signature = manifest and repository.manifest(f"{manifest.digest.replace(':', '-')}.sig")
        if manifest is None or signature is None:
            raise RuntimeError("there is nothing to copy")
        self.has(name, tag, manifest.content)
        self.has(name, manifest.digest, manifest.content)
        self.has(name, f"{manifest.digest.replace(':', '-')}.sig", signature.content)
        for document in (json.loads(manifest.content), json.loads(signature.content)):
            for each in document["layers"]:
                self.blob(name, repository.blob(each["digest"], each["size"], 1 << 20))
        repository.close()
        return manifest.digest


@contextmanager
def scripted(tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    """Yield a scripted registry."""
    registry = Scripted("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with suppress(OSError):  # the client has gone away: why it has is tested at its end
                super().handle()

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            registry.seen.append((self.command, self.path, headers))
            found = registry.answers.get(self.path.partition("?")[0], Answer(404))
            answer = found if isinstance(found, Answer) else found(headers)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
            self.end_headers()
            if self.command == "HEAD":
                return
            if answer.pause:
                for octet in answer.body:
                    time.sleep(answer.pause)
                    self.wfile.write(bytes([octet]))
            else:
                self.wfile.write(answer.body)
            self.close_connection |= answer.length is not None

        do_HEAD = do_GET  # noqa: N815 - http.server's own name

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    registry.address = f"127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
