"""Telemetry's certificates on this machine: read, checked, renewed, and kept in the user's state folder.

Which credentials a stack should use is decided here: the newest that are valid, whether they are kept here or live
in its siblings. So two machines never take turns, and one without the authority's key uses what is live.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from clawker_fw.certificates import x509
from clawker_fw.certificates.credentials import NO_CREDENTIALS, Credentials, Pair, Provision, Running
from clawker_fw.certificates.folder import keep_pair, read_pair
from clawker_fw.certificates.validity import Judgement, first_certificate, is_due
from clawker_fw.model import ServerCertificate, Sibling
from clawker_fw.private_files import locked, write_private
from clawker_fw.rules.until import rfc3339

_EXPORTED = "exported.json"
"""What the collector's certificate says that was exported last."""

AUTHORITY, COLLECTOR, WATCHER = "ca", "collector", "watch"
"""The names of pairs: `NAME.crt` and `NAME.key`. A sibling's pair has its name."""

_EXPORT = "`clawker-fw certs export collector DIR`"
_READ = "have the collector read its new files"

LEAD_SECONDS = 3600.0
"""For how long credentials must still be valid to be put into siblings that have none."""


@dataclass(frozen=True)
class CertificateStore:
    """The certificates of one project. `own` is the user's folder (`otel.certs_dir`), which is never written to.

    Only a store that `keeps` writes. Another one mints what it lacks in memory, to show what a run would do.
    """

    folder: Path
    project: str
    own: Path | None = None
    keeps: bool = False
    clock: Callable[[], float] = field(default=time.time, compare=False, repr=False)

    def provide(self, running: Running = NO_CREDENTIALS) -> Provision:
        """Return the credentials for a stack, newly minted if they are missing or due. Never raises."""
        now = self.clock()
        live = x509.judge(running.credentials) if running.credentials else Judgement("nothing is live")
        found = replace(self._provided(now, running, live), live=live.unusable(now))
        if found.credentials is None:
            return found
        used = _digest(found.credentials.trust)
        signs = self._signs and used == self._authority_here()
        authority, exported = (self._exported() if signs else None) or (used, None)
        known = Situation(
            x509.judge(found.credentials),
            exported,
            running.collector,
            superseded=authority != used,
            own=self.own is not None,
            signs=signs,
        )
        return replace(found, due=tuple(_due(now, known)))

    @property
    def _signs(self) -> bool:
        """Whether the authority's key is expected here. Reading an unreadable folder says why it is not."""
        try:
            return self.own is None or (self.own / f"{AUTHORITY}.key").exists()
        except PermissionError:
            return False

    def _provided(self, now: float, running: Running, live: Judgement) -> Provision:
        """Return the newest credentials that are valid. `live` is what is true of those that are running."""
        alive = running.credentials
        try:
            found = self._local(now, may_found=not running.any)
        except (OSError, ValueError) as error:
            found = Provision(reason=_sentence(error))
        here = x509.judge(found.credentials) if found.credentials else Judgement(found.reason)
        unusable = here.unusable(now, LEAD_SECONDS)
        reason = "; ".join(dict.fromkeys(each for each in (unusable, found.reason) if each))
        if alive and not live.unusable(now) and alive != found.credentials:
            if unusable:
                return Provision(alive, f"{reason}; what is live is kept until it expires")
            if self.own is None and live.issued > here.issued:
                return Provision(alive)
        if unusable:
            return Provision(reason=reason)
        return found

    def _local(self, now: float, *, may_found: bool) -> Provision:
        """Return what is kept here, renewed if it is due. `may_found` allows a new authority.

        Raises:
            OSError, ValueError: when there is nothing that could be used.
        """
        if self.own is not None and not self._signs:
            return Provision(self._read(self.own, self.own))
        with locked(self.folder, writing=self.keeps):
            authority = self._authority(now, may_found=may_found)
            self._renew_collector(authority, now)
            kept: Credentials | None = None
            with suppress(FileNotFoundError):
                kept = self._read(self.own or self.folder, self.folder)
            judged = x509.judge(kept) if kept else Judgement("there are none")
            if kept and not judged.unusable(now, LEAD_SECONDS) and now < judged.renewed_at:
                return Provision(kept, renewed_at=judged.renewed_at)
            try:
                return self._renewed(authority, now)
            except (OSError, ValueError) as error:
                if kept is None:
                    raise
                return Provision(kept, f"the certificates can't be renewed: {_sentence(error)}")

    def _renewed(self, authority: Pair, now: float) -> Provision:
        """Mint both siblings' certificates, and keep them.

        Raises:
            OSError, ValueError: when the authority can't sign, or they can't be kept.
        """
        pairs = {each: x509.mint_client(authority, self.project, each, now) for each in Sibling}
        minted = Credentials(authority.certificate, pairs[Sibling.ENVOY], pairs[Sibling.COREDNS])
        judged = x509.judge(minted)
        if judged.problem:  # the authority's key and certificate don't fit: what is kept may be valid yet
            raise ValueError(judged.problem)
        for sibling, pair in pairs.items():
            self._keep(sibling.value, pair)
        return Provision(minted, renewed_at=judged.renewed_at)

    def _authority(self, now: float, *, may_found: bool) -> Pair:
        """Return the authority. Its certificate may be followed by those that are also trusted.

        Raises:
            OSError: when it can't be read, or may not be made.
        """
        folder = self.own or self.folder
        try:
            return read_pair(folder, AUTHORITY)
        except FileNotFoundError:
            if self.own is not None or (folder / f"{AUTHORITY}.crt").exists():
                raise
            if not may_found:
                raise OSError(
                    f"{folder} has no authority: it is on another machine, belongs to another user, or has not "
                    "been made yet"
                ) from None
        founded = x509.mint_authority(self.project, now)
        self._keep(AUTHORITY, founded)
        return founded

    def rotate(self, *, authority: bool) -> None:
        """Renew the siblings' certificates now, or found a new authority. The former one stays trusted.

        Raises:
            OSError, ValueError: when that is impossible.
        """
        now = self.clock()
        with locked(self.folder, writing=self.keeps):
            if not authority:
                self._renewed(self._authority(now, may_found=False), now)
                return
            founded = x509.mint_authority(self.project, now)
            with suppress(FileNotFoundError, ValueError):  # one that is not here, or damaged, is trusted no more
                former = first_certificate((self.folder / f"{AUTHORITY}.crt").read_bytes())
                x509.certificate(former)
                founded = Pair(founded.certificate + former, founded.key)
            self._keep(AUTHORITY, founded)
            for name in (COLLECTOR, *Sibling):
                (self.folder / f"{name}.crt").unlink(missing_ok=True)
            self._renewed(founded, now)

    def collector(self, host: str) -> tuple[bytes, Pair]:
        """Return what the collector at a host needs: the authorities that it trusts, and its own pair.

        Raises:
            OSError, ValueError: when it can't be made here.
        """
        now = self.clock()
        with locked(self.folder, writing=self.keeps):
            authority = self._authority(now, may_found=False)
            with suppress(FileNotFoundError, ValueError):
                kept = read_pair(self.folder, COLLECTOR)
                said = x509.certificate(kept.certificate)
                fits = host in said.names and x509.is_issued_by(kept.certificate, authority.certificate)
                if fits and now < said.renewed_at:
                    return authority.certificate, kept
            minted = x509.mint_server(authority, host, now)
            self._keep(COLLECTOR, minted)
            return authority.certificate, minted

    def export(self, host: str, folder: Path) -> tuple[bytes, Pair]:
        """Write what the collector at a host needs into a folder, and note which certificate it has been given.

        Raises:
            OSError, ValueError: when it can't be made here, or not be written. Then nothing is noted.
        """
        trust, pair = self.collector(host)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / f"{AUTHORITY}.crt", trust)
        write_private(folder / f"{COLLECTOR}.key", pair.key)
        write_private(folder / f"{COLLECTOR}.crt", pair.certificate)
        said = x509.certificate(pair.certificate)
        given = ServerCertificate(said.subject, said.names, said.begins, said.ends, said.fingerprint)
        if self.keeps:
            noted = {"authority": _digest(trust), "certificate": given.document()}
            with locked(self.folder, writing=self.keeps):
                write_private(self.folder / _EXPORTED, json.dumps(noted).encode())
        return trust, pair

    def _exported(self) -> tuple[str, ServerCertificate] | None:
        """Return what was exported last, if that is known: its authority's digest, and the certificate."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            noted = json.loads((self.folder / _EXPORTED).read_bytes())
            return str(noted["authority"]), ServerCertificate.read(noted["certificate"])
        return None

    def _authority_here(self) -> str | None:
        """Return the digest of the authority that is kept here, if there is one."""
        with suppress(OSError):
            return _digest(((self.own or self.folder) / f"{AUTHORITY}.crt").read_bytes())
        return None

    def _renew_collector(self, authority: Pair, now: float) -> None:
        """Renew the collector's certificate if it is due. It is put into use by the next export."""
        _, given = self._exported() or ("", None)
        if given is None or not self.keeps or not is_due(now, given.begins, given.ends):
            return
        with suppress(OSError, ValueError):
            said = x509.certificate((self.folder / f"{COLLECTOR}.crt").read_bytes())
            if said.names and is_due(now, said.begins, said.ends):
                self._keep(COLLECTOR, x509.mint_server(authority, said.names[0], now))

    def watcher(self) -> tuple[bytes, Pair]:
        """Return the authorities that a watcher trusts, and its pair: the user's own, or one that is not kept.

        Raises:
            OSError, ValueError: when there is none, and it can't be made here.
        """
        if self.own is not None and not self._signs:
            return (self.own / f"{AUTHORITY}.crt").read_bytes(), read_pair(self.own, WATCHER)
        with locked(self.folder, writing=self.keeps):
            authority = self._authority(self.clock(), may_found=False)
        return authority.certificate, x509.mint_client(authority, self.project, WATCHER, self.clock())

    def kept(self) -> dict[str, tuple[Path, bytes]]:
        """Return the certificates that are kept here, without keys: by name, the path and the content."""
        found: dict[str, tuple[Path, bytes]] = {}
        for name in (AUTHORITY, *Sibling, COLLECTOR, WATCHER):
            for folder in (self.folder, *([self.own] if self.own else [])):
                path = folder / f"{name}.crt"
                with suppress(OSError):
                    found[str(name)] = path, path.read_bytes()
        return found

    def _read(self, trust: Path, pairs: Path) -> Credentials:
        authority = (trust / f"{AUTHORITY}.crt").read_bytes()
        return Credentials(authority, *(read_pair(pairs, each.value) for each in (Sibling.ENVOY, Sibling.COREDNS)))

    def _keep(self, name: str, pair: Pair) -> None:
        if self.keeps:
            keep_pair(self.folder, name, pair)


