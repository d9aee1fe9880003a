"""Runs a Python program and records its calls to an engine.

Usage: `recorded.py OUT -m MODULE|SCRIPT …`. They are recorded where all of Python's HTTP clients meet, in
`http.client`.
"""

import json
import re
import runpy
import sys
from http.client import HTTPConnection
from pathlib import Path
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

_IDENTITY = re.compile(r"[0-9a-f]{64}")


def words_of(sent: bytes) -> str:
    """Return a call without what differs between runs: API versions, ids, the order of names."""
    head, _, body = sent.partition(b"\r\n\r\n")
    method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
    parts = urlsplit(target)
    path = re.sub(r"^/v[\d.]+", "", parts.path)
    query = sorted(unquote(word).replace("+", " ") for word in parts.query.split("&"))
    return _IDENTITY.sub("ID", f"{method} {path}?{'&'.join(query)} {body.decode()}").strip()


def main(out: Path, arguments: list[str]) -> None:
    calls: list[bytearray] = []
    latest: dict[HTTPConnection, bytearray] = {}
    put, send = HTTPConnection.putrequest, HTTPConnection.send

    def putting(connection: HTTPConnection, method: str, url: str, **skipped: bool) -> None:
        latest[connection] = bytearray()
        calls.append(latest[connection])
        put(connection, method, url, **skipped)

    def sending(connection: HTTPConnection, data: bytes) -> None:
        latest[connection] += data
        send(connection, data)

    with patch.object(HTTPConnection, "putrequest", putting), patch.object(HTTPConnection, "send", sending):
        try:
            if arguments[0] == "-m":
                sys.argv = arguments[1:]
                runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
            else:
                sys.argv = arguments
                runpy.run_path(arguments[0], run_name="__main__")
        finally:
            out.write_text(json.dumps([words_of(bytes(sent)) for sent in calls]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
