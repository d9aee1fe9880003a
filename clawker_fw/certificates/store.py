"""The certificates of a project on this machine: read, checked, renewed, and kept in the user's state folder.

Telemetry's are those by which the siblings and a collector recognise each other. Those of inspection are the
roots that agents trust, and the intermediates that sign beside Envoy.

Which of them a stack should use is decided here, from what is kept here and what is live in its siblings. So two
machines never take turns, and one without a key uses what is live.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from clawker_fw.certificates import authority, x509
from clawker_fw.certificates.authority import Issuer, newest_first
from clawker_fw.certificates.credentials import (
    NO_AUTHORITIES,
    NO_CREDENTIALS,
    Authorities,
    Credentials,
    Judgement,
    Pair,
    Provided,
    Provision,
    Running,
    is_due,
)
from clawker_fw.model.probes import Certificate
from clawker_fw.model.stacks import Sibling
from clawker_fw.private_files import locked, write_private
from clawker_fw.rules.until import rfc3339

AUTHORITY, COLLECTOR = "ca", "collector"
"""The names of telemetry's pairs: `NAME.crt` and `NAME.key`. A sibling's pair has its name."""

_EXPORT = "run `clawker-fw certs export collector DIR` where its key is, and have the collector read its new files"

LEAD_SECONDS = 3600.0
"""For how long credentials must still be valid to be put into siblings that have none."""

_PREFIX = "inspection-"
"""The name of a root's pair begins with it, and ends with a part of its fingerprint."""

_REPLACE = "restore it, or remove it with its pair and run `clawker-fw certs rotate --roots --at-once`"

_SHOWN = 16
"""How many digits of a root's fingerprint are in the names of its files."""


@dataclass(frozen=True)
class _Store:
    """The folder of one project.

    Only a store that `keeps` writes. Another one mints what it lacks in memory, to show what a run would do.
    """

    folder: Path
    project: str
    keeps: bool = False
    clock: Callable[[], float] = field(default=time.time, compare=False, repr=False)

    def _keep(self, name: str, pair: Pair) -> None:
        """Write a pair, the key first: a run that dies in between leaves a pair that does not fit."""
        if self.keeps:
            write_private(self.folder / f"{name}.key", pair.key)
            write_private(self.folder / f"{name}.crt", pair.certificate)


