"""The volume with what agents trust. A container that is never started has it mounted while it is filled.

That container has the volume's name, so only one run fills it at a time. Its own volume shows that it is ours.
"""

import hashlib
from types import MappingProxyType

import certifi

from clawker_fw.agents.trusted_roots import SHOWN, TARGET, Trust, label
from clawker_fw.certificates import trust
from clawker_fw.engine.port import EngineWriter
from clawker_fw.model.containers import ContainerSpec, Mount, Shape
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.one_shot import in_turn
from clawker_fw.stack import labels
from clawker_fw.stack.container import VOLUME, trust_name
from clawker_fw.stack.files import public

_FOLDER = "trust/"
"""The volume's folder in the container that fills it."""

_LONGEST = 20.0
"""Seconds that filling may take before the process that fills counts as gone."""

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
"""Variables that name all CAs. `SSL_CERT_FILE` is OpenSSL's, and many other programs read it."""

_ADDED = ("DENO_CERT", "NODE_EXTRA_CA_CERTS")
"""Variables that name further CAs."""


def trust_for(project: str, roots: bytes, authorities: bytes) -> Trust:
    """Return what an agent needs to trust these roots, other CAs (PEM) and the public ones on Mozilla's list."""
    made = trust.files(roots + b"\n" + authorities, certifi.contents().encode(), TARGET)
    digest = hashlib.sha256(b"".join(made[name] for name in sorted(made))).hexdigest()
    environment = {
        **dict.fromkeys(_ALL, f"{TARGET}/{trust.ALL}"),
        **dict.fromkeys(_ADDED, f"{TARGET}/{trust.ADDED}"),
        "JAVA_TOOL_OPTIONS": f"-Djavax.net.ssl.trustStore={TARGET}/{trust.JAVA}",
        "SYSTEM_WGETRC": f"{TARGET}/{trust.WGET}",
        "APT_CONFIG": f"{TARGET}/{trust.APT}",
    }
    return Trust(
        f"{trust_name(project)}{digest[:SHOWN]}",
        label(roots),
        {name: public(content) for name, content in made.items()},
        MappingProxyType(dict(sorted(environment.items()))),
    )


def create_trust_volume(engine: EngineWriter, project: str, observed: Observed, trust: Trust) -> None:
    """Create the agents' trust volume, or update its content.

    Raises:
        EngineError: if that fails.
        RefusedError: if a foreign container has its name.
    """
    trust_files = {f"{_FOLDER}{name}": file for name, file in trust.files.items()}
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
        files = engine.files(container)
        if any(files.get(path) != file for path, file in trust_files.items()):
            engine.put_files(container, trust_files)
