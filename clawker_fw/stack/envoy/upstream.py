"""Connections through the company's HTTP proxy.

TLS, inspected or not, and opaque traffic pass in a tunnel (CONNECT, RFC 9110, section 9.3.6). Plain HTTP is sent
in absolute form (RFC 9112, section 3.2.2), because proxies rarely allow CONNECT to port 80. The proxy
resolves the names. Its hosts have no direct cluster, so agents can't reach them while the proxy is down.
"""

from clawker_fw.rules.paths import Form
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.upstream import Proxy
from clawker_fw.stack.envoy import injected, messages
from clawker_fw.stack.envoy.messages import HOST, PORT, Json, extension

CLUSTER, ABSOLUTE = "proxy", "http-proxied"
"""The cluster of the proxy, and the internal listener's cluster for requests in absolute form."""

ANSWER = "envoy.tcp_proxy.propagate_response_headers"
"""The filter state with the headers of the proxy's answer to CONNECT."""

NO_ANSWER = ", or the upstream proxy did not lead there"
"""A sentence for agents in addition to the one about a host without an answer."""

AUTHORITIES = "boot/proxy.pem"
"""The CAs that may certify the proxy."""

_HEADER = "proxy-authorization"
_REPLACE = "proxy-pages"
_SQUID = "x-squid-error"
PAGE_REASONS = (Reason.PROXY_AUTH, Reason.PROXY_REFUSED, Reason.PROXY_FAILED)
"""The reasons of replaced pages. They are the response code details of the answer."""


def secret_name(proxy: Proxy) -> str:
    """Return the name of the proxy's credentials in Envoy; "" without any."""
    return f"{injected.PREFIX}{proxy.auth}#{Form.PROXY}" if proxy.auth else ""


def forwarding(proxy: Proxy, host: str, fields: Json, *, absolute: bool) -> Json:
    """Return the filter that forwards a connection to a host, or to the host in a format.

    `fields` are further ones of the filter.
    """
    tunnel: Json = {"hostname": f"{host}:%FILTER_STATE({PORT}:PLAIN)%", "propagate_response_headers": True}
    if secret := secret_name(proxy):
        header = {"key": _HEADER, "value": "%SECRET(proxy)%"}
        tunnel["headers_to_add"] = [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
        source = {"proxy": injected.source_of(secret)}
        tunnel["formatters"] = [extension("formatter.generic_secret.v3.GenericSecret", secret_configs=source)]
    kind = "filters.network.tcp_proxy.v3.TcpProxy"
    return extension(kind, cluster=CLUSTER, **fields | ({} if absolute else {"tunneling_config": tunnel}))


def replacing(proxy: Proxy | None) -> list[Json]:
    """Return the filter that replaces the proxy's own pages, which an agent would take for the host's answer."""
    return [extension("filters.http.custom_response.v3.CustomResponse", _REPLACE)] if proxy else []


def _page(kind: str, matched: Json, reason: Reason, **of_input: str) -> Json:
    return messages.page(reason, kind, matched, reason, reason.sentence, **of_input)


_PAGES = messages.replacing(
    _page(messages.STATUS, {"exact": "407"}, Reason.PROXY_AUTH),
    *(
        _page("HttpResponseHeaderMatchInput", {"prefix": beginning}, reason, header_name=_SQUID)
        for beginning, reason in (("ERR_ACCESS", Reason.PROXY_REFUSED), ("ERR_", Reason.PROXY_FAILED))
    ),
)
"""The pages of Squid, and requests for credentials (407), which come only from proxies. Pages of other proxies
look like those of hosts."""


def absolute_form(port: int) -> Json:
    """Return a route's fields that send a request in absolute form. Without `NQ`, the query would be doubled."""
    place = "" if port == Protocol.HTTP.default_port else f":{port}"
    target = f"http://%FILTER_STATE({HOST}:PLAIN)%{place}%PATH(NQ:PATH)%"
    return {"route": {"cluster": ABSOLUTE, "path_rewrite": target}, "typed_per_filter_config": {_REPLACE: _PAGES}}


def for_every_route(proxy: Proxy | None) -> Json:
    """Return the route table's fields for requests in absolute form: the proxy's credentials.

    Envoy requests only secrets that the table contained at its start, so the table always contains this one.
    """
    secret = secret_name(proxy) if proxy else ""
    return injected.filter_of(secret, _HEADER) if secret else {}
