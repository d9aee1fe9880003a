"""The answers of `clawker-fw certs`, for people. No key is ever in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clawker_fw.certificates.validity import Certificate, Use
from clawker_fw.certificates.x509 import certificate
from clawker_fw.model import Observed
from clawker_fw.rules.until import rfc3339
from clawker_fw.stack.telemetry import certificates, is_live

COLLECTOR = "collector"


@dataclass(frozen=True, slots=True)
class Row:
    """A certificate: its name here, the file with it, and where it is live: in siblings, or in the collector.

    Without a file, it is one that is live and that this machine has not. `said` is None if it is unreadable.
    """

    name: str
    path: str | None
    said: Certificate | None
    live: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CertificatesAnswer:
    """What is known of a project's certificates.

    `ready` is whether the siblings send, or None where no stack was asked. `due` says what the user should renew.
    """

    project: str
    endpoint: str | None
    rows: Sequence[Row]
    ready: bool | None = None
    reason: str = ""
    due: tuple[str, ...] = ()


def rows(kept: Mapping[str, tuple[object, bytes]], observed: Observed | None = None) -> list[Row]:
    """Return the certificates that are kept here, and those that are only live."""
    given = _given(observed) if observed else {}
    found = []
    known = set()
    for name, (path, pem) in kept.items():
        said = _read(pem)
        live = tuple(place for place, said_there in given.items() if said and said.fingerprint in said_there)
        known.add(said.fingerprint if said else "")
        found.append(Row(name, str(path), said, live))
    for place, said_there in given.items():
        for fingerprint, each in said_there.items():
            if fingerprint not in known:
                known.add(fingerprint)
                live = tuple(other for other, those in given.items() if fingerprint in those)
                name = "ca" if each.use is Use.AUTHORITY else place
                found.append(Row(name, None, each, live))
    return found


def _given(observed: Observed) -> dict[str, dict[str, Certificate]]:
    """Return what is live by fingerprint, and by where.

    A sibling says that it has loaded its certificate and its authority's, and CoreDNS what the collector shows.
    """
    found: dict[str, dict[str, Certificate]] = {}
    for sibling, seen in observed.siblings.items():
        given = certificates(sibling, seen.files)
        if given and seen.probe and is_live(sibling, seen.files, seen.probe.live):
            said = [each for pem in given if (each := _read(pem))]
            found[sibling.value] = {each.fingerprint: each for each in said}
        if seen.probe and (shown := seen.probe.collector):
            said_of_it = Certificate(
                shown.subject, Use.SERVER, shown.names, shown.begins, shown.ends, shown.fingerprint
            )
            found[COLLECTOR] = {shown.fingerprint: said_of_it}
    return found


def _read(pem: bytes) -> Certificate | None:
    try:
        return certificate(pem)
    except ValueError:
        return None


def table(answer: CertificatesAnswer) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows for people."""
    return ["certificate", "subject", "use", "expires", "live in", "file"], [_cells(each) for each in answer.rows]


def _cells(row: Row) -> list[str]:
    live = ", ".join(row.live) or "-"
    if row.said is None:
        return [row.name, "unreadable", "", "", live, row.path or "not here"]
    return [row.name, row.said.subject, row.said.use.value, rfc3339(row.said.ends), live, row.path or "not here"]


def verdict(answer: CertificatesAnswer) -> str:
    """Return the sentence about whether telemetry is ready."""
    if answer.endpoint is None:
        return "No telemetry: `otel.endpoint` is not set."
    if not answer.ready:
        return f"Not ready, so nothing is sent to {answer.endpoint}: {answer.reason}."
    note = f" But {answer.reason}." if answer.reason else ""
    return " ".join((f"Ready: the siblings send to {answer.endpoint}.{note}", *answer.due))
