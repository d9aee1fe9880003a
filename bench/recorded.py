"""Runs a Python program and records its calls to an engine, with the seconds of each.

Usage: `recorded.py OUT -m MODULE|SCRIPT …`. A call ends when its response has been read. They are recorded where
all of Python's HTTP clients meet, in `http.client`.
"""

import json
import re
import runpy
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

_IDENTITY = re.compile(r"[0-9a-f]{64}")
_NOT_SAID = {"limit=-1", "size=0", "trunc_cmd=0", "only_ids=0", "all=0", "filters={}"}
"""What the Docker SDK sends along that means the same as nothing."""


@dataclass
class Call:
    """A call: what was sent, when that began, and how long it took until all of the answer was read."""

    sent: bytes
    began: float
    seconds: float = 0.0

    @property
    def words(self) -> str:
        """The call without what differs between runs and clients: API versions, ids, the order of names."""
        head, _, body = self.sent.partition(b"\r\n\r\n")
        method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
        parts = urlsplit(target)
        path = re.sub(r"^/v[\d.]+", "", parts.path)
        said = {unquote(word).replace("+", " ") for word in parts.query.split("&")} - _NOT_SAID
        return _IDENTITY.sub("ID", f"{method} {path}?{'&'.join(sorted(said))} {_meant(body)}").strip()


def _meant(body: bytes) -> str:
    """Return the fields of a JSON body that say anything. The container is in the path as well."""
    if not body:
        return ""
    return json.dumps({name: value for name, value in json.loads(body).items() if value and name != "Container"})


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """Record each call that this process makes over HTTP."""
    calls: list[Call] = []
    latest: dict[HTTPConnection, Call] = {}
    answered: dict[HTTPResponse, Call] = {}
    put, send, respond = HTTPConnection.putrequest, HTTPConnection.send, HTTPConnection.getresponse
    close = HTTPResponse.close

    def putting(connection: HTTPConnection, method: str, url: str, **skipped: bool) -> None:
        calls.append(Call(b"", time.perf_counter()))
        latest[connection] = calls[-1]
        put(connection, method, url, **skipped)

    def sending(connection: HTTPConnection, data: bytes) -> None:
        latest[connection].sent += data
        send(connection, data)

    def responding(connection: HTTPConnection) -> HTTPResponse:
        response = respond(connection)
        call = latest[connection]
        answered[getattr(response, "_fp", response)] = call  # urllib3 wraps its own
        call.seconds = time.perf_counter() - call.began
        return response

    def closing(response: HTTPResponse) -> None:
        close(response)
        if call := answered.pop(response, None):
            call.seconds = time.perf_counter() - call.began

    with (
        patch.object(HTTPConnection, "putrequest", putting),
        patch.object(HTTPConnection, "send", sending),
        patch.object(HTTPConnection, "getresponse", responding),
        patch.object(HTTPResponse, "close", closing),
    ):
        yield calls


def main(out: Path, arguments: list[str]) -> None:
    """Run the program with these arguments and record its calls."""
    with recorded() as calls:
        try:
            if arguments[0] == "-m":
                sys.argv = arguments[1:]
                runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
            else:
                sys.argv = arguments
                runpy.run_path(arguments[0], run_name="__main__")
        finally:
            found = {"calls": [each.words for each in calls], "seconds": [each.seconds for each in calls]}
            out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