@dataclass(frozen=True)
class TelemetryStore(_Store):
    """The certificates for telemetry. `own` is the user's folder (`otel.certs_dir`), which is never written to."""

    own: Path | None = None

    def provide(self, running: Running = NO_CREDENTIALS) -> Provision:
        """Return the credentials for a stack, newly minted if they are missing or due. Never raises."""
        now = self.clock()
        live = x509.judge(running.credentials) if running.credentials else Judgement("nothing is live")
        provision = replace(self._provided(now, running, live), live=live.unusable(now))
        if provision.credentials is None:
            return provision
        return replace(provision, due=tuple(self._due(now, x509.judge(provision.credentials), running.collector)))

    def _due(self, now: float, judged: Judgement, collector: Certificate | None) -> Iterator[str]:
        """Yield a sentence per thing that only the user can renew in time."""
        ends = judged.authority_ends
        if not judged.problem and is_due(now, judged.issued[0], ends):
            how = "replace it in `otel.certs_dir`" if self.own else "run `clawker-fw certs rotate --authority`"
            then = f"{_EXPORT}, then run `clawker-fw run`"
            yield f"The CA of telemetry's certificates is valid until {rfc3339(ends)}: {how}, {then}."
        if collector and is_due(now, collector.begins, collector.ends):
            yield f"The collector's certificate is valid until {rfc3339(collector.ends)}: {_EXPORT}."

    def _provided(self, now: float, running: Running, live: Judgement) -> Provision:
        """Return the newest credentials that are valid. `live` is what is true of those that are running."""
        alive = running.credentials
        try:
            provision = self._local(now, may_create=not running.any)
        except (OSError, ValueError) as error:
            provision = Provision(reason=sentence(error))
        here = x509.judge(provision.credentials) if provision.credentials else Judgement(provision.reason)
        unusable = here.unusable(now, LEAD_SECONDS)
        reason = "; ".join(dict.fromkeys(problem for problem in (unusable, provision.reason) if problem))
        if alive and not live.unusable(now) and alive != provision.credentials:
            if unusable:
                return Provision(alive, f"{reason}; what is live is kept until it expires")
            if self.own is None and live.issued > here.issued:
                return Provision(alive)
        if unusable:
            return Provision(reason=reason)
        return provision

    def _local(self, now: float, *, may_create: bool) -> Provision:
        """Return the certificates that are kept here, renewed if due. `may_create` allows a new CA."""
        if self.own is not None:
            signs = False
            with suppress(PermissionError):  # reading an unreadable folder says why
                signs = (self.own / f"{AUTHORITY}.key").exists()
            if not signs:
                return Provision(self._read(self.own, self.own))
        with locked(self.folder, writing=self.keeps):
            authority = self._authority(now, may_create=may_create)
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
                return Provision(kept, f"the certificates can't be renewed: {sentence(error)}")

    def _renewed(self, authority: Pair, now: float) -> Provision:
        pairs = {sibling: x509.mint_client(authority, self.project, sibling, now) for sibling in Sibling}
        minted = Credentials(authority.certificate, pairs[Sibling.ENVOY], pairs[Sibling.COREDNS])
        judged = x509.judge(minted)
        if judged.problem:  # the CA's key and certificate don't fit, but kept certificates may still be valid
            raise ValueError(judged.problem)
        for sibling, pair in pairs.items():
            self._keep(sibling.value, pair)
        return Provision(minted, renewed_at=judged.renewed_at)

    def _authority(self, now: float, *, may_create: bool) -> Pair:
        """Return the CA. Its certificate may be followed by others that are also trusted."""
        folder = self.own or self.folder
        try:
            return _read_pair(folder, AUTHORITY)
        except FileNotFoundError:
            if self.own is not None or (folder / f"{AUTHORITY}.crt").exists():
                raise
            if not may_create:
                raise OSError(
                    f"{folder} has no CA: it is on another machine, belongs to another user, or has not "
                    "been made yet"
                ) from None
        founded = x509.mint_authority(self.project, now)
        self._keep(AUTHORITY, founded)
        return founded

    def rotate(self, *, authority: bool) -> None:
        """Renew the siblings' certificates now, or create a new CA. The former one stays trusted.

        Raises:
            OSError, ValueError: when that is impossible.
        """
        now = self.clock()
        with locked(self.folder, writing=self.keeps):
            if not authority:
                self._renewed(self._authority(now, may_create=False), now)
                return
            founded = x509.mint_authority(self.project, now)
            with suppress(FileNotFoundError, ValueError):  # one that is not here, or damaged, is trusted no more
                former = x509.first((self.folder / f"{AUTHORITY}.crt").read_bytes())
                founded = Pair(founded.certificate + former, founded.key)
            self._keep(AUTHORITY, founded)
            for name in (COLLECTOR, *Sibling):
                (self.folder / f"{name}.crt").unlink(missing_ok=True)
            self._renewed(founded, now)

    def export(self, host: str, folder: Path) -> tuple[bytes, Pair]:
        """Write what the collector at a host needs into a folder: the CAs that it trusts, and a new pair.

        Raises:
            OSError, ValueError: when it can't be made here, or not be written.
        """
        now = self.clock()
        with locked(self.folder, writing=self.keeps):
            authority = self._authority(now, may_create=False)
            pair = x509.mint_server(authority, host, now)
            self._keep(COLLECTOR, pair)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / f"{AUTHORITY}.crt", authority.certificate)
        write_private(folder / f"{COLLECTOR}.key", pair.key)
        write_private(folder / f"{COLLECTOR}.crt", pair.certificate)
        return authority.certificate, pair

    def kept(self) -> dict[str, tuple[Path, bytes]]:
        """Return the certificates that are kept here, without keys: by name, the path and the content."""
        files: dict[str, tuple[Path, bytes]] = {}
        for name in (AUTHORITY, *Sibling, COLLECTOR):
            for folder in (self.folder, *([self.own] if self.own else [])):
                path = folder / f"{name}.crt"
                with suppress(OSError):
                    files[str(name)] = path, path.read_bytes()
        return files

    def _read(self, trust: Path, pairs: Path) -> Credentials:
        authority = (trust / f"{AUTHORITY}.crt").read_bytes()
        envoy, coredns = (_read_pair(pairs, sibling.value) for sibling in (Sibling.ENVOY, Sibling.COREDNS))
        return Credentials(authority, envoy, coredns)


