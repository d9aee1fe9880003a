"""An engine of this machine, asked over its socket: the part of the Docker SDK's client that reading needs.

It is used by the names of the SDK's (`asking.Asks`). Python's own HTTP client is imported in a fifth of the time
that the SDK and its libraries take, and a request takes a third.
"""

import json
import os
import select
import socket
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, NamedTuple, Self
from urllib.parse import quote, urlencode

from clawker_fw.engine import bounds, client_config, patience
from clawker_fw.errors import EngineError

Answer = Mapping[str, Any]
"""An object in JSON, of which nothing is known but that it is one."""

PREFIX = "unix://"
"""The beginning of the address of a socket of this machine."""

_BAD = 400
"""The first status that says that something is wrong (RFC 9110, section 15.5)."""

_CHUNK = 1 << 16


class AnswerError(Exception):
    """An engine's answer that something is wrong: its status, and its words."""

    def __init__(self, status: int, words: str) -> None:
        """Store both."""
        super().__init__(words or f"status {status}")
        self.status = status
        self.words = words


class _Connection(HTTPConnection):
    """A connection to a socket of this machine."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(self.timeout)
            made.connect(self._path)
        except BaseException:
            made.close()
            raise
        self.sock = made

    @property
    def kept(self) -> bool:
        """Whether it is open, and nothing has come over it that nobody has asked for: an engine may close it."""
        return self.sock is not None and not _readable(self.sock, 0)


class _LastConnection(_Connection):
    """A connection whose answer ends with it (HTTP/1.0), so that nobody cuts it into chunks or joins them."""

    _http_vsn = 10
    _http_vsn_str = "HTTP/1.0"


class _Request(NamedTuple):
    """A request, and for how many seconds nothing need arrive, or None without a limit.

    `large` says that the answer may have megabytes.
    """

    method: str
    target: str
    content: bytes | None
    headers: Mapping[str, str]
    seconds: float | None
    large: bool


class LocalClient:
    """See `asking.Asks`. It may be used from several threads."""

    def __init__(self, address: str, version: str, patient: patience.Patience | None = None) -> None:
        """Prepare for the engine at an address `unix://PATH`. No request is sent yet."""
        self._patience = patient or patience.usual()
        self._path = "/" + address.removeprefix(PREFIX).lstrip("/")
        self._version = version
        self._headers = _configured_headers()
        self._silence = patience.Silence(address, self._patience)
        self._idle: list[_Connection] = []

    def in_version(self, version: str) -> Self:
        """See `Asks`."""
        self._version = version
        return self

    def close(self) -> None:
        """See `Asks`."""
        while self._idle:
            self._idle.pop().close()

    def version(self, *, api_version: bool = True) -> Answer:
        """See `Asks`."""
        return self._asked("/version", versioned=api_version)

    def info(self) -> Answer:
        """See `Asks`."""
        return self._asked("/info")

    def networks(self) -> Sequence[Answer]:
        """See `Asks`."""
        return self._listed("/networks")

    def containers(self, *, all: bool) -> Sequence[Answer]:  # noqa: A002 - the SDK's word
        """See `Asks`."""
        return self._listed("/containers/json", {"all": int(all)})

    def inspect_container(self, container: str) -> Answer:
        """See `Asks`."""
        return self._asked(f"/containers/{_quoted(container)}/json")

    def images(self, *, filters: Mapping[str, Sequence[str]]) -> Sequence[Answer]:
        """See `Asks`."""
        return self._listed("/images/json", _query(filters))

    def inspect_image(self, image: str) -> Answer:
        """See `Asks`."""
        return self._asked(f"/images/{_quoted(image)}/json")

    def volumes(self, filters: dict[str, Any] | None = None) -> Answer:
        """See `Asks`."""
        return self._asked("/volumes", _query(filters or {}))

    def nodes(self, filters: Mapping[str, Any] | None = None) -> Sequence[Answer]:
        """See `Asks`."""
        return self._listed("/nodes", _query(filters or {}))

    def services(self, filters: Mapping[str, Any] | None = None) -> Sequence[Answer]:
        """See `Asks`."""
        return self._listed("/services", _query(filters or {}))

    def tasks(self, filters: Mapping[str, Any] | None = None) -> Sequence[Answer]:
        """See `Asks`."""
        return self._listed("/tasks", _query(filters or {}))

    def get_archive(self, container: str, path: str, chunk_size: int | None = None) -> tuple[Iterator[bytes], Any]:
        """See `Asks`."""
        stream = self._archive(f"/containers/{_quoted(container)}/archive", path, chunk_size or _CHUNK)
        head = next(stream)  # now it has begun, and gives the connection back however it ends
        return stream, json.loads(b64decode(head)) if head else None

    def _archive(self, path: str, wanted: str, size: int) -> Iterator[bytes]:
        """Yield what is said of an archive, then its content. Who reads it sees whether its end is missing."""
        with self._opened("GET", path, {"path": wanted}, large=True) as response:
            yield (response.headers.get("X-Docker-Container-Path-Stat") or "").encode()
            yield from iter(partial(_read, response, size), b"")

    def exec_create(self, container: str, cmd: list[str], *, stdin: bool = False) -> Answer:
        """See `Asks`."""
        body = {"AttachStdin": stdin, "AttachStdout": True, "AttachStderr": True, "Cmd": cmd}
        with self._opened("POST", f"/containers/{_quoted(container)}/exec", body=body) as response:
            return _object(_json(response))

    @contextmanager
    def exec_output(self, identity: str, silence: float | None) -> Iterator[Callable[[int], bytes]]:
        """See `Asks`."""
        body = {"Tty": False, "Detach": False}
        with self._opened("POST", f"/exec/{_quoted(identity)}/start", body=body, seconds=silence) as response:
            yield partial(_read, response)

    def exec_inspect(self, exec_id: str) -> Answer:
        """See `Asks`."""
        return self._asked(f"/exec/{_quoted(exec_id)}/json")

    def _asked(self, path: str, query: Mapping[str, object] | None = None, *, versioned: bool = True) -> Answer:
        with self._opened("GET", path, query, versioned=versioned) as response:
            return _object(_json(response))

    def _listed(self, path: str, query: Mapping[str, object] | None = None) -> Sequence[Answer]:
        with self._opened("GET", path, query) as response:
            found = _json(response)
        if not isinstance(found, list):
            raise _not_an_engine()
        return [_object(each) for each in found]

    @contextmanager
    def _opened(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        *,
        body: Mapping[str, object] | None = None,
        seconds: float | None = -1,
        versioned: bool = True,
        large: bool = False,
    ) -> Iterator[HTTPResponse]:
        """Send a request, and yield its response, of which only the head has been read.

        `seconds` is for how long nothing need arrive, or None without a limit. A negative one is the usual time.

        Raises:
            AnswerError: when the engine answers with an error.
            TimeoutError: when it is silent for longer.
            OSError, HTTPException: when the connection breaks.
        """
        limit = self._patience.call if seconds is not None and seconds < 0 else seconds
        target = (f"/v{self._version}" if versioned else "") + path + (f"?{urlencode(query)}" if query else "")
        content = None if body is None else json.dumps(body).encode()
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        connection, response = self._answered(_Request(method, target, content, headers, limit, large))
        try:
            with response:
                _require_good(response)
                yield response
                reusable = method == "GET" and not large and response.isclosed() and connection.sock is not None
        except BaseException:
            connection.close()
            raise
        if reusable:
            self._idle.append(connection)
        else:
            connection.close()

    def _answered(self, request: _Request) -> tuple[_Connection, HTTPResponse]:
        """Send a request, and return its connection and its response, of which only the head has been read.

        An engine may close an idle connection at the very moment that it is used again. So only what may be sent
        twice goes over one, and is then sent once more (RFC 9112, section 9.3.1). A connection is kept for such
        requests alone, so that there are never more than there were requests at the same time.
        """
        while request.method == "GET" and not request.large and (idle := self._idle_connection()):
            with suppress(ConnectionError):
                return idle, self._answer(idle, request)
        fresh = (_LastConnection if request.large else _Connection)(self._path, self._patience.call)
        return fresh, self._answer(fresh, request)

    def _answer(self, connection: _Connection, request: _Request) -> HTTPResponse:
        try:
            connection.request(request.method, request.target, request.content, request.headers)
            connection.sock.settimeout(request.seconds)
            if request.method == "GET":
                self._wait(connection.sock, self._patience.call)
            return connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _idle_connection(self) -> _Connection | None:
        """Return an idle connection that is still open, if there is one."""
        with suppress(IndexError):
            while True:
                idle = self._idle.pop()
                if idle.kept:
                    return idle
                idle.close()
        return None

    def _wait(self, connection: socket.socket, seconds: float) -> None:
        """Wait until an answer begins.

        Raises:
            TimeoutError: when that takes too long.
        """
        end = time.monotonic() + seconds
        if not _readable(connection, min(self._silence.after or seconds, seconds)):
            self._silence.warn()
            if not _readable(connection, max(0.0, end - time.monotonic())):
                raise TimeoutError("timed out")
        self._silence.answered()


def _require_good(response: HTTPResponse) -> None:
    if response.status >= _BAD:
        raise AnswerError(response.status, _words(response.read(bounds.COMPLAINT)))


def _readable(connection: socket.socket, seconds: float) -> bool:
    """Whether something arrives within some seconds, the end included."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _configured_headers() -> dict[str, str]:
    """Return the headers that the docker CLI is configured to send. If it can't be read, there are none."""
    with suppress(EngineError):
        configured = client_config.main_file(os.environ).get("HttpHeaders")
        return {str(name): str(text) for name, text in configured.items()} if isinstance(configured, dict) else {}
    return {}


