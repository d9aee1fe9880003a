"""Runs a Python program and records its calls to an engine, with the seconds of each.

Usage: `recorded.py OUT -m MODULE|SCRIPT …`. A call ends when its response has been read.
"""

import json
import re
import runpy
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

import requests

_IDENTITY = re.compile(r"[0-9a-f]{64}")


@contextmanager
def recorded() -> Iterator[tuple[list[str], list[float]]]:
    """Record each call that `requests` makes, and its duration in seconds."""
    words: list[str] = []
    seconds: list[float] = []
    ends: dict[requests.Response, Callable[[], None]] = {}
    send, iterate, close = requests.Session.send, requests.Response.iter_content, requests.Response.close

    def recording(
        session: requests.Session,
        request: requests.PreparedRequest,
        **options: Any,  # noqa: ANN401 - passed on
    ) -> requests.Response:
        position, began = len(words), time.perf_counter()
        words.append(_words(request))
        seconds.append(0.0)

        def end() -> None:
            seconds[position] = time.perf_counter() - began

        response = send(session, request, **options)
        end()
        ends[response] = end
        return response

    def reading(response: requests.Response, *arguments: Any, **options: Any) -> Iterator[Any]:  # noqa: ANN401 - passed on
        yield from iterate(response, *arguments, **options)
        ended(response)

    def ended(response: requests.Response) -> None:
        if end := ends.pop(response, None):
            end()

    def closing(response: requests.Response) -> None:
        close(response)
        ended(response)

    with (
        patch.object(requests.Session, "send", recording),
        patch.object(requests.Response, "iter_content", reading),
        patch.object(requests.Response, "close", closing),
    ):
        yield words, seconds


def main(out: Path, arguments: list[str]) -> None:
    """Run the program with these arguments and record its calls."""
    with recorded() as (words, seconds):
        try:
            if arguments[0] == "-m":
                sys.argv = arguments[1:]
                runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
            else:
                sys.argv = arguments
                runpy.run_path(arguments[0], run_name="__main__")
        finally:
            out.write_text(json.dumps({"calls": words, "seconds": seconds}))


def _words(request: requests.PreparedRequest) -> str:
    """Return a call without what differs between runs: the API version, ids, the order of names."""
    parts = urlsplit(str(request.url))
    path = re.sub(r"^/v[\d.]+", "", parts.path)
    query = "&".join(sorted(unquote(parts.query).split("&")))
    body = request.body.decode() if isinstance(request.body, bytes) else request.body or ""
    return _IDENTITY.sub("ID", f"{request.method} {path}?{query} {body}").strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
