"""Envoy's bootstrap: `templates/bootstrap.yaml.j2`, parsed as Envoy parses it."""

from dataclasses import asdict, dataclass
from typing import cast

from clawker_fw.rendering import parsed
from clawker_fw.rules.paths import LARGEST_PROGRAM
from clawker_fw.stack import container
from clawker_fw.stack.envoy import bounds, http, lookups, signing
from clawker_fw.stack.envoy.messages import REPEATABLE, SENT_AGAIN, Json
from clawker_fw.stack.resources import WATCHED

TEMPLATE = "bootstrap.yaml.j2"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyValues:
    """The upstream proxy: its name (`looked_up`) or address, its CAs, our source, and its secret's name."""

    address: str
    port: int
    looked_up: bool
    tls: bool
    trusted_ca: str
    source: str
    secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapValues:
    """The values of the template.

    `guarded` and `exempt` are the source addresses of rules without and with `allow_private`. `heap` is in bytes,
    `connections` counts those of agents, `trusted_ca` is the file with the CAs for hosts' certificates.
    """

    project: str
    guarded: str
    exempt: str
    heap: int
    connections: int
    trusted_ca: str
    admin_socket: str
    proxy: ProxyValues | None = None
    signer_socket: str = f"{signing.FOLDER}/{signing.SOCKET}"
    page_socket: str = http.PAGE_SOCKET
    forwarder: str = lookups.FORWARDER
    again: str = SENT_AGAIN
    repeatable: str = "|".join(REPEATABLE)
    largest_program: int = LARGEST_PROGRAM
    hot: str = f"{container.VOLUME}/{container.HOT}"
    watched: str = f"{WATCHED}/"


def bootstrap(values: BootstrapValues) -> Json:
    """Return the bootstrap. Parsing it here finds quoting errors in the template before Envoy starts."""
    return cast("Json", parsed(TEMPLATE, bounds=bounds, **asdict(values)))
