"""Envoy's bootstrap: `templates/bootstrap.yaml.j2`, parsed as Envoy parses it."""

from typing import cast

from clawker_fw.rendering import parsed
from clawker_fw.rules.paths import LARGEST_PROGRAM
from clawker_fw.stack import container
from clawker_fw.stack.envoy import bounds, http, lookups, signing
from clawker_fw.stack.envoy.messages import REPEATABLE, SENT_AGAIN, Json
from clawker_fw.stack.resources import WATCHED

TEMPLATE = "bootstrap.yaml.j2"


def bootstrap(**values: object) -> Json:
    """Return the bootstrap. Parsing it here finds quoting errors in the template before Envoy starts.

    `values` are those of the template that differ between stacks. `guarded` and `exempt` are the source addresses
    of rules without and with `allow_private`. `heap` is in bytes, `connections` counts those of agents,
    `trusted_ca` is the file with the CAs for hosts' certificates. `proxy` is the upstream proxy: its name
    (`looked_up`) or address, its CAs, our source, and its secret's name.
    """
    usual: Json = {
        "bounds": bounds,
        "proxy": None,
        "signer_socket": f"{signing.FOLDER}/{signing.SOCKET}",
        "page_socket": http.PAGE_SOCKET,
        "forwarder": lookups.FORWARDER,
        "again": SENT_AGAIN,
        "repeatable": "|".join(REPEATABLE),
        "largest_program": LARGEST_PROGRAM,
        "hot": f"{container.VOLUME}/{container.HOT}",
        "watched": f"{WATCHED}/",
    }
    return cast("Json", parsed(TEMPLATE, **{**usual, **values}))