def _quoted(word: str) -> str:
    """Return an id or a name as it is in a path. No word of one begins another path."""
    return quote(word, safe="/:")


def _query(filters: Mapping[str, Any]) -> dict[str, object]:
    """Return the query for filters, whose values the engine wants as lists of words."""
    if not filters:
        return {}
    words = {name: [json.dumps(value)] if isinstance(value, bool) else value for name, value in filters.items()}
    return {"filters": json.dumps(words)}


def _read(response: HTTPResponse, size: int) -> bytes:
    """Return the next octets of a response: as many as asked for, or fewer at its end."""
    try:
        return response.read(size)
    except HTTPException as error:
        raise ConnectionError(str(error)) from error


def _json(response: HTTPResponse) -> object:
    content = response.read(bounds.ANSWER + 1)
    if len(content) > bounds.ANSWER:
        raise bounds.too_long("an answer", bounds.ANSWER)
    with suppress(ValueError):
        found: object = json.loads(content)
        return found
    raise _not_an_engine()


def _object(found: object) -> Answer:
    """Return an object of JSON.

    Raises:
        ConnectionError: when it is something else.
    """
    if not isinstance(found, dict):
        raise _not_an_engine()
    return found


def _not_an_engine() -> ConnectionError:
    return ConnectionError("It does not answer as an engine does")


def _words(content: bytes) -> str:
    """Return the words of an error, which an engine puts into JSON."""
    try:
        return str(json.loads(content)["message"])
    except (ValueError, LookupError, TypeError):
        return content.decode(errors="replace").strip()
