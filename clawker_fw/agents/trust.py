"""What agents are given so that they trust a stack's certificates: a volume whose content never changes. Pure.

A volume's name ends with a digest of its content, and its label names the roots in it. So which roots an agent
trusts is in the engine's record of its container.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from clawker_fw.certificates import trust
from clawker_fw.certificates.credentials import NO_AUTHORITIES, Authorities
from clawker_fw.certificates.validity import fingerprints
from clawker_fw.model import Files, Mount, Observed, Sibling, VolumeView
from clawker_fw.stack import labels
from clawker_fw.stack.container import trust_name
from clawker_fw.stack.envoy import signing
from clawker_fw.stack.files import public

TARGET = "/etc/clawker-fw/trust"
"""Where the volume is mounted in an agent."""

_ALL = (
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NPM_CONFIG_CAFILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
)
"""Variables that name all authorities. `SSL_CERT_FILE` is that of OpenSSL, and of much else."""

_ADDED = ("DENO_CERT", "NODE_EXTRA_CA_CERTS")
"""Variables that name further authorities."""

_JAVA, _WGET, _APT = "JAVA_TOOL_OPTIONS", "SYSTEM_WGETRC", "APT_CONFIG"

PLACES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat 6
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine without `ca-certificates`
)
"""Where systems have their list of authorities (Go has them in `crypto/x509/root_linux.go`)."""

_MOST_NAMED = 5

_SHOWN = 16
"""How many digits of a fingerprint or digest are in a label or a name."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a container trusts by itself: all authorities, the added ones among them (PEM), and Java's options."""

    authorities: bytes
    added: bytes = b""
    java_options: str = ""


@dataclass(frozen=True, slots=True)
class Trust:
    """What an agent gets: the volume's name, label and files, and the variables by which programs find these."""

    volume: str
    roots: str
    files: Files = field(repr=False)
    environment: Mapping[str, str]


def trust_for(project: str, roots: bytes, known: Known, target: str = TARGET) -> Trust:
    """Return what an agent needs to trust these roots (PEM), beside what it trusts by itself."""
    made = trust.files(roots, known.authorities, known.added, target)
    digest = hashlib.sha256(b"".join(made[name] for name in sorted(made))).hexdigest()
    java = f"-Djavax.net.ssl.trustStore={target}/{trust.JAVA}"
    environment = {
        **dict.fromkeys(_ALL, f"{target}/{trust.ALL}"),
        **dict.fromkeys(_ADDED, f"{target}/{trust.ADDED}"),
        _JAVA: " ".join(filter(None, (known.java_options, java))),
        _WGET: f"{target}/{trust.WGET}",
        _APT: f"{target}/{trust.APT}",
    }
    return Trust(
        f"{trust_name(project)}{digest[:_SHOWN]}",
        label(roots),
        {name: public(content) for name, content in made.items()},
        MappingProxyType(dict(sorted(environment.items()))),
    )


def label(roots: bytes) -> str:
    """Return the label of a volume with these roots (PEM, the newest first)."""
    return " ".join(each[:_SHOWN] for each in fingerprints(roots))


def files_named_by(environment: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Return what a container's variables say: files with all authorities, with added ones, and Java's options."""
    named, added = ({environment[name] for name in names if environment.get(name)} for names in (_ALL, _ADDED))
    return tuple(sorted(named)), tuple(sorted(added)), environment.get(_JAVA, "")


def authorities_of(observed: Observed) -> Authorities:
    """Return the roots and intermediates that a stack's Envoy has."""
    envoy = observed.siblings.get(Sibling.ENVOY)
    return signing.running(envoy.files) if envoy else NO_AUTHORITIES


def roots_of(observed: Observed) -> bytes:
    """Return the roots (PEM, the newest first) under which a stack inspects connections, if it does."""
    has = authorities_of(observed)
    return has.trust if has.intermediates else b""


def is_trust(volume: VolumeView) -> bool:
    """Whether a volume has what agents of some project trust."""
    project = labels.project_of(volume.labels)
    plain = (volume.driver, volume.options) == ("local", {})
    return (
        bool(project) and plain and labels.TRUST in volume.labels and volume.name.startswith(trust_name(project))
    )


def without(root: str, observed: Observed) -> tuple[str, ...]:
    """Return the names of the agents that have not been given a root, by its fingerprint, sorted."""
    given = {name for name, each in observed.volumes.items() if is_trust(each) and _has(each, root)}
    agents = (each for each in observed.agents if not each.project)
    return tuple(sorted(each.name for each in agents if given.isdisjoint(each.volumes.values())))


def named(agents: Sequence[str]) -> str:
    """Return the first names as a person reads them, and how many there are besides."""
    more = len(agents) - _MOST_NAMED
    return ", ".join(agents[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _has(volume: VolumeView, root: str) -> bool:
    return root[:_SHOWN] in volume.labels[labels.TRUST].split()


def writable(mounts: Iterable[Mount], volumes: Mapping[str, VolumeView]) -> tuple[str, ...]:
    """Return the places of mounts by which a container can change what agents trust."""
    return tuple(
        each.target
        for each in mounts
        if each.kind == "volume"
        and not each.read_only
        and each.source in volumes
        and is_trust(volumes[each.source])
    )
