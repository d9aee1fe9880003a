"""Connections to an engine: a client of the Docker SDK over a socket, TLS or ssh, and errors of connecting."""

import logging
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
from docker import APIClient, errors
from docker.tls import TLSConfig
from docker.utils.config import load_general_config
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from urllib3 import HTTPSConnectionPool, disable_warnings
from urllib3.exceptions import InsecureRequestWarning
from urllib3.util import create_urllib3_context

from clawker_fw.engine.locate import DEFAULT_ADDRESS, EngineLocation, Tls
from clawker_fw.engine.ssh import SshAdapter
from clawker_fw.errors import EngineError, FirewallError

LOG = logging.getLogger("clawker_fw")


_CALL_SECONDS = 60


_SILENT_SECONDS = 5
"""How long an engine may be silent before a warning is logged."""


def unreachable(place: EngineLocation, error: Exception) -> EngineError:
    """Return the error for an engine that can't be reached."""
    reason = innermost(error)
    context = [str(reason), f"named by {place.source}", *_trust(place)]
    if isinstance(reason, PermissionError):
        return EngineError(
            "engine-denied",
            f"You have no permission to use the Docker engine at {place.address}.",
            context=[*context, *_owner(place)],
            hint="Run this as root, or as a member of the socket's group.",
        )
    if isinstance(error, requests.Timeout) or isinstance(reason, TimeoutError):
        return EngineError(
            "engine-silent",
            f"The Docker engine at {place.address} accepts connections but does not answer.",
            context=[f"waited {_CALL_SECONDS} s", *context],
            hint="It hangs or is overloaded: read its log, and restart it.",
        )
    return EngineError(
        "engine-unreachable",
        f"The Docker engine at {place.address} can't be reached.",
        context=context,
        hint="Start it, or name another one with --host, --context or DOCKER_HOST.",
    )


def _owner(place: EngineLocation) -> list[str]:
    """Return the owner of the engine's socket, if it is visible."""
    try:
        path = Path(place.address.removeprefix("unix://"))
        return [f"{path} belongs to user {path.owner()} and group {path.group()}"]
    except (OSError, KeyError):
        return []


class _Client(APIClient):
    """Logs a warning when an engine is slow to answer a GET. Other requests may take long by nature."""

    address = ""
    silent = False

    def send(self, request: Any, **options: Any) -> Any:  # noqa: ANN401 - requests' own
        """Send a request."""
        if request.method != "GET":
            return super().send(request, **options)
        timer = threading.Timer(_SILENT_SECONDS, self._warn)
        timer.daemon = True
        timer.start()
        try:
            answer = super().send(request, **options)
        finally:
            timer.cancel()
        self.silent = False
        return answer

    def _warn(self) -> None:
        """Log the warning once, until the engine answers again."""
        if not self.silent:
            self.silent = True
            words = (
                f"Waiting for the Docker engine at {self.address}, which has not answered for {_SILENT_SECONDS} s."
            )
            fields = {"address": self.address, "seconds": _SILENT_SECONDS}
            LOG.warning("engine_silent", extra={"words": words, "fields": fields})


def asked_version(client: APIClient) -> Mapping[str, Any]:
    """Return the engine's answer to `/version`. Anything without such an answer is not an engine."""
    try:
        found: object = client.version(api_version=False)
    except (LookupError, TypeError) as error:  # the SDK does not check the form of an answer
        raise errors.DockerException("It does not answer as an engine does") from error
    if isinstance(found, dict):
        return found
    raise errors.DockerException("It does not answer as an engine does")


def open_client(place: EngineLocation, version: str) -> APIClient:
    """Return a client for an engine. No request is sent yet."""
    options: dict[str, Any] = {}
    if place.tls:
        authority = str(place.tls.authority) if place.tls.authority else None
        certificate = (str(place.tls.client[0]), str(place.tls.client[1])) if place.tls.client else None
        options["tls"] = TLSConfig(certificate, authority, place.tls.verify)
    address = DEFAULT_ADDRESS if place.over_ssh else place.address
    try:
        client = _Client(base_url=address, version=version, timeout=_CALL_SECONDS, **options)
    except (errors.InvalidConfigFile, ValueError) as error:
        raise EngineError(
            "docker-config-invalid",
            "The credentials in the docker CLI's configuration are malformed.",
            context=[str(error)],
            hint="They are under `auths` in its config.json; `docker login` writes them.",
        ) from error
    client.address = place.address
    # A socket of this machine has no proxy and no password in ~/.netrc; looking for them slows each request down.
    client.trust_env = not place.address.startswith("unix://")
    if isinstance(configured := load_general_config(), dict):
        # The SDK sends these with its own requests only, and not with those of `direct.py`.
        client.headers.update(configured.get("HttpHeaders") or {})
    if place.over_ssh:
        client.mount("http+docker://", SshAdapter(place.address, _CALL_SECONDS))
    elif place.tls:
        client.mount("https://", _Trusting(place.tls))
    return client


class _Trusting(HTTPAdapter):
    """Trusts the same authorities as the docker CLI, where `requests` would prefer `REQUESTS_CA_BUNDLE`.

    It verifies as strictly as the docker CLI. By default (`VERIFY_X509_STRICT`), Python 3.13 and later require
    extensions that certificates do not have which are made as Docker's own page says:
    https://docs.docker.com/engine/security/protect-access/.

    All connections share what is read here once. Left to `urllib3`, each one reads the files into it, while others
    use it: OpenSSL permits no change of what several threads use (SSL_CTX_new(3)), and a call failed now and then.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._read = False
        self._context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if tls.verify else ssl.CERT_NONE)
        self._context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not tls.verify:
            disable_warnings(InsecureRequestWarning)  # the user asked for it
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - requests' own
        """Create the connections."""
        super().init_poolmanager(*arguments, **options, ssl_context=self._context)

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - requests' own
        """Create the connections through a proxy."""
        return super().proxy_manager_for(*arguments, **options, ssl_context=self._context)

    def cert_verify(self, conn: HTTPSConnectionPool, *_: object) -> None:
        """Have each connection use what is read, and add nothing to it."""
        conn.cert_reqs = self._context.verify_mode

    def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]  # noqa: ANN401 - requests' own
        """Send a request."""
        with self._lock:
            if not self._read:
                try:
                    self._read_files()
                except OSError as error:
                    raise requests.exceptions.SSLError(error) from error
                self._read = True
        return super().send(request, **{**options, "verify": self._tls.verify, "cert": None})

    def _read_files(self) -> None:
        if self._tls.verify:
            self._context.load_verify_locations(self._tls.authority or DEFAULT_CA_BUNDLE_PATH)
        if self._tls.client:
            certificate, key = self._tls.client
            self._context.load_cert_chain(certificate, key, password="")  # nobody is asked for one


def _trust(place: EngineLocation) -> list[str]:
    """Return a line about TLS for an error's context."""
    if place.tls is None:
        return []
    parts = {"ca.pem": place.tls.authority, "cert.pem and key.pem": place.tls.client}
    missing = [name for name, path in parts.items() if path is None]
    return [f"TLS by the files in {place.tls.folder}{''.join(f', without {name}' for name in missing)}"]


def innermost(error: BaseException) -> BaseException:
    """Return the original error, whose text says most. One of ours that was being handled is not its reason."""
    while (earlier := error.__cause__ or error.__context__) and not isinstance(earlier, FirewallError):
        error = earlier
    return error
