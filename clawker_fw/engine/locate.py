"""Locates the engine as the docker CLI does. Nothing is connected here.

The order and the files follow https://docs.docker.com/engine/manage-resources/contexts/ and
https://docs.docker.com/engine/security/protect-access/. The Docker SDK would ignore an unreadable configuration
and use another engine than the CLI.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from clawker_fw.engine import client_config
from clawker_fw.errors import EngineError

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
DEFAULT_SOURCE = "the default"

_SCHEMES = ("unix", "tcp", "ssh")
_PLAIN_PORT, _TLS_PORT = 2375, 2376


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS settings: `folder` may contain `ca.pem`, `cert.pem` and `key.pem`, as for the docker CLI."""

    folder: Path
    verify: bool

    @property
    def authority(self) -> Path | None:
        """The engine's CA certificates, or None for the system's."""
        return self._file("ca.pem")

    @property
    def client(self) -> tuple[Path, Path] | None:
        """The client certificate and its key, if both exist."""
        certificate, key = self._file("cert.pem"), self._file("key.pem")
        return (certificate, key) if certificate and key else None

    def _file(self, name: str) -> Path | None:
        path = self.folder / name
        return path if client_config.exists(path) else None


@dataclass(frozen=True, slots=True)
class EngineLocation:
    """An engine's address (`unix://`, `tcp://` or `ssh://`), the source that named it, and its TLS settings."""

    address: str
    source: str
    tls: Tls | None = None

    @property
    def plain(self) -> bool:
        """Whether others on the way can read along: TCP without TLS, unless it stays on this machine."""
        if self.tls is not None or not self.address.startswith("tcp://"):
            return False
        host = urlsplit(self.address).hostname or ""
        try:
            return not ip_address(host).is_loopback
        except ValueError:
            return host != "localhost"


def locate(host: str | None, context: str | None, environment: Mapping[str, str]) -> EngineLocation:
    """Return the engine that the docker CLI would use.

    The first of these applies: `host`, `context`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context, the
    default socket. The context `default` means `DOCKER_HOST`, or the default socket.

    Raises:
        EngineError: when the configuration that names the engine is unreadable or invalid.
    """
    if host:
        return _named(host, "--host", environment)
    address = environment.get("DOCKER_HOST")
    name = (
        context
        or (client_config.DEFAULT_CONTEXT if address else environment.get("DOCKER_CONTEXT"))
        or client_config.main_file(environment).get("currentContext")
        or client_config.DEFAULT_CONTEXT
    )
    if name != client_config.DEFAULT_CONTEXT:
        return _from_context(str(name), environment)
    if address:
        return _named(address, "DOCKER_HOST", environment)
    return EngineLocation(DEFAULT_ADDRESS, DEFAULT_SOURCE)


def _named(text: str, source: str, environment: Mapping[str, str]) -> EngineLocation:
    verify = bool(environment.get("DOCKER_TLS_VERIFY"))
    folder = Path(environment.get("DOCKER_CERT_PATH") or client_config.folder(environment))
    tls = Tls(folder, verify) if verify or environment.get("DOCKER_TLS") else None
    return _place(text, source, tls)


def _from_context(name: str, environment: Mapping[str, str]) -> EngineLocation:
    """Return the location in a docker context (docker/cli, `cli/context/store`)."""
    store = client_config.folder(environment) / "contexts"
    identity = hashlib.sha256(os.fsencode(name)).hexdigest()
    path = store / "meta" / identity / "meta.json"
    meta = client_config.read(path)
    if meta is None:
        raise EngineError(
            "context-unknown",
            f"There is no docker context called {name!r}.",
            context=[f"looked in {store}"],
            hint="`docker context ls` lists them.",
        )
    endpoints = meta.get("Endpoints")
    endpoint = endpoints.get("docker") if isinstance(endpoints, dict) else None
    if not isinstance(endpoint, dict):
        raise EngineError(
            "context-unusable",
            f"The docker context {name!r} names no Docker engine.",
            context=[f"read {path}"],
            hint="`docker context inspect` shows what is in it.",
        )
    folder, skip = store / "tls" / identity / "docker", bool(endpoint.get("SkipTLSVerify"))
    tls = Tls(folder, verify=not skip) if skip or client_config.exists(folder) else None
    return _place(str(endpoint.get("Host") or DEFAULT_ADDRESS), f"docker context {name}", tls)


def _place(text: str, source: str, tls: Tls | None) -> EngineLocation:
    parts = urlsplit(text if "://" in text else f"tcp://{text}")
    if not _makes_sense(parts):
        raise EngineError(
            "engine-address",
            f"{text} is not the address of a Docker engine.",
            context=[f"named by {source}"],
            hint="Write unix://PATH, tcp://HOST:PORT or ssh://[USER@]HOST[:PORT].",
        )
    if parts.scheme != "tcp":
        return EngineLocation(text, source)
    port = parts.port or (_TLS_PORT if tls else _PLAIN_PORT)
    name = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    return EngineLocation(f"tcp://{name}:{port}{parts.path.rstrip('/')}", source, tls)


def _makes_sense(parts: SplitResult) -> bool:
    try:
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        return False
    if parts.scheme not in _SCHEMES or parts.query or parts.fragment or parts.password or not port_fits:
        return False
    return bool(parts.netloc or parts.path) if parts.scheme == "unix" else bool(parts.hostname)
