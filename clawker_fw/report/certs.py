"""The answers of `clawker-fw certs`, and their text form. They never contain a key."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import WithJsonSchema

from clawker_fw.agents import trusted_roots
from clawker_fw.certificates import authority
from clawker_fw.certificates.authority import Issuer
from clawker_fw.certificates.credentials import Authorities, Pair, renewed_at
from clawker_fw.certificates.store import COLLECTOR, roots_in
from clawker_fw.certificates.x509 import certificate
from clawker_fw.model.json_types import Moment
from clawker_fw.model.observed import Observed
from clawker_fw.model.probes import Certificate, CertificateUse
from clawker_fw.model.stacks import Sibling
from clawker_fw.report.documents import Document
from clawker_fw.rules.until import rfc3339
from clawker_fw.stack.collector import certificates, is_live

_SHOWN = 16


class Purpose(StrEnum):
    """What a certificate is for."""

    TELEMETRY = "telemetry"
    INSPECTION = "inspection"


class RootState(StrEnum):
    """What a root is for at the moment."""

    ANNOUNCED = "announced"
    SIGNS = "signs"
    FORMER = "former"


@dataclass(frozen=True, slots=True, kw_only=True)
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
    use: CertificateUse | None
    """What the certificate is for."""
    names: tuple[str, ...]
    """Its alternative names. An intermediate can sign for these names, and for those below them."""
    begins: Moment | None
    """When it begins to be valid."""
    expires: Moment | None
    """When it expires."""
    renewed: Moment | None
    """When `run`, a watcher, or `certs export` for the collector renews it."""
    sha256: str | None
    """Its fingerprint, in hexadecimal."""
    live: tuple[
        Annotated[str, WithJsonSchema({"enum": [*(sibling.value for sibling in Sibling), COLLECTOR]})], ...
    ]
    """The siblings that say that they have loaded it, and `collector` if it was shown to CoreDNS last. A root is
    live in `envoy` if the stack's bundle has it, which new agents are given."""
    state: RootState | None = None
    """What a root does. `signs`: intermediates are signed with it now. `announced`: later. `former`: no longer,
    and agents trust it for as long as something that it has signed can be in use. Null for all others."""
    key: bool | None = None
    """Whether a root's key is on this machine; null for all others."""
    signs_at: Moment | None = None
    """From when on an announced root signs; null for all others."""
    root: str | None = None
    """The fingerprint of the root that has signed an intermediate; null for all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertsDocument(Document):
    """The answer of `certs show`, `rotate` and `export`."""

    project: str
    """The project of the stack."""
    endpoint: str | None = None
    """Where telemetry goes; null if it is not set up."""
    ready: bool | None = None
    """Whether both siblings have loaded usable certificates and send to `endpoint`; null for `rotate` and
    `export`, which ask no stack."""
    reason: str | None = None
    """Why telemetry is not ready, or what is wrong with the certificates here."""
    due: tuple[str, ...] = ()
    """What the user should renew: sentences. Empty for `rotate` and `export`."""
    inspects: bool | None = None
    """Whether the stack inspects connections now; null where no stack was asked."""
    agents_without_newest_root: tuple[str, ...] = ()
    """The agents that have not been given the first of the roots. Empty if the stack inspects no connection."""
    certificates: Sequence[CertificateDocument] = ()
    """Of roots and of intermediates, the newest come first."""
    pem: str | None = None
    """The roots as PEM, without keys; null except for `certs export roots`."""


def telemetry_rows(
    kept: Mapping[str, tuple[object, bytes]], observed: Observed | None = None
) -> list[CertificateDocument]:
    """Return the telemetry certificates that are stored here, and those that are only live."""
    given = _given(observed) if observed else {}
    rows = []
    fingerprints = set()
    for name, (path, pem) in kept.items():
        certificate = _read(pem)
        live = tuple(
            place
            for place, certificates in given.items()
            if certificate and certificate.fingerprint in certificates
        )
        fingerprints.add(certificate.fingerprint if certificate else "")
        rows.append(_row(name, Purpose.TELEMETRY, str(path), certificate, live))
    for place, by_fingerprint in given.items():
        for fingerprint, certificate in by_fingerprint.items():
            if fingerprint not in fingerprints:
                fingerprints.add(fingerprint)
                live = tuple(other for other, those in given.items() if fingerprint in those)
                name = "ca" if certificate.use is CertificateUse.AUTHORITY else place
                rows.append(_row(name, Purpose.TELEMETRY, None, certificate, live))
    return rows


def _given(observed: Observed) -> dict[str, dict[str, Certificate]]:
    """Return live certificates by fingerprint and place: a sibling, or the collector that CoreDNS saw."""
    by_place: dict[str, dict[str, Certificate]] = {}
    for sibling, state in observed.siblings.items():
        given = certificates(sibling, state.files)
        if given and state.probe and is_live(sibling, state.files, state.probe.live):
            readable = [certificate for pem in given if (certificate := _read(pem))]
            by_place[sibling.value] = {certificate.fingerprint: certificate for certificate in readable}
        if state.probe and (shown := state.probe.collector):
            by_place[COLLECTOR] = {shown.fingerprint: shown}
    return by_place


def _read(pem: bytes) -> Certificate | None:
    try:
        return certificate(pem)
    except ValueError:
        return None


def _row(
    name: str, purpose: Purpose, path: str | None, certificate: Certificate | None, live: tuple[str, ...]
) -> CertificateDocument:
    return CertificateDocument(
        name=name,
        purpose=purpose,
        path=path,
        subject=certificate.subject if certificate else None,
        use=certificate.use if certificate else None,
        names=certificate.names if certificate else (),
        begins=rfc3339(certificate.begins) if certificate else None,
        expires=rfc3339(certificate.ends) if certificate else None,
        renewed=rfc3339(renewed_at(certificate.begins, certificate.ends)) if certificate else None,
        sha256=certificate.fingerprint if certificate else None,
        live=live,
    )


def with_inspection(
    answer: CertsDocument, kept: Mapping[Path, Issuer], observed: Observed, now: float
) -> CertsDocument:
    """Return an answer with the roots that are stored here, and the certificates with which a stack inspects."""
    rows, inspects = (
        _inspection(kept, trusted_roots.authorities_of(observed), now),
        bool(trusted_roots.roots_of(observed)),
    )
    newest = next((row.sha256 for row in rows if row.state), None)
    without = trusted_roots.without(newest, observed) if newest and inspects else ()
    every = [*answer.certificates, *rows]
    return replace(answer, certificates=every, inspects=inspects, agents_without_newest_root=without)


def _inspection(kept: Mapping[Path, Issuer], running: Authorities, now: float) -> list[CertificateDocument]:
    issuers = {root.identifier: root for root in roots_in(running.trust)}
    every = {**issuers, **{issuer.identifier: issuer for issuer in kept.values()}}
    roots = sorted(every.values(), key=lambda root: root.made, reverse=True)
    between = [row for pair in running.intermediates for row in _intermediate(pair, roots)]
    between.sort(key=lambda certificate: certificate.begins or "", reverse=True)
    signing = authority.signing([*kept.values()], now)
    if signing is None and between:  # no key is here
        signing = every.get(between[0].root or "")
    paths = {issuer.identifier: str(path) for path, issuer in kept.items()}
    rows = [_root(root, paths.get(root.identifier), signing, live=root.identifier in issuers) for root in roots]
    return [*rows, *between]


def _intermediate(pair: Pair, roots: Sequence[Issuer]) -> list[CertificateDocument]:
    for root in roots:
        with suppress(ValueError):
            shown = replace(certificate(pair.certificate), names=authority.judge(pair, [root]).names)
            row = _row("intermediate", Purpose.INSPECTION, None, shown, (Sibling.ENVOY.value,))
            return [replace(row, root=root.identifier)]
    return []


def _root(root: Issuer, path: str | None, signing: Issuer | None, *, live: bool) -> CertificateDocument:
    state: RootState = RootState.FORMER
    signs_at = None
    if signing and root.identifier == signing.identifier:
        state = RootState.SIGNS
    elif not signing or root.made > signing.made:
        state, signs_at = RootState.ANNOUNCED, rfc3339(root.made + authority.ANNOUNCED.total_seconds())
    where = (Sibling.ENVOY.value,) if live else ()
    row = _row("root", Purpose.INSPECTION, path, certificate(root.pair.certificate), where)
    return replace(row, state=state, key=bool(root.pair.key), signs_at=signs_at)


def table(answer: CertsDocument) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows."""
    headings = ["certificate", "for", "subject", "use", "expires", "live in", "file"]
    return headings, [[row.name, row.purpose.value, *_cells(row)] for row in answer.certificates]


