"""Runs a Python program and records its calls to an engine.

Usage: `recorded.py OUT -m MODULE|SCRIPT …`. They are recorded where all of Python's HTTP clients meet, in
`http.client`.
"""

import json
import re
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

_IDENTITY = re.compile(r"[0-9a-f]{64}")


@dataclass
class Call:
    """A call: what was sent."""

    sent: bytes = b""

    @property
    def words(self) -> str:
        """The call without what differs between runs: API versions, ids, the order of names."""
        head, _, body = self.sent.partition(b"\r\n\r\n")
        method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
        parts = urlsplit(target)
        path = re.sub(r"^/v[\d.]+", "", parts.path)
        query = sorted(unquote(word).replace("+", " ") for word in parts.query.split("&"))
        return _IDENTITY.sub("ID", f"{method} {path}?{'&'.join(query)} {body.decode()}").strip()


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """Record each call that this process makes over HTTP."""
    calls: list[Call] = []
    latest: dict[HTTPConnection, Call] = {}
    put, send = HTTPConnection.putrequest, HTTPConnection.send

    def putting(connection: HTTPConnection, method: str, url: str, **skipped: bool) -> None:
        calls.append(Call())
        latest[connection] = calls[-1]
        put(connection, method, url, **skipped)

    def sending(connection: HTTPConnection, data: bytes) -> None:
        latest[connection].sent += data
        send(connection, data)

    with patch.object(HTTPConnection, "putrequest", putting), patch.object(HTTPConnection, "send", sending):
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
            out.write_text(json.dumps([call.words for call in calls]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