def _digest(trust: bytes) -> str:
    """Return the SHA-256 of the authority among those that are trusted, in hexadecimal: it is the first."""
    return hashlib.sha256(first_certificate(trust)).hexdigest()


def _sentence(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of certificates that are in use.

    `judged` is the judgement on those of the siblings. `exported` is the certificate that was exported last
    for the collector, and `shown` the one that it showed last. `superseded` is whether the authority has changed
    since that export, `own` whether the authority is the user's own, and `signs` whether we have its key.
    """

    judged: Judgement
    exported: ServerCertificate | None
    shown: ServerCertificate | None
    superseded: bool
    own: bool
    signs: bool


def _due(now: float, known: Situation) -> Iterator[str]:
    """Yield a sentence for each thing that only the user can renew in time."""
    begins, ends = known.judged.issued[0], known.judged.authority_ends
    if not known.judged.problem and is_due(now, begins, ends):
        how = (
            "replace it in `otel.certs_dir`, and the collector's with it"
            if known.own
            else f"run `clawker-fw certs rotate --authority` and {_EXPORT}, {_READ}, then run `clawker-fw run`"
        )
        yield f"The authority of telemetry's certificates expires at {rfc3339(ends)}: {how}."
    if known.superseded:
        what = "The authority of telemetry's certificates is another one since the collector's was exported"
        yield f"{what}: repeat {_EXPORT}, and {_READ}."
        return
    seen = known.shown or known.exported
    if seen and is_due(now, seen.begins, seen.ends):
        verb = "has expired" if now >= seen.ends else "expires"
        how = f"repeat {_EXPORT}, and {_READ}" if known.signs else "give it another one"
        yield f"The collector's certificate {verb} at {rfc3339(seen.ends)}: {how}."