def _cells(row: CertificateDocument) -> list[str]:
    live, file = ", ".join(row.live) or "-", row.path or "not here"
    if row.sha256 is None:
        return ["unreadable", "", "", live, file]
    if row.state:
        use = f"{row.state}, signs from {row.signs_at}" if row.signs_at else row.state.value
        without_key = ", without its key" if row.path and not row.key else ""
        return [row.sha256[:_SHOWN], use, row.expires or "", live, f"{file}{without_key}"]
    subject = _names(row.names) if row.root else row.subject
    return [subject or "", str(row.use), row.expires or "", live, file]


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def telemetry_verdict(answer: CertsDocument) -> str:
    """Return the sentence about whether telemetry is ready."""
    if answer.endpoint is None:
        return "No telemetry: `otel.endpoint` is not set."
    if not answer.ready:
        return f"Not ready, so nothing is sent to {answer.endpoint}: {answer.reason}."
    note = f" But {answer.reason}." if answer.reason else ""
    return " ".join((f"Ready: Envoy and CoreDNS send to {answer.endpoint}.{note}", *answer.due))


def inspection_verdict(answer: CertsDocument) -> str:
    """Return the sentence about agents that have to trust the newest root, or nothing without a root."""
    roots = [certificate for certificate in answer.certificates if certificate.state]
    if not roots:
        return ""
    if not roots[0].live:
        return "The stack does not have the newest root yet: run `clawker-fw run`, then start agents again."
    if not answer.inspects:
        return "The stack inspects no connection, so its agents need no root."
    if not answer.agents_without_newest_root:
        return "Every agent has the newest root."
    when = next((root.signs_at for root in roots if root.signs_at), None)
    by = f" before {when}" if when else ""
    return (
        f"Without the newest root: {trusted_roots.named(answer.agents_without_newest_root)}. "
        f"Create them again{by}, by `clawker-fw agent run`, `agent flags` or `agent compose`: otherwise, their "
        "inspected requests fail."
    )
