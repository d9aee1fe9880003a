"""A small web server for metrics and health: read-only, and reachable from this machine only."""

import json
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from clawker_fw.errors import RefusedError
from clawker_fw.model.differences import Verdict
from clawker_fw.watch.address import ListenAddress
from clawker_fw.watch.decision import Decision

LOG = logging.getLogger("clawker_fw")

_SOCKET_MODE = 0o660

_SILENT_SECONDS = 5.0
"""How long a connection may wait for the next part of a request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The response of a page."""

    content: bytes
    content_type: str
    status: HTTPStatus = HTTPStatus.OK


Pages = Mapping[str, Callable[[], Reply]]


@contextmanager
def served(address: ListenAddress, pages: Pages) -> Iterator[ListenAddress]:
    """Serve pages until the context ends. Yield the address, with the chosen port in place of port 0.

    Raises:
        RefusedError: if listening on the address fails.
    """
    try:
        if address.path is not None:
            _remove_stale(address.path)
        server = _Server(address, pages)
    except OSError as error:
        raise RefusedError(
            "address-refused",
            f"Can't listen on {address}: {error.strerror or error}.",
            hint="Choose another address with --listen.",
        ) from error
    threading.Thread(target=server.serve_forever, name="pages", daemon=True).start()
    try:
        yield address if address.path else ListenAddress(address.host, server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        if address.path is not None:
            address.path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove a socket file without a listener. Any other file stays."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe, suppress(ConnectionRefusedError):
        probe.connect(str(path))
        return
    path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128  # one that finds no room is tried again after a second

    def __init__(self, address: ListenAddress, pages: Pages) -> None:
        where: Any = (address.host, address.port)
        if address.path is not None:
            self.address_family, where = socket.AF_UNIX, str(address.path)
        elif ":" in address.host:
            self.address_family = socket.AF_INET6
        super().__init__(where, type("Handler", (_PageHandler,), {"served": pages}))
        if address.path is not None:
            address.path.chmod(_SOCKET_MODE)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log a failed response at debug level: usually the client has disconnected."""
        del request, client_address
        LOG.debug("page_failed", exc_info=sys.exc_info())


class _PageHandler(BaseHTTPRequestHandler):
    timeout = _SILENT_SECONDS
    served: Pages

    def do_GET(self) -> None:
        page = self.served.get(self.path.partition("?")[0])
        reply = page() if page else Reply(b"not found\n", "text/plain", HTTPStatus.NOT_FOUND)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.content)))
        self.end_headers()
        self.wfile.write(reply.content)

    def log_message(self, *_: object) -> None:
        """Log nothing: records are for decisions, not requests."""


class WatcherHealth:
    """The health page: whether the last comparisons found every stack current, at most `fresh_seconds` ago."""

    def __init__(self, fresh_seconds: float, clock: Callable[[], float]) -> None:
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._last: dict[str, tuple[float, Decision] | None] = {}
        """By group, "" for the stack above the groups: the time and the decision, or None before the first."""

    def watched(self, group: str) -> None:
        """Add a group's stack, which counts as unhealthy until its first comparison."""
        self._last.setdefault(group, None)

    def forget(self, group: str) -> None:
        """Remove a group's stack, which is no longer watched."""
        self._last.pop(group, None)

    def report(self, group: str, decision: Decision) -> None:
        """Record a decision about a group's stack."""
        self._last[group] = (self._clock(), decision)

    def answer(self, *, agents: bool = True) -> Reply:
        """Return whether all stacks are known to be current. Without `agents`, those that bypass are ignored."""
        stacks = [(group, self._state(last, agents=agents)) for group, last in sorted(dict(self._last).items())]
        none = self._state(None, agents=agents)
        worst = min((state for _, state in stacks), key=lambda state: state["healthy"], default=none)
        document = dict(worst)
        if len(stacks) > 1:
            document["stacks"] = [{"group": group or None, **state} for group, state in stacks]
        status = HTTPStatus.OK if worst["healthy"] else HTTPStatus.SERVICE_UNAVAILABLE
        return Reply(json.dumps(document).encode() + b"\n", "application/json", status)

    def _state(self, last: tuple[float, Decision] | None, *, agents: bool) -> Mapping[str, Any]:
        moment, decision = last or (float("-inf"), None)
        verdict = decision and (decision.verdict if agents else decision.verdict_of_siblings)
        age = self._clock() - moment
        return {
            "healthy": verdict is Verdict.CURRENT and age <= self._fresh_seconds,
            "verdict": verdict.value if verdict else None,
            "code": decision.error.code if decision and decision.error else None,
            "age_seconds": round(age, 1) if last else None,
        }
