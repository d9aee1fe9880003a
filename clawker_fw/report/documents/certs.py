"""The answers of `clawker-fw certs`. No key is ever in them."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import WithJsonSchema

from clawker_fw.certificates.store import COLLECTOR
from clawker_fw.certificates.validity import Use
from clawker_fw.model import Sibling
from clawker_fw.report.certs import CertificatesAnswer, Purpose, RootState, Row
from clawker_fw.report.documents import Document, Moment
from clawker_fw.rules.until import rfc3339


@dataclass(frozen=True, slots=True)
class CertificateDocument:
    """A certificate. All but its name and places is null if the file is unreadable."""

    name: str
    """For telemetry `ca`, a sibling, or `collector`; for inspection `root` or `intermediate`."""
    purpose: Purpose
    """`telemetry`: the siblings and the collector recognise each other by it. `inspection`: of inspected TLS."""
    path: str | None
    """The file; null if only a sibling or the collector has this certificate."""
    subject: str | None
    """The subject (RFC 4514); null if the file is unreadable."""
    use: Use | None
    """What the certificate is for."""
    names: tuple[str, ...]
    """Its alternative names. An intermediate can sign for these names, and for those below them."""
    begins: Moment | None
    """When it begins to be valid."""
    expires: Moment | None
    """When it expires."""
    renewed: Moment | None
    """When `run` or a watcher renews it."""
    sha256: str | None
    """Its fingerprint, in hexadecimal."""
    live: tuple[Annotated[str, WithJsonSchema({"enum": [*(each.value for each in Sibling), COLLECTOR]})], ...]
    """The siblings that say that they have loaded it, and `collector` if it was shown to CoreDNS last. A root is
    live in `envoy` if the stack's bundle has it, which new agents are given."""
    state: RootState | None
    """What a root does. `signs`: intermediates are signed with it now. `announced`: later. `former`: no longer,
    and agents trust it for as long as something that it has signed can be in use. Null for all others."""
    key: bool | None
    """Whether a root's key is on this machine; null for all others."""
    signs_at: Moment | None
    """From when on an announced root signs; null for all others."""
    root: str | None
    """The fingerprint of the root that has signed an intermediate; null for all others."""

    @classmethod
    def of(cls, row: Row) -> "CertificateDocument":
        said = row.said
        return cls(
            name=row.name,
            purpose=row.purpose,
            path=row.path,
            subject=said.subject if said else None,
            use=said.use if said else None,
            names=said.names if said else (),
            begins=rfc3339(said.begins) if said else None,
            expires=rfc3339(said.ends) if said else None,
            renewed=rfc3339(said.renewed_at) if said else None,
            sha256=said.fingerprint if said else None,
            live=row.live,
            state=row.state,
            key=row.key,
            signs_at=None if row.signs_at is None else rfc3339(row.signs_at),
            root=row.root,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CertsDocument(Document):
    """The answer of `certs show`, `rotate` and `export`."""

    project: str
    """The project of the stack."""
    endpoint: str | None
    """Where telemetry goes; null if it is not set up."""
    ready: bool | None
    """Whether both siblings have loaded usable certificates and send to `endpoint`; null for `rotate` and
    `export`, which ask no stack."""
    reason: str | None
    """Why telemetry is not ready, or what is wrong with the certificates here."""
    due: tuple[str, ...]
    """What the user should renew: sentences. Empty for `rotate` and `export`."""
    inspects: bool | None
    """Whether the stack inspects connections now; null where no stack was asked."""
    agents_without_newest_root: tuple[str, ...]
    """The agents that have not been given the first of the roots. Empty if the stack inspects no connection."""
    certificates: list[CertificateDocument]
    """Of roots and of intermediates, the newest come first."""

    @classmethod
    def of(cls, answer: CertificatesAnswer) -> "CertsDocument":
        return cls(
            project=answer.project,
            endpoint=answer.endpoint,
            ready=answer.ready,
            reason=answer.reason or None,
            due=answer.due,
            inspects=answer.inspects,
            agents_without_newest_root=answer.without,
            certificates=[CertificateDocument.of(each) for each in answer.rows],
        )
