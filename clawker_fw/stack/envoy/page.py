"""The page on which an agent reads what was refused to it: http://clawker.internal/, for everybody the same name.

Envoy only leads there, and says whose request it is. The recorder beside it answers (go/internal/page).
"""

from collections.abc import Iterable

from clawker_fw.rules.own_page import PAGE
from clawker_fw.stack.envoy import bounds
from clawker_fw.stack.envoy.messages import Json, endpoint

ROUTE = CLUSTER = "page"

SOCKET = "/tmp/page.sock"  # noqa: S108 - inside the container; a socket, because no agent can reach one

_AGENT_HEADER = "x-clawker-fw-agent"
"""Says whose request it is, in place of whatever the agent has sent under this name."""

_SECONDS = 5
"""For how long a request may wait, and its answer take."""


def cluster() -> Json:
    """Return the cluster of the bootstrap that leads to the recorder.

    Its connections have no bound, because all agents would share it. The recorder ends each with its answer, and
    answers an agent only so often.
    """
    return {
        "name": CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": bounds.BUFFER,
        **endpoint(CLUSTER, {"pipe": {"path": SOCKET}}),
        "circuit_breakers": bounds.unbounded(),
    }


def route(matched: Json) -> Json:
    """Return the route of the page for what is matched."""
    agent = {"key": _AGENT_HEADER, "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"}
    return {
        "name": ROUTE,
        "match": matched,
        "route": {"cluster": CLUSTER, "timeout": f"{_SECONDS}s"},
        "request_headers_to_add": [{"header": agent, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }


def virtual_host(matched: Json, others: Iterable[Json]) -> Json:
    """Return the virtual host of the page, with the routes of what is refused under its name."""
    return {"name": ROUTE, "domains": [PAGE], "routes": [route(matched), *others]}
