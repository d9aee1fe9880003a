"""HTTP to registries: a few bounded exchanges over Python's own client.

It is imported in a fifth of the time that `requests` takes, and has no defaults to take back: redirects, what
they may carry, sizes and times are decided here. TLS, but for registries on this machine. A proxy is used as the
environment says (`HTTPS_PROXY`, `NO_PROXY`), and `SSL_CERT_FILE`, `SSL_CERT_DIR` or `REQUESTS_CA_BUNDLE` name
other authorities.
"""

import contextlib
import functools
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPSConnection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from clawker_fw.background import in_background
from clawker_fw.errors import RegistryError
from clawker_fw.settings.bundles.reference import is_loopback

SECONDS = 10.0
"""How long one exchange may take, with its redirects."""

_MOST_REDIRECTS = 4
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGENT = "clawker-fw"
_SHOWN = 200


class TooLargeError(Exception):
    """A body has more octets than it may."""


@dataclass(frozen=True)
class Response:
    """A response with its whole body. `url` is where it came from, after redirects."""

    url: str
    status: int
    headers: HTTPMessage
    body: bytes = field(repr=False)

    @property
    def retry_after(self) -> float | None:
        """How many seconds the registry asks to be left alone, if it does (RFC 9110, section 10.2.3)."""
        text = (self.headers.get("Retry-After") or "").strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        from email.utils import parsedate_to_datetime  # noqa: PLC0415 - hardly any registry writes a date

        with contextlib.suppress(ValueError, TypeError, OverflowError):
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        return None


class _Origin(NamedTuple):
    """What a connection leads to."""

    scheme: str
    host: str
    port: int


class Http:
    """Exchanges with one registry, one after the other, over a kept connection, until one takes too long.

    Not for several threads.
    """

    def __init__(self, host: str, environment: Mapping[str, str], seconds: float = SECONDS) -> None:
        """Prepare for a registry at `HOST` or `HOST:PORT`. `seconds` is how long one exchange may take."""
        self._environment = environment
        self._seconds = seconds
        self._connection: HTTPConnection | None = None
        self._to: _Origin | None = None
        self._abandoned = False
        self._local = is_loopback(_split(host)[0])
        self.base = f"{'http' if self._local else 'https'}://{host}"

    def close(self) -> None:
        """Close the connection, if one is open."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"", *, most: int = 0
    ) -> Response:
        """Send a request and return the response, after redirects. `target` is a path, or a whole URL.

        Credentials (`Authorization`) go to the origin of `target` alone. `most` is how many octets the body may
        have.

        Raises:
            RegistryError: when nobody answers in time, or not in HTTP, or a redirect leads where it must not.
            TooLargeError: when the body has more.
        """
        work: Future[Response] = in_background(
            self._followed, method, urljoin(self.base, target), dict(headers), body, most
        )
        try:
            return work.result(timeout=self._seconds)
        except FutureTimeoutError as error:
            self._abandon()
            raise self._error(f"it took longer than {self._seconds:g} s") from error
        except (OSError, HTTPException, ValueError) as error:  # ValueError: an address with strange characters
            self.close()
            raise self._error(_reason(error)) from error
        except TooLargeError:
            self.close()
            raise

    def _followed(self, method: str, url: str, headers: dict[str, str], body: bytes, most: int) -> Response:
        first = self.origin(url)
        for _ in range(_MOST_REDIRECTS + 1):
            mine = headers if self.origin(url) == first else _without_credentials(headers)
            response = self._sent(method, url, mine, body, most)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location or method not in {"GET", "HEAD"}:
                return response
            url = urljoin(url, location)
        raise self._error(f"it redirects more than {_MOST_REDIRECTS} times")

    def origin(self, url: str) -> _Origin:
        """Return what a URL leads to.

        Raises:
            RegistryError: when it is none that may be asked. Plain HTTP is for this machine, to which only a
                registry on it may lead.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise self._error("it redirects to what is no address") from error
        here = is_loopback(host)
        if not host or parts.scheme not in {"http", "https"} or (here and not self._local):
            raise self._error("it redirects to where no registry is")
        if parts.scheme == "http" and not here:
            raise self._error("it redirects to plain HTTP")
        return _Origin(parts.scheme, host, port or (443 if parts.scheme == "https" else 80))

    def _sent(self, method: str, url: str, headers: Mapping[str, str], body: bytes, most: int) -> Response:
        origin = self.origin(url)
        fresh = self._to != origin or self._connection is None
        try:
            return self._asked(origin, method, url, headers, body, most=most)
        except (HTTPException, ConnectionError):
            if fresh or self._abandoned:
                raise
            self.close()  # a kept connection that the registry has closed meanwhile
            return self._asked(origin, method, url, headers, body, most=most)

    def _asked(
        self, origin: _Origin, method: str, url: str, headers: Mapping[str, str], body: bytes, *, most: int
    ) -> Response:
        if self._to != origin or self._connection is None:
            self.close()
            self._connection, self._to = self._connected(origin), origin
        connection, parts = self._connection, urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = {"User-Agent": _AGENT, "Accept-Encoding": "identity", **headers}
        connection.request(method, target, body or (b"" if method in {"POST", "PUT"} else None), sent)
        response = connection.getresponse()
        content = response.read(most + 1) if most else b""
        if len(content) > most:
            raise TooLargeError
        if not response.isclosed():
            self.close()  # what is left of the body is not waited for
        return Response(url, response.status, response.headers, content)

    def _connected(self, origin: _Origin) -> HTTPConnection:
        if origin.scheme == "http":
            return HTTPConnection(origin.host, origin.port, timeout=self._seconds)
        context = _context(*(self._environment.get(each, "") for each in _AUTHORITIES))
        proxy = _proxy(origin, self._environment)
        if proxy is None:
            return HTTPSConnection(origin.host, origin.port, timeout=self._seconds, context=context)
        connection = HTTPSConnection(proxy.host, proxy.port, timeout=self._seconds, context=context)
        connection.set_tunnel(origin.host, origin.port, dict(proxy.headers))
        return connection

    def _abandon(self) -> None:
        """End the connection of an exchange that is still under way in its thread, which then ends as well."""
        self._abandoned = True
        connection, self._connection = self._connection, None
        if connection and connection.sock:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _error(self, reason: str) -> RegistryError:
        host = urlsplit(self.base).netloc
        return RegistryError(
            "registry-unreachable",
            f"The registry {host} can't be asked: {reason}.",
            hint="Check its name, the network, and what `HTTPS_PROXY` and `SSL_CERT_FILE` say.",
        )


