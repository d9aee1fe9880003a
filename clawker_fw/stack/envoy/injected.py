"""Secrets that Envoy puts into requests, so that agents have none.

The cluster adds the header after everything that reads an agent's request, and no log shows it. A route names the
secret, and the signer sends it (`secret:ID`, over ADS). Without it, Envoy refuses the request.
"""

from clawker_fw.rules.paths import Injection
from clawker_fw.stack.envoy import messages
from clawker_fw.stack.envoy.messages import TYPES, Json, extension

PREFIX = "secret:"
"""The prefix of secrets' names, for Envoy and the signer. No server name has a colon."""

FILTER, EXPLAINING = "inject", "told"
METADATA = "fw.secret"
"""The metadata of a route that injects: the secret's name, under `name`."""

MISSING = "failed_to_inject_credential"
"""Envoy's response code details (`%RESPONSE_CODE_DETAILS%`) for a request without its secret."""
NOT_ACCEPTED = "secret_not_accepted"
"""The response code details where a host has answered 401 to git, which would then ask for a password."""

_WAIT = "0.050s"
"""How long a table of routes waits for a secret. Without a limit, one would delay every rule change."""


def of_route(injection: Injection, header: str, *, git: bool) -> Json:
    """Return a route's fields that put a secret into requests. git gets an explanation in place of a 401."""
    per_route = filter_of(f"{PREFIX}{injection.secret}#{injection.form_in(header)}", header)
    if git:
        text = f"the host does not accept the secret {injection.secret}"
        page = messages.page(EXPLAINING, messages.STATUS, {"exact": "401"}, NOT_ACCEPTED, text)
        per_route[EXPLAINING] = messages.replacing(page)
    return {
        "metadata": {"filter_metadata": {METADATA: {"name": injection.secret}}},
        "typed_per_filter_config": per_route,
        # The router removes the agent's header before the cluster adds ours.
        "request_headers_to_remove": [header],
    }


def source_of(secret: str) -> Json:
    """Return where Envoy gets a secret with this name from."""
    sds = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": _WAIT}
    return {"name": secret, "sds_config": sds}


def filter_of(secret: str, header: str) -> Json:
    """Return the configuration by which the filter of a cluster puts a secret into a header, for some routes."""
    kind = "http.injected_credentials.generic.v3.Generic"
    generic = extension(kind, "generic", header=header, credential=source_of(secret))
    injector = extension(
        "filters.http.credential_injector.v3.CredentialInjector", "credential", overwrite=True, credential=generic
    )
    chain = {"typed_config": [injector]}
    action = extension("filters.http.composite.v3.ExecuteFilterAction", FILTER, filter_chain=chain)
    kind = f"{TYPES}.extensions.filters.http.composite.v3.CompositePerRoute"
    return {FILTER: {"@type": kind, "matcher": {"on_no_match": {"action": action}}}}