@dataclass(frozen=True)
class InspectionStore(_Store):
    """The roots that agents trust.

    The key of a root is on this machine alone. The key of an intermediate is in Envoy's container alone: what is
    live there is used until it is due.
    """

    _minted: list[Pair] = field(default_factory=list, init=False, compare=False, repr=False)
    """Intermediates that were made here and are not live yet: a run asks several times."""
    _founded: list[Pair] = field(default_factory=list, init=False, compare=False, repr=False)
    """Roots that are not kept."""

    def provide(self, names: Iterable[str], live: Authorities = NO_AUTHORITIES) -> Provided:
        """Return what a stack needs to inspect connections to these names and those below. Never raises."""
        now, problem = self.clock(), ""
        roots: list[Issuer] = []
        try:
            with locked(self.folder, writing=self.keeps):
                roots = self._roots(now, may_create=not live.intermediates)
        except (OSError, ValueError) as error:
            problem = sentence(error)
        root = authority.signing(roots, now)
        others = list(roots_in(live.trust))
        theirs = list(_usable(live.intermediates, others, now))
        if root is None:
            problem = problem or f"{self.folder} has no key of a valid root: that may be on another machine"
        elif theirs and newest_first(others)[0].made > newest_first(roots)[0].made:
            problem = "the root of what is live is on another machine, and newer than the one here"
        else:
            try:
                return self._provided(authority.shares(names), root, roots, live)
            except ValueError as error:
                problem = sentence(error)
        return _stated(live.trust, theirs, problem)

    def _provided(
        self, shares: list[tuple[str, ...]], root: Issuer, roots: list[Issuer], live: Authorities
    ) -> Provided:
        """Return an intermediate per share: the one that there is, or a new one."""
        now = self.clock()
        usable = sorted(_usable([*live.intermediates, *self._minted], roots, now), key=lambda issuer: issuer.ends)
        newest = {issuer.names: issuer for issuer in usable}
        for share in shares:
            if share not in newest or now >= newest[share].renewed_at:
                pair = authority.mint_intermediate(root.pair, self.project, share, now)
                newest[share] = authority.judge(pair, [root])
        issuers = [newest[share] for share in shares]
        self._minted[:] = [issuer.pair for issuer in issuers if issuer.pair not in live.intermediates]
        due = is_due(now, root.begins, root.ends)
        return replace(_stated(bundle(roots), issuers), root_ends=root.ends, root_due=due)

    def kept(self) -> dict[Path, Issuer]:
        """Return the roots that are kept here, by the files with their certificates, the newest first.

        Raises:
            OSError, ValueError: when they can't be read.
        """
        with locked(self.folder, writing=False):
            return {self.folder / f"{_name(issuer)}.crt": issuer for issuer in newest_first(self._kept())}

    def rotate(self, *, at_once: bool = False) -> None:
        """Make a new root. What was signed under the former one remains trusted, unless it is to go at once.

        Agents have to be given the new bundle before the new root signs: it does so a week from now.

        Raises:
            OSError, ValueError: when that is impossible.
        """
        now = self.clock()
        with locked(self.folder, writing=True):
            former = self._kept()
            self._create(now)
            for issuer in former if at_once else ():
                self._remove(issuer)

    def _roots(self, now: float, *, may_create: bool) -> list[Issuer]:
        """Return the roots that agents have to trust, the newest first, and forget all others."""
        issuers = self._kept()
        trusted = authority.trusted(issuers, now)
        if not trusted and may_create:
            trusted = [self._create(now)]
        if self.keeps:
            for issuer in issuers:
                if issuer not in trusted:
                    self._remove(issuer)
        return trusted

    def _kept(self) -> list[Issuer]:
        issuers = [authority.read_root(pair) for pair in self._founded]
        for path in sorted(self.folder.glob(f"{_PREFIX}*.crt")):
            key = path.with_suffix(".key")
            pair = Pair(path.read_bytes(), key.read_bytes() if key.exists() else b"")
            damaged = path
            try:
                issuers.append(authority.read_root(pair))
                damaged = key
                if key.exists():
                    x509.fitting(pair)
            except x509.UNUSABLE:
                raise ValueError(f"{damaged} is damaged: {_REPLACE}") from None
        return issuers

    def _create(self, now: float) -> Issuer:
        pair = authority.mint_root(self.project, now)
        issuer = authority.read_root(pair)
        self._keep(_name(issuer), pair)
        if not self.keeps:
            self._founded.append(pair)
        return issuer

    def _remove(self, root: Issuer) -> None:
        for kind in ("key", "crt"):
            (self.folder / f"{_name(root)}.{kind}").unlink(missing_ok=True)


def _stated(trust: bytes, issuers: Sequence[Issuer], reason: str = "") -> Provided:
    renewed_at = min((issuer.renewed_at for issuer in issuers), default=None)
    return Provided(trust, tuple(issuer.pair for issuer in issuers), reason, renewed_at)


def bundle(roots: Iterable[Issuer]) -> bytes:
    """Return the certificates of roots as PEM, the newest first."""
    return b"".join(issuer.pair.certificate for issuer in newest_first(roots))


def _name(root: Issuer) -> str:
    return f"{_PREFIX}{root.identifier[:_SHOWN]}"


def _usable(pairs: Iterable[Pair], roots: Sequence[Issuer], now: float) -> Iterator[Issuer]:
    for pair in pairs:
        with suppress(ValueError):
            issuer = authority.judge(pair, roots)
            if issuer.begins <= now < issuer.ends:
                yield issuer


def roots_in(trust: bytes) -> Iterator[Issuer]:
    """Yield the roots in a bundle."""
    end = b"-----END CERTIFICATE-----\n"
    for text in trust.split(end)[:-1]:
        with suppress(ValueError):
            yield authority.read_root(Pair(text + end, b""))


def _read_pair(folder: Path, name: str) -> Pair:
    return Pair((folder / f"{name}.crt").read_bytes(), (folder / f"{name}.key").read_bytes())


def sentence(error: OSError | ValueError) -> str:
    """Return why a store can't be used, with the file."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
