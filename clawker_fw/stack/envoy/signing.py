"""Certificates for inspected names, which Envoy gets from the signer beside it (`fwctl sign`).

Envoy requests one when a name is first used, and keeps it until the signer withdraws it. One stream serves all
names (ADS), because 1,000 streams would be too many.
"""

from collections.abc import Iterable

from clawker_fw.certificates.credentials import Authorities, Pair
from clawker_fw.model.files import Files
from clawker_fw.rules.policy import Policy
from clawker_fw.stack import container
from clawker_fw.stack.envoy.messages import Json, extension
from clawker_fw.stack.files import canonical, public, read_record, signers
from clawker_fw.stack.resources import Resource

FOLDER = "/tmp/signer"  # noqa: S108 - inside the container; the supervisor makes it, and only Envoy's group can enter
SOCKET = "ads"
"""The socket for Envoy's requests, in the socket folder."""

RESOURCES = (
    Resource("trusted", "trusted/roots.pem"),
    Resource("intermediates", "signing/intermediates.json", keyed=True, signer=True),
    Resource("names", "inspected/names.json", signer=True),
)
"""The roots that agents have to trust, and the signer's files. Intermediates go into place before names."""

TRUST, INTERMEDIATES, NAMES = (container.HOT + resource.path for resource in RESOURCES)

SIGNED = frozenset(resource.name for resource in RESOURCES if resource.signer)
"""The resources that the signer reads again after a change."""

HANDSHAKE = "4s"
"""How long a handshake may take. For a new name, it waits for the signer."""

GROUPS = ("X25519", "P-256")
"""Key agreement with agents (RFC 8446, section 4.2.7). The hybrid against quantum computers takes a tenth of a
connection, so it is used only with hosts: these connections never leave the Docker host."""


def hot(policy: Policy, authorities: Authorities) -> Files:
    """Return the certificate files for the names that rules inspect."""
    inspected = {rule.destination for rule in policy.rules.rules if rule.paths}
    names, subtrees = (
        [destination.name for destination in inspected if destination.subtree is kind] for kind in (False, True)
    )
    return {TRUST: public(authorities.trust), **files(names, subtrees, authorities.intermediates)}


def covered(policy: Policy) -> frozenset[str]:
    """Return the names that intermediates cover, even for expired rules, so that an expiry changes nothing."""
    every = (*policy.rules.rules, *policy.rules.ended)
    return frozenset(rule.destination.name for rule in every if rule.paths)


def running(files: Files) -> Authorities:
    """Return a stack's CAs from Envoy's files."""
    trust, intermediates = (files[path].content if path in files else b"" for path in (TRUST, INTERMEDIATES))
    return Authorities(trust, tuple(read_intermediates(intermediates)))


def files(names: Iterable[str], subtrees: Iterable[str], intermediates: Iterable[Pair]) -> Files:
    """Return the signer's files. A subtree is written without a leading dot, and includes its own name."""
    return {
        INTERMEDIATES: signers(canonical({"intermediates": [pair.document for pair in intermediates]})),
        NAMES: public(canonical({"names": sorted(names), "subtrees": sorted(subtrees)})),
    }


def read_intermediates(content: bytes) -> list[Pair]:
    """Return the pairs in a signer's file of intermediates, or nothing if it is invalid."""
    try:
        return [Pair.read(pair) for pair in read_record(content)["intermediates"]]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def chain() -> Json:
    """Return a chain's TLS configuration. Envoy makes certificates on demand only without session resumption."""
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
