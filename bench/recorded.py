"""Runs a Python program and keeps which calls it makes to an engine: `recorded.py OUT -m MODULE|SCRIPT …`."""

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

import requests

_IDENTITY = re.compile(r"[0-9a-f]{64}")


def main(out: Path, arguments: list[str]) -> None:
    """Run the program with these arguments, recording."""
    calls: list[str] = []
    send = requests.Session.send

    def recording(
        session: requests.Session,
        request: requests.PreparedRequest,
        **options: Any,  # noqa: ANN401 - passed on
    ) -> requests.Response:
        calls.append(_words(request))
        return send(session, request, **options)

    try:
        with patch.object(requests.Session, "send", recording):
            if arguments[0] == "-m":
                sys.argv = arguments[1:]
                runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
            else:
                sys.argv = arguments
                runpy.run_path(arguments[0], run_name="__main__")
    finally:
        out.write_text(json.dumps(calls))


def _words(request: requests.PreparedRequest) -> str:
    """Return a call without what differs from time to time: the API's version, ids, the order of names."""
    parts = urlsplit(str(request.url))
    path = re.sub(r"^/v[\d.]+", "", parts.path)
    query = "&".join(sorted(unquote(parts.query).split("&")))
    body = request.body.decode() if isinstance(request.body, bytes) else request.body or ""
    return _IDENTITY.sub("ID", f"{request.method} {path}?{query} {body}").strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
