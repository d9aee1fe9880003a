"""The answers of `clawker-fw certs`, for people. No key is ever in them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from clawker_fw.agents import trust
from clawker_fw.certificates import authority
from clawker_fw.certificates.authority import Root
from clawker_fw.certificates.credentials import Authorities, Pair
from clawker_fw.certificates.store import COLLECTOR, roots_in
from clawker_fw.certificates.validity import Certificate, Use
from clawker_fw.certificates.x509 import certificate
from clawker_fw.model import Observed, Sibling
from clawker_fw.rules.until import rfc3339
from clawker_fw.stack.telemetry import certificates, is_live

ROOT, INTERMEDIATE = "root", "intermediate"
"""The names of the certificates with which connections are inspected."""

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


@dataclass(frozen=True, slots=True)
class Row:
    """A certificate: its name here, the file with it, and where it is live: in siblings, or in the collector.

    Without a file, it is one that is live and that this machine has not. `said` is None if it is unreadable.
    Only a root has a `state`, and a `key` if that is on this machine; an announced one signs from `signs_at` on.
    Only an intermediate has a `root`: the fingerprint of the one that has signed it.
    """

    name: str
    purpose: Purpose
    path: str | None
    said: Certificate | None
    live: tuple[str, ...] = ()
    state: RootState | None = None
    key: bool | None = None
    signs_at: float | None = None
    root: str | None = None


@dataclass(frozen=True, slots=True)
class CertificatesAnswer:
    """What is known of a project's certificates.

    `ready` is whether the siblings send, or None where no stack was asked. `due` says what the user should renew.
    `inspects` is whether the stack inspects connections now, and `without` are the agents that have not been given
    the newest root.
    """

    project: str
    endpoint: str | None
    rows: Sequence[Row] = ()
    ready: bool | None = None
    reason: str = ""
    due: tuple[str, ...] = ()
    inspects: bool | None = None
    without: tuple[str, ...] = ()


def telemetry_rows(kept: Mapping[str, tuple[object, bytes]], observed: Observed | None = None) -> list[Row]:
    """Return telemetry's certificates that are kept here, and those that are only live."""
    given = _given(observed) if observed else {}
    found = []
    known = set()
    for name, (path, pem) in kept.items():
        said = _read(pem)
        live = tuple(place for place, said_there in given.items() if said and said.fingerprint in said_there)
        known.add(said.fingerprint if said else "")
        found.append(Row(name, Purpose.TELEMETRY, str(path), said, live))
    for place, said_there in given.items():
        for fingerprint, each in said_there.items():
            if fingerprint not in known:
                known.add(fingerprint)
                live = tuple(other for other, those in given.items() if fingerprint in those)
                name = "ca" if each.use is Use.AUTHORITY else place
                found.append(Row(name, Purpose.TELEMETRY, None, each, live))
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


def with_inspection(
    answer: CertificatesAnswer, kept: Mapping[Path, Root], observed: Observed, now: float
) -> CertificatesAnswer:
    """Return an answer with the roots that are kept here, and with what a stack inspects connections with."""
    rows, inspects = _inspection(kept, trust.authorities_of(observed), now), bool(trust.roots_of(observed))
    newest = next((each.said for each in rows if each.state), None)
    without = trust.without(newest.fingerprint, observed) if newest and inspects else ()
    return replace(answer, rows=[*answer.rows, *rows], inspects=inspects, without=without)


def _inspection(kept: Mapping[Path, Root], running: Authorities, now: float) -> list[Row]:
    """Return the roots that are kept here or in the stack, and the stack's intermediates, the newest first."""
    there = {each.identifier: each for each in roots_in(running.trust)}
    every = {**there, **{each.identifier: each for each in kept.values()}}
    roots = sorted(every.values(), key=lambda each: each.made, reverse=True)
    between = [row for pair in running.intermediates for row in _intermediate(pair, roots)]
    between.sort(key=lambda each: each.said.begins if each.said else 0, reverse=True)
    signing = authority.signing([*kept.values()], now)
    if signing is None and between:  # no key is here
        signing = every.get(between[0].root or "")
    paths = {each.identifier: str(path) for path, each in kept.items()}
    rows = [_root(each, paths.get(each.identifier), signing, live=each.identifier in there) for each in roots]
    return [*rows, *between]


def _intermediate(pair: Pair, roots: Sequence[Root]) -> list[Row]:
    """Return the row of an intermediate that is under one of these roots, and no other."""
    for root in roots:
        with suppress(ValueError):
            said = replace(certificate(pair.certificate), names=authority.judge(pair, [root]).names)
            live = (Sibling.ENVOY.value,)
            return [Row(INTERMEDIATE, Purpose.INSPECTION, None, said, live, root=root.identifier)]
    return []


def _root(root: Root, path: str | None, signing: Root | None, *, live: bool) -> Row:
    state, signs_at = RootState.FORMER, None
    if signing and root.identifier == signing.identifier:
        state = RootState.SIGNS
    elif not signing or root.made > signing.made:
        state, signs_at = RootState.ANNOUNCED, root.made + authority.ANNOUNCED.total_seconds()
    where = (Sibling.ENVOY.value,) if live else ()
    said = certificate(root.pair.certificate)
    return Row(ROOT, Purpose.INSPECTION, path, said, where, state, root.signs, signs_at)


def table(answer: CertificatesAnswer) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows for people."""
    headings = ["certificate", "for", "subject", "use", "expires", "live in", "file"]
    return headings, [[row.name, row.purpose.value, *_cells(row)] for row in answer.rows]


def _cells(row: Row) -> list[str]:
    live, file = ", ".join(row.live) or "-", row.path or "not here"
    if row.said is None:
        return ["unreadable", "", "", live, file]
    expires = rfc3339(row.said.ends)
    if row.state:
        use = f"{row.state}, signs from {rfc3339(row.signs_at)}" if row.signs_at else row.state.value
        without_key = ", without its key" if row.path and not row.key else ""
        return [row.said.fingerprint[:_SHOWN], use, expires, live, f"{file}{without_key}"]
    subject = _names(row.said.names) if row.root else row.said.subject
    return [subject, row.said.use.value, expires, live, file]


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def telemetry_verdict(answer: CertificatesAnswer) -> str:
    """Return the sentence about whether telemetry is ready."""
    if answer.endpoint is None:
        return "No telemetry: `otel.endpoint` is not set."
    if not answer.ready:
        return f"Not ready, so nothing is sent to {answer.endpoint}: {answer.reason}."
    note = f" But {answer.reason}." if answer.reason else ""
    return " ".join((f"Ready: Envoy and CoreDNS send to {answer.endpoint}.{note}", *answer.due))


def inspection_verdict(answer: CertificatesAnswer) -> str:
    """Return the sentence about the agents that have to trust the newest root, or nothing without a root."""
    roots = [each for each in answer.rows if each.state]
    if not roots:
        return ""
    if not roots[0].live:
        return "The stack does not have the newest root yet: run `clawker-fw run`, then start agents again."
    if not answer.inspects:
        return "The stack inspects no connection, so its agents need no root."
    if not answer.without:
        return "Every agent has the newest root."
    when = next((each.signs_at for each in roots if each.signs_at is not None), None)
    by = f" before {rfc3339(when)}" if when is not None else ""
    return (
        f"Without the newest root: {trust.named(answer.without)}. Create them again{by}, by "
        "`clawker-fw agent run`, `agent flags` or `agent compose`: what is inspected fails in them otherwise."
    )
