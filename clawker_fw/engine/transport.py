"""The Docker SDK's client for an engine: over a socket, TLS or ssh."""

import math
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import requests
from docker import APIClient, errors
from docker.utils.config import load_general_config
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from urllib3 import HTTPSConnectionPool, disable_warnings
from urllib3.exceptions import InsecureRequestWarning
from urllib3.util import create_urllib3_context

from clawker_fw.engine import bounds
from clawker_fw.engine.locate import DEFAULT_ADDRESS, EngineLocation, Tls
from clawker_fw.engine.ssh import SshAdapter
from clawker_fw.errors import EngineError


class _Bounded:
    """The source of an answer for `requests`, limited to `most` bytes and to pieces of `bounds.PIECE`."""

    def __init__(self, raw: Any, most: int | None) -> None:  # noqa: ANN401 - urllib3's own
        self._raw = raw
        self._left = math.inf if most is None else most

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - urllib3's own
        return getattr(self._raw, name)

    def stream(self, *arguments: Any, **options: Any) -> Iterator[bytes]:  # noqa: ANN401 - urllib3's own
        for piece in self._raw.stream(*arguments, **options):
            self._left -= len(piece)
            if self._left < 0:
                raise bounds.too_long("an answer", bounds.ANSWER)
            yield piece

    def read(self, size: int) -> bytes:
        if size > bounds.PIECE:
            raise bounds.too_long("a piece of an answer", bounds.PIECE)
        return bytes(self._raw.read(size))


class Client(APIClient):
    """The SDK's client, with limited answers."""

    def send(self, request: Any, **options: Any) -> Any:  # noqa: ANN401 - requests' own
        """Send a request."""
        stream = options.pop("stream", False)
        answer: requests.Response = super().send(request, stream=True, **options)
        answer.raw = _Bounded(answer.raw, None if stream and answer.ok else bounds.ANSWER)
        if not stream:
            try:
                answer.content  # noqa: B018 - which reads it
            except BaseException:
                answer.close()
                raise
        return answer

    def open_response(
        self,
        method: str,
        path: str,
        silence: float | None,
        **options: Any,  # noqa: ANN401 - those of `requests`
    ) -> requests.Response:
        """Send a request to a `path` after the API version, and return its response after reading only the head.

        The SDK has no method for this. `streams.read` and `streams.contents` read the rest. `silence` is the
        timeout without data in seconds, or None.

        Raises:
            docker.errors.APIError: when the engine answers with an error.
        """
        url = f"{self.base_url}/v{self.api_version}{quote(path)}"
        response = self.request(method, url, stream=True, timeout=(self.timeout, silence), **options)
        try:
            response.raise_for_status()
        except requests.HTTPError as error:
            errors.create_api_error_from_http_exception(error)
        return response


def open_client(place: EngineLocation, version: str, seconds: float) -> Client:
    """Return a client with a timeout for an engine. No request is sent yet.

    Raises:
        EngineError: when the docker CLI's configuration is malformed, or its TLS files are unusable.
    """
    over_ssh = place.address.startswith("ssh://")
    address = DEFAULT_ADDRESS if over_ssh else place.address
    timeout: Any = seconds  # the SDK's types have only whole seconds
    try:
        client = Client(base_url=address, version=version, timeout=timeout, tls=bool(place.tls))
    except (errors.InvalidConfigFile, ValueError) as error:
        raise EngineError(
            "docker-config-invalid",
            "The credentials in the docker CLI's configuration are malformed.",
            context=[str(error)],
            hint="They are under `auths` in its config.json; `docker login` writes them.",
        ) from error
    # A socket needs neither a proxy nor a password from ~/.netrc.
    client.trust_env = not place.address.startswith("unix://")
    if isinstance(configured := load_general_config(), dict):
        # The SDK sends these only with its own requests, not with those of `open_response`.
        client.headers.update(configured.get("HttpHeaders") or {})
    if over_ssh:
        client.mount("http+docker://", SshAdapter(place.address, seconds))
    elif place.tls:
        try:
            client.mount("https://", _Trusting(place.tls))
        except OSError as error:
            raise EngineError(
                "docker-tls-unusable",
                "The docker CLI's files for TLS can't be used.",
                context=[str(error), f"the folder is {place.tls.folder}, named by {place.source}"],
                hint="You must be able to read its ca.pem, cert.pem and key.pem, and each must be in PEM form.",
            ) from error
    return client


class _Trusting(HTTPAdapter):
    """Trusts the same CAs as the docker CLI, where `requests` would prefer `REQUESTS_CA_BUNDLE`.

    Verification is as strict as the CLI's. By default (`VERIFY_X509_STRICT`), Python 3.13 and later require
    extensions that certificates made as in Docker's documentation lack:
    https://docs.docker.com/engine/security/protect-access/.

    All connections share a context that is loaded once. `urllib3` would load the files into it per connection
    while others use it, which OpenSSL forbids (SSL_CTX_new(3)) and which sometimes failed.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if tls.verify else ssl.CERT_NONE)
        self._context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not tls.verify:
            disable_warnings(InsecureRequestWarning)  # the user asked for it
        else:
            self._context.load_verify_locations(tls.authority or DEFAULT_CA_BUNDLE_PATH)
        if tls.client:
            self._context.load_cert_chain(*tls.client, password="")  # never ask for a password
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - requests' own
        super().init_poolmanager(*arguments, **options, ssl_context=self._context)

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - requests' own
        return super().proxy_manager_for(*arguments, **options, ssl_context=self._context)

    def cert_verify(self, conn: HTTPSConnectionPool, *_: object) -> None:
        """Make each connection use the shared context unchanged."""
        conn.cert_reqs = self._context.verify_mode

    def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]  # noqa: ANN401 - requests' own
        return super().send(request, **{**options, "verify": self._tls.verify, "cert": None})