def _without_credentials(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() != "authorization"}


def _split(host: str) -> tuple[str, int | None]:
    parts = urlsplit(f"//{host}")
    return parts.hostname or "", parts.port


def _reason(error: Exception) -> str:
    """Return what went wrong in a few words, without what a stranger may have written at length."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid here ({error.verify_message})"
    words = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return shown(words)


def shown(value: object) -> str:
    """Return a stranger's value as far as it can be shown."""
    return "".join(each if each.isprintable() else "?" for each in str(value)[:_SHOWN])


_AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


@functools.lru_cache(maxsize=4)
def _context(file: str, folder: str, bundle: str) -> ssl.SSLContext:
    """Return how TLS is spoken, with the authorities of the environment or of this machine."""
    if file or folder:
        return ssl.create_default_context(cafile=file or None, capath=folder or None)
    if bundle:
        is_folder = Path(bundle).is_dir()
        return ssl.create_default_context(
            cafile=None if is_folder else bundle, capath=bundle if is_folder else None
        )
    context = ssl.create_default_context()
    known = ssl.get_default_verify_paths()
    if not known.cafile and not (known.capath and any(Path(known.capath).iterdir())):
        import certifi  # noqa: PLC0415 - only a machine without authorities needs it

        context.load_verify_locations(certifi.where())
    return context


class _Proxy(NamedTuple):
    host: str
    port: int
    headers: Mapping[str, str]


def _proxy(origin: _Origin, environment: Mapping[str, str]) -> _Proxy | None:
    """Return the proxy for an origin, as the environment says."""
    url = environment.get("https_proxy") or environment.get("HTTPS_PROXY") or ""
    if not url:
        return None
    import urllib.request  # noqa: PLC0415 - most machines have no proxy

    without = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    bypasses = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it
    if bypasses(f"{origin.host}:{origin.port}", {"no": without}):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    headers = {}
    if parts.username:
        from base64 import b64encode  # noqa: PLC0415 - the same
        from urllib.parse import unquote  # noqa: PLC0415 - the same

        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    return _Proxy(parts.hostname or "", parts.port or 3128, headers)
