"""The volume with what agents trust: filled once, by a container that is never started.

The container has the volume's name, so one of several runs fills it at a time. Its own volume, in which the other
one is mounted, shows that it is ours.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import certifi

from clawker_fw.agents.trust import SHOWN, TARGET, Trust, label
from clawker_fw.certificates import trust
from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.model import ContainerSpec, Mount, Observed, Shape, Sibling
from clawker_fw.reconcile.errand import in_turn
from clawker_fw.stack import labels
from clawker_fw.stack.container import VOLUME, trust_name
from clawker_fw.stack.files import public

_FOLDER = "trust/"
"""Where the volume is in the container that fills it."""

_LONGEST = 20.0
"""Seconds that filling may take, before whoever does it counts as gone."""

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

_PLACES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat 6
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine without `ca-certificates`
)
"""Where systems have their list of authorities (Go has them in `crypto/x509/root_linux.go`)."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a container trusts by itself: all authorities, the added ones among them (PEM), and Java's options."""

    authorities: bytes
    added: bytes = b""
    java_options: str = ""


def trust_for(project: str, roots: bytes, known: Known) -> Trust:
    """Return what an agent needs to trust these roots (PEM), beside what it trusts by itself."""
    made = trust.files(roots, known.authorities, known.added, TARGET)
    digest = hashlib.sha256(b"".join(made[name] for name in sorted(made))).hexdigest()
    java = f"-Djavax.net.ssl.trustStore={TARGET}/{trust.JAVA}"
    environment = {
        **dict.fromkeys(_ALL, f"{TARGET}/{trust.ALL}"),
        **dict.fromkeys(_ADDED, f"{TARGET}/{trust.ADDED}"),
        _JAVA: " ".join(filter(None, (known.java_options, java))),
        _WGET: f"{TARGET}/{trust.WGET}",
        _APT: f"{TARGET}/{trust.APT}",
    }
    return Trust(
        f"{trust_name(project)}{digest[:SHOWN]}",
        label(roots),
        {name: public(content) for name, content in made.items()},
        MappingProxyType(dict(sorted(environment.items()))),
    )


def public_authorities() -> Known:
    """Return the authorities that Mozilla's programs trust, for agents of which nothing better is known."""
    return Known(certifi.contents().encode())


def known_to(engine: EngineReader, container: str) -> Known:
    """Return what a container trusts by itself: by its system's list, or the public one, and by its variables.

    Raises:
        EngineError: when the engine can't be asked.
    """
    view = engine.container(container)
    given = dict(each.partition("=")[::2] for each in view.shape.environment) if view else {}
    named, added = (sorted({given[name] for name in names if given.get(name)}) for names in (_ALL, _ADDED))

    def read(paths: Sequence[str]) -> Iterator[bytes]:
        absolute = (each for each in paths if each.startswith("/"))
        return filter(None, (engine.system_file(container, each) for each in absolute))

    system = next(read(_PLACES), None) or public_authorities().authorities
    extra = tuple(read(added))
    return Known(b"\n".join((system, *read(named), *extra)), b"\n".join(extra), given.get(_JAVA, ""))


def create_trust_volume(engine: EngineWriter, project: str, observed: Observed, trust: Trust) -> None:
    """Have an engine keep the volume that agents get. Its content is looked at each time.

    Raises:
        EngineError: when that fails.
        RefusedError: when somebody else has a container of its name.
    """
    wanted = {f"{_FOLDER}{name}": file for name, file in trust.files.items()}
    spec = ContainerSpec(
        name=trust.volume,
        image=observed.siblings[Sibling.ENVOY].container.image,
        labels={**labels.ownership_labels(project), labels.TRUST: trust.roots},
        shape=Shape(
            ("never-started",),
            (),
            {},
            mounts=(Mount("volume", VOLUME), Mount("volume", f"{VOLUME}/{_FOLDER[:-1]}", trust.volume)),
        ),
    )
    with in_turn(engine, project, spec, _LONGEST) as container:
        there = engine.files(container)
        if any(there.get(path) != file for path, file in wanted.items()):
            engine.put_files(container, wanted)
