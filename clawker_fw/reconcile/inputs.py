"""The inputs of the desired state that are read on this machine: secrets, certificates and further CAs."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import Base64Bytes

from clawker_fw.agents import deciding
from clawker_fw.errors import RefusedError, SettingsError, unreadable_settings
from clawker_fw.model.engines import EngineFacts
from clawker_fw.private_files import state_folder
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.records import origin
from clawker_fw.rules.ruleset import injecting
from clawker_fw.settings.files import bounded
from clawker_fw.settings.loaded import Loaded
from clawker_fw.stack.release import Release

if TYPE_CHECKING:  # only what has telemetry, inspects connections or sends secrets needs these
    from clawker_fw.certificates.store import InspectionStore, TelemetryStore
    from clawker_fw.settings.secrets.vault import Vault
    from clawker_fw.settings.secrets.wanted import WantedSecret


class Selection(Protocol):
    """The stack that a command's options choose."""

    @property
    def project(self) -> str:
        """The stack's name."""

    @property
    def secrets(self) -> Path | None:
        """The file that declares secrets; None for the default one."""

    @property
    def given(self) -> Mapping[str, str]:
        """The given options, each with its origin: an option or an environment variable."""


@dataclass(frozen=True, slots=True)
class SecretsText:
    """The text of the file that declares secrets. It has no secret's value."""

    path: Path
    content: Base64Bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EarlierTexts:
    """Saved texts that replace the files: the one that declares secrets, if any was needed, and further CAs."""

    secrets: SecretsText | None = None
    authorities: Base64Bytes = b""
    proxy_authorities: Base64Bytes = b""


def blueprint(
    selection: Selection,
    loaded: Loaded,
    release: Release,
    facts: EngineFacts,
    *,
    keeps: bool = False,
    texts: EarlierTexts | None = None,
) -> Blueprint:
    """Return the blueprint for these settings. `keeps` saves new certificates; `texts` replace the files."""
    facts = replace(facts, named_by=selection.given.get("host", facts.named_by))
    current_vault, needed = secrets(selection, loaded, texts)
    if current_vault and facts.plain:
        raise RefusedError(
            "secret-over-plain-engine",
            f"Rules put secrets into requests, and others can read what is sent to {facts.endpoint}.",
            context=[f"named by {facts.named_by}"],
            hint="Reach the engine over ssh (`ssh://USER@HOST`), or by TLS (DOCKER_TLS_VERIFY=1).",
        )
    own, of_proxy = loaded.settings.inspection.ca_file, loaded.settings.upstream.ca_file
    inspects = any(rule.paths for rule in loaded.rules.rules)
    made_from = origin(
        loaded.source,
        loaded.settings.project,
        loaded.digest,
        loaded.presets,
        inside=facts.inside,
        group=loaded.group,
    )
    return Blueprint(
        selection.project,
        loaded.settings,
        loaded.rules.at(time.time()),
        release,
        facts,
        certificates=telemetry_store(selection, loaded, keeps=keeps) if loaded.settings.otel.endpoint else None,
        provider=inspection_store(selection, keeps=keeps) if inspects else None,
        authorities=texts.authorities if texts else _authorities(loaded, own, "inspection"),
        proxy_authorities=texts.proxy_authorities if texts else _authorities(loaded, of_proxy, "upstream"),
        wanted=needed,
        headers=current_vault.declared.headers if current_vault else {},
        vault=current_vault,
        origin=made_from,
        files=deciding.files(selection.project, loaded, current_vault, needed, release),
        named_by=loaded.named_by(selection.given),
    )


def secrets(
    selection: Selection, loaded: Loaded, texts: EarlierTexts | None = None
) -> "tuple[Vault | None, tuple[WantedSecret, ...]]":
    """Return the user's secrets, and those of them that rules put into requests.

    `texts` replace the user's file.

    Raises:
        RefusedError: if the user's file forbids the destination that a rule sends a secret to.
        SettingsError: if the file can't be read.
    """
    rules = loaded.rules
    if not any(injecting(rules.rules)) and not (rules.proxy and rules.proxy.auth):
        return None, ()
    from clawker_fw.settings.secrets.vault import known
    from clawker_fw.settings.secrets.wanted import wanted

    earlier = texts.secrets if texts else None
    current_vault = known(earlier.path, earlier.content) if earlier else vault(selection)
    return current_vault, wanted(rules.rules, current_vault.declared, current_vault.path, rules.proxy)


def vault(selection: Selection) -> "Vault":
    """Return the user's secrets.

    Raises:
        RefusedError: if others can use the file that declares them.
        SettingsError: if it can't be read.
    """
    from clawker_fw.settings.secrets.declared import default_path
    from clawker_fw.settings.secrets.vault import opened

    return opened((selection.secrets or default_path()).absolute())


def telemetry_store(selection: Selection, loaded: Loaded, *, keeps: bool) -> "TelemetryStore":
    """Return the project's store of telemetry certificates."""
    from clawker_fw.certificates.store import TelemetryStore

    own = deciding.beside(loaded, loaded.settings.otel.certs_dir)
    return TelemetryStore(state_folder() / selection.project, selection.project, keeps, own=own)


def inspection_store(selection: Selection, *, keeps: bool) -> "InspectionStore":
    """Return the project's store of root certificates."""
    from clawker_fw.certificates.store import InspectionStore

    return InspectionStore(state_folder() / selection.project, selection.project, keeps)


def _authorities(loaded: Loaded, name: str | None, section: str) -> bytes:
    """Return the CAs in the file that a section's `ca_file` names, as PEM; nothing without one."""
    path = deciding.beside(loaded, name)
    if path is None:
        return b""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        content = bounded(path)
        certificates = x509.load_pem_x509_certificates(content)
    except OSError as error:
        raise unreadable_settings(path, error) from error
    except ValueError as error:
        raise SettingsError(
            "ca-file-invalid",
            f"{path} has no certificates that can be read: {error}.",
            hint=f"`{section}.ca_file` names a file with CA certificates, as PEM.",
        ) from error
    # A private key in the same file is left out.
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
