"""A real registry (Debian's docker-registry), in the network of a private engine or on this machine's loopback."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Registry:
    """A registry. `address` is its name for the engine. Engines use plain HTTP for registries on loopback."""

    engine: PrivateEngine
    folder: Path
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

    def blob(self, digest: str) -> Path:
        """Return where it keeps a manifest or a layer."""
        kind, _, name = digest.partition(":")
        return self.folder / "data/docker/registry/v2/blobs" / kind / name[:2] / name / "data"

    def index(self, repository: str, platforms: Mapping[str, str]) -> str:
        """Push an index of images for several architectures, in this order, and return its reference."""
        manifests = []
        for architecture, reference in platforms.items():
            digest = reference.partition("@")[2]
            manifest = self.blob(digest).read_bytes()
            kind, platform = json.loads(manifest)["mediaType"], {"os": "linux", "architecture": architecture}
            described = {"mediaType": kind, "digest": digest, "size": len(manifest), "platform": platform}
            manifests.append(described)
        content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
        put = ("curl", "-sf", "-X", "PUT", "-H", f"Content-Type: {INDEX}", "--data-binary", "@-")
        url = f"http://{self.address}/v2/{repository}/manifests/index"
        self.engine.run_in_network([*put, url], stdin=content)
        return f"{self.address}/{repository}@sha256:{hashlib.sha256(content.encode()).hexdigest()}"


@contextmanager
def registry(
    engine: PrivateEngine, folder: Path, *, port: int = 5000, password: bool = False
) -> Iterator[Registry]:
    """Yield an empty registry that ends afterwards."""
    address = f"127.0.0.1:{port}"
    credentials = {"username": USER, "password": PASSWORD} if password else None
    argv = engine.network_argv(*_program(folder, address, password=password))
    with running(argv, folder / "log", lambda: engine.answers(address)):
        yield Registry(engine, folder, address, credentials)


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
