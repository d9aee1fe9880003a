"""Streams that may end at any time: what an engine says as it goes on, and events."""

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
"""How long a pull may go on with nothing changing: a registry that is slow is waited for, a silent one is not."""


_LISTEN_SECONDS = 0.2


def heard(listen: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """Yield what a stream says, and an empty line whenever it has said nothing for a moment.

    It is listened to in a thread of its own: an engine is silent for as long as its registry is. Whoever does not
    want to hear more leaves the thread behind; it ends with the process, and with it the engine's pull.
    """
    lines: queue.Queue[Any] = queue.Queue()
    end = object()

    def hear() -> None:
        try:
            for line in listen():
                lines.put(line)
            lines.put(end)
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            lines.put(error)

    threading.Thread(target=hear, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=_LISTEN_SECONDS)
        except queue.Empty:
            line = {}
        if line is end:
            return
        if isinstance(line, Exception):
            raise line
        yield line


def told(stream: Iterator[Mapping[str, Any]]) -> Iterator[Event]:
    """Yield events until the stream breaks, however it does."""
    with suppress(errors.DockerException, requests.RequestException, OSError):
        for raw in stream:
            yield event_view(raw)
