"""Reads an engine's answers as they arrive: logs, output of programs, progress of a pull, events."""

import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from clawker_fw.engine import bounds
from clawker_fw.engine.failures import FAILURES
from clawker_fw.engine.translate import event_view
from clawker_fw.model.engines import Event

_BYTES_AT_ONCE = 1 << 18


def read(response: requests.Response, size: int) -> bytes:
    """Return the next bytes of a response: `size` of them, or fewer at its end.

    Raises:
        TimeoutError: when the engine stays silent for too long.
        ConnectionError: when the connection breaks.
    """
    with _os_errors():
        return bytes(response.raw.read(size))


def contents(response: requests.Response) -> Iterator[bytes]:
    """Yield the content of a response as it arrives.

    Raises:
        TimeoutError: when the engine stays silent for too long.
        ConnectionError: when the connection breaks, or ends before the content does.
    """
    with _os_errors():
        yield from response.raw.stream(_BYTES_AT_ONCE)


@contextmanager
def _os_errors() -> Iterator[None]:
    try:
        yield
    except ReadTimeoutError as error:
        raise TimeoutError(str(error)) from error
    except HTTPError as error:
        raise ConnectionError(str(error)) from error


def json_lines(pieces: Iterable[bytes | str]) -> Iterator[Any]:
    """Yield the JSON of each line of a stream. Raise ConnectionError if a line is too long or not JSON."""
    rest = b""
    for piece in itertools.chain(pieces, [b"\n"]):
        *lines, rest = (rest + (piece.encode() if isinstance(piece, str) else piece)).split(b"\n")
        if len(rest) > bounds.LINE:
            raise bounds.too_long("a line", bounds.LINE)
        for line in filter(bytes.strip, lines):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConnectionError("It sent a line that is not JSON") from error


def events_of(pieces: Iterable[bytes | str]) -> Iterator[Event]:
    """Yield events until the stream ends or breaks."""
    with suppress(*FAILURES):
        for raw in json_lines(pieces):
            yield event_view(raw)
