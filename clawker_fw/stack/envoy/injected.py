"""Secrets that Envoy puts into requests, so that agents have none.

The header is added in the cluster, after everything that reads an agent's request, and in no log at any level. A
secret is named by a route and comes from the signer (`secret:ID`, over ADS). Without it, Envoy refuses a request.
"""

from clawker_fw.rules.paths import Injection
from clawker_fw.stack.envoy.messages import TYPES, Json, extension

PREFIX = "secret:"
"""The names of secrets begin with it, for Envoy and the signer. No server name has a colon."""

FILTER = "inject"
METADATA = "fw.secret"
"""What a route has that injects: the name of the secret, under `name`."""

MISSING = "failed_to_inject_credential"
"""What Envoy says of a request for which there is no secret (`%RESPONSE_CODE_DETAILS%`)."""

_WAIT = "0.050s"
"""How long a table of routes waits for a secret. Without a bound, one would hold back every change of a rule."""


def cluster_filters() -> list[Json]:
    """Return the filters of a cluster. Without them, a route's secret is left out, and nothing tells of it."""
    return [
        extension("filters.http.composite.v3.Composite", FILTER),
        extension("filters.http.upstream_codec.v3.UpstreamCodec"),
    ]


def of_route(injection: Injection, header: str) -> Json:
    """Return the fields of a route that puts a secret into what it forwards."""
    credential = {
        "name": f"{PREFIX}{injection.secret}#{injection.form_in(header)}",
        "sds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": _WAIT},
    }
    kind = "http.injected_credentials.generic.v3.Generic"
    generic = extension(kind, "generic", header=header, credential=credential)
    injector = extension(
        "filters.http.credential_injector.v3.CredentialInjector", "credential", overwrite=True, credential=generic
    )
    chain = {"typed_config": [injector]}
    action = extension("filters.http.composite.v3.ExecuteFilterAction", FILTER, filter_chain=chain)
    per_route = {
        "@type": f"{TYPES}.extensions.filters.http.composite.v3.CompositePerRoute",
        "matcher": {"on_no_match": {"action": action}},
    }
    return {
        "metadata": {"filter_metadata": {METADATA: {"name": injection.secret}}},
        "typed_per_filter_config": {FILTER: per_route},
        # The router removes the agent's own before the cluster adds the other one.
        "request_headers_to_remove": [header],
    }
