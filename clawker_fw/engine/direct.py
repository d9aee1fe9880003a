"""Requests whose answers are read as they arrive, faster or more completely than the Docker SDK reads them.

Everything here is the public interface of `requests` and `urllib3`, but for one attribute in `_buffer`. Without
it, a log of a million lines takes longer to read than the engine takes to send it. A library that has changed it
costs time and breaks nothing; a test tells.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from io import BufferedReader
from typing import Any
from urllib.parse import quote

import requests
from docker import APIClient, errors
from urllib3.exceptions import HTTPError, ReadTimeoutError

from clawker_fw.engine import bounds

_END_OF_LINE = b"\r\n"
_LONGEST_HEAD = 1 << 10
_BYTES_AT_ONCE = 1 << 18


def opened(
    client: APIClient,
    method: str,
    path: str,
    silence: float | None,
    **options: Any,  # noqa: ANN401 - those of `requests`
) -> requests.Response:
    """Send a request to an engine, and return its response, of which only the head has been read.

    `silence` is for how many seconds nothing need arrive, or None without a limit. `path` follows the version.

    Raises:
        docker.errors.APIError: when the engine answers with an error.
    """
    url = f"{client.base_url}/v{client.api_version}{quote(path)}"
    response = client.request(method, url, stream=True, timeout=(client.timeout, silence), **options)
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        errors.create_api_error_from_http_exception(error)
    return response


def read(response: requests.Response, size: int) -> bytes:
    """Return the next octets of a response: as many as asked for, or fewer at its end.

    Raises:
        TimeoutError: when the engine is silent for longer than it may be.
        ConnectionError: when the connection breaks.
    """
    with _plain():
        return bytes(response.raw.read(size))


def contents(response: requests.Response) -> Iterator[bytes]:
    """Yield the content of a response, whatever has arrived at once.

    Raises:
        TimeoutError: when the engine is silent for longer than it may be.
        ConnectionError: when the connection breaks, or ends before the content does.
    """
    buffer = _buffer(response)
    with _plain():
        if buffer is None:
            yield from response.raw.stream(_BYTES_AT_ONCE)
        elif buffer.chunked:
            yield from _chunks(buffer.read)
        else:
            yield from iter(buffer.read, b"")


@contextmanager
def _plain() -> Iterator[None]:
    """Translate the exceptions of urllib3 into those of a socket."""
    try:
        yield
    except ReadTimeoutError as error:
        raise TimeoutError(str(error)) from error
    except HTTPError as error:
        raise ConnectionError(str(error)) from error


class _Buffer:
    """What a response has received, as it came over the connection."""

    def __init__(self, reader: BufferedReader, *, chunked: bool) -> None:
        self._reader = reader
        self.chunked = chunked

    def read(self) -> bytes:
        return self._reader.read1(_BYTES_AT_ONCE)


def _buffer(response: requests.Response) -> _Buffer | None:
    """Return the buffer below a response, or None if this version of urllib3 hides it elsewhere."""
    below = getattr(response.raw, "_fp", None)
    reader = getattr(below, "fp", None)
    if isinstance(below, HTTPResponse) and isinstance(reader, BufferedReader):
        return _Buffer(reader, chunked=bool(below.chunked))
    return None


def _chunks(arrived: Callable[[], bytes]) -> Iterator[bytes]:
    """Yield what is in the chunks of a body (RFC 9112, section 7.1), joined as they arrive."""
    rest = b""
    while content := arrived():
        rest += content
        parts: list[bytes] = []
        at = 0
        while (head := rest.find(_END_OF_LINE, at)) >= 0:
            size = _size(rest[at:head])
            begin = head + 2
            end = begin + size
            if size > bounds.PIECE:
                raise bounds.too_long("a chunk", bounds.PIECE)
            if end + 2 > len(rest):
                break
            if size == 0:
                yield b"".join(parts)
                return
            parts.append(rest[begin:end])
            at = end + 2
        rest = rest[at:]
        if len(rest) > bounds.PIECE + _LONGEST_HEAD:
            raise bounds.too_long("a chunk", bounds.PIECE)
        yield b"".join(parts)
    raise ConnectionError("the connection ended within the log")


def _size(head: bytes) -> int:
    """Return the size in the head of a chunk."""
    try:
        return int(head, 16)
    except ValueError as error:
        raise ConnectionError(f"the engine sent {head!r} where a chunk begins") from error
