"""Streams of an engine that may stall or break: the progress of a pull, and events."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import requests
from docker import errors

from clawker_fw.engine.inspection import (
    event_view,
)
from clawker_fw.model import (
    Event,
)

STALLED_SECONDS = 120
"""How long a pull may last without progress. A slow registry is waited for, a silent one is not."""


_SILENCE_SECONDS = 0.2


def lines_or_silence(read: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """Yield the lines of a stream, and an empty line after each moment of silence.

    A daemon thread reads the stream, because reading blocks for as long as the registry is silent. A caller that
    stops early leaves the thread behind; it ends with the process, which also ends the engine's pull.
    """
    lines: queue.Queue[Any] = queue.Queue()
    end = object()

    def forward() -> None:
        try:
            for line in read():
                lines.put(line)
            lines.put(end)
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            lines.put(error)

    threading.Thread(target=forward, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=_SILENCE_SECONDS)
        except queue.Empty:
            line = {}
        if line is end:
            return
        if isinstance(line, Exception):
            raise line
        yield line


def text_lines(stream: Iterator[bytes]) -> Iterator[str]:
    """Yield the lines of a stream of bytes until it ends or breaks."""
    rest = b""
    with suppress(errors.DockerException, requests.RequestException, OSError):
        for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def events_of(stream: Iterator[Mapping[str, Any]]) -> Iterator[Event]:
    """Yield events until the stream ends or breaks."""
    with suppress(errors.DockerException, requests.RequestException, OSError):
        for raw in stream:
            yield event_view(raw)
