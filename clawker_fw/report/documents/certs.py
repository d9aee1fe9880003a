"""The answers of `clawker-fw certs`. No key is ever in them."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import WithJsonSchema

from clawker_fw.certificates.validity import Use
from clawker_fw.model import Sibling
from clawker_fw.report.certs import COLLECTOR, CertificatesAnswer, Row
from clawker_fw.report.documents import Document, Moment
from clawker_fw.rules.until import rfc3339


@dataclass(frozen=True, slots=True)
class CertificateDocument:
    """A certificate. All but its name and places is null if the file is unreadable."""

    name: str
    """`ca`, a sibling, or `collector`."""
    path: str | None
    """The file; null if only a sibling or the collector has this certificate."""
    subject: str | None
    """The subject (RFC 4514); null if the file is unreadable."""
    use: Use | None
    """What the certificate is for."""
    names: tuple[str, ...]
    """Its alternative names."""
    begins: Moment | None
    """When it begins to be valid."""
    expires: Moment | None
    """When it expires."""
    renewed: Moment | None
    """When `run` or a watcher renews it."""
    sha256: str | None
    """Its fingerprint, in hexadecimal."""
    live: tuple[Annotated[str, WithJsonSchema({"enum": [*(each.value for each in Sibling), COLLECTOR]})], ...]
    """The siblings that say that they have loaded it, and `collector` if it was shown to CoreDNS last."""

    @classmethod
    def of(cls, row: Row) -> "CertificateDocument":
        """Return a certificate."""
        said = row.said
        return cls(
            name=row.name,
            path=row.path,
            subject=said.subject if said else None,
            use=said.use if said else None,
            names=said.names if said else (),
            begins=rfc3339(said.begins) if said else None,
            expires=rfc3339(said.ends) if said else None,
            renewed=rfc3339(said.renewed_at) if said else None,
            sha256=said.fingerprint if said else None,
            live=row.live,
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
    certificates: list[CertificateDocument]

    @classmethod
    def of(cls, answer: CertificatesAnswer) -> "CertsDocument":
        """Return the answer."""
        return cls(
            project=answer.project,
            endpoint=answer.endpoint,
            ready=answer.ready,
            reason=answer.reason or None,
            due=answer.due,
            certificates=[CertificateDocument.of(each) for each in answer.rows],
        )
