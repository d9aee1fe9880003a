"""How Envoy gets a certificate for each name that it inspects: from the signer beside it (`fwctl sign`).

Envoy asks for the certificate when a name is first used, and keeps it until the signer takes it back. It asks on
one stream for all names (ADS): with a stream for each, 1,000 names would be too many for it.
"""

import json
from collections.abc import Iterable

from clawker_fw.certificates.credentials import Authorities, Pair
from clawker_fw.model.files import Files
from clawker_fw.rules.policy import Policy
from clawker_fw.stack import container
from clawker_fw.stack.envoy.messages import Json, extension
from clawker_fw.stack.files import public, read_record, signers
from clawker_fw.stack.resources import Resource

FOLDER = "/tmp/signer"  # noqa: S108 - inside the container; the keeper makes it, and only Envoy's group can enter
SOCKET = "ads"
"""The socket in the folder on which Envoy asks."""

RESOURCES = (
    Resource("trusted", "trusted/roots.pem"),
    Resource("intermediates", "signing/intermediates.json", keyed=True, signer=True),
    Resource("names", "inspected/names.json", signer=True),
)
"""The roots that agents have to trust, and what the signer reads. Intermediates go into place before names."""

TRUST, INTERMEDIATES, NAMES = (container.HOT + each.path for each in RESOURCES)

SIGNED = frozenset(each.name for each in RESOURCES if each.signer)
"""The resources that the signer reads, each again when it has changed."""

HANDSHAKE = "4s"
"""How long a handshake may take: one for a new name waits while the signer does not answer."""

GROUPS = ("X25519", "P-256")
"""How keys are agreed on with agents (RFC 8446, section 4.2.7). The hybrid against quantum computers takes
a tenth of a connection, and nothing of this one leaves the engine's machine. With hosts, it is used."""


def hot(policy: Policy, authorities: Authorities) -> Files:
    """Return the files about certificates: for the names that rules inspect, from these authorities."""
    inspected = {rule.destination for rule in policy.rules.rules if rule.paths}
    names, subtrees = ([each.name for each in inspected if each.subtree is kind] for kind in (False, True))
    return {TRUST: public(authorities.trust), **files(names, subtrees, authorities.intermediates)}


def covered(policy: Policy) -> frozenset[str]:
    """Return the names that intermediates have to be for, with all names below them.

    Those of rules that have ended are among them while these are in the settings: what signs is the same before
    and after a rule ends. The signer makes no certificate for such a name.
    """
    every = (*policy.rules.rules, *policy.rules.ended)
    return frozenset(rule.destination.name for rule in every if rule.paths)


def running(files: Files) -> Authorities:
    """Return the authorities that a stack has, from Envoy's files."""
    trust, intermediates = (files[path].content if path in files else b"" for path in (TRUST, INTERMEDIATES))
    return Authorities(trust, tuple(read_intermediates(intermediates)))


def files(names: Iterable[str], subtrees: Iterable[str], intermediates: Iterable[Pair]) -> Files:
    """Return the signer's files. A subtree is named without a dot before it, and includes its own name."""
    return {
        INTERMEDIATES: signers(_encode({"intermediates": [each.document for each in intermediates]})),
        NAMES: public(_encode({"names": sorted(names), "subtrees": sorted(subtrees)})),
    }


def read_intermediates(content: bytes) -> list[Pair]:
    """Return what is in a signer's file of intermediates, or nothing if it is none."""
    try:
        return [Pair.read(each) for each in read_record(content)["intermediates"]]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def chain() -> Json:
    """Return what a filter chain has that ends TLS, with a certificate for the name that the client has sent.

    Sessions can't be resumed: Envoy refuses to make a certificate on demand otherwise.
    """
    tls = "transport_sockets.tls"
    selector = extension(
        f"{tls}.cert_selectors.on_demand_secret.v3.Config",
        "on_demand",
        config_source={"ads": {}, "resource_api_version": "V3"},
        certificate_mapper=extension(
            f"{tls}.cert_mappers.sni.v3.SNI", "sni", default_value="no-server-name.invalid"
        ),
    )
    return {
        "transport_socket": extension(
            "transport_sockets.tls.v3.DownstreamTlsContext",
            disable_stateless_session_resumption=True,
            disable_stateful_session_resumption=True,
            common_tls_context={
                "alpn_protocols": ["h2", "http/1.1"],
                "custom_tls_certificate_selector": selector,
                "tls_params": {"ecdh_curves": list(GROUPS)},
            },
        ),
        "transport_socket_connect_timeout": HANDSHAKE,
    }
