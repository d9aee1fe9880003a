"""Which root and intermediates a stack inspects connections with: kept here, live in its Envoy, or newly made.

The key of a root is on this machine alone, in the user's state folder. The key of an intermediate is in Envoy's
container alone: what is live there is used until it is due.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from clawker_fw.certificates import authority
from clawker_fw.certificates.authority import Intermediate, Root
from clawker_fw.certificates.credentials import NO_AUTHORITIES, Authorities, Pair, Provided
from clawker_fw.certificates.folder import keep_pair
from clawker_fw.certificates.validity import is_due
from clawker_fw.private_files import locked, write_private

_PREFIX = "inspection-"
"""The name of a root's pair begins with it, and ends with a part of its fingerprint."""

BUNDLE = f"{_PREFIX}roots.pem"
"""The certificates of all roots that agents have to trust."""

_TOLD = 16


@dataclass(frozen=True)
class InspectionStore:
    """The roots of one project.

    Only a store that `keeps` writes. Another one mints what it lacks in memory, to show what a run would do.
    """

    folder: Path
    project: str
    keeps: bool = False
    clock: Callable[[], float] = field(default=time.time, compare=False, repr=False)
    _minted: list[Pair] = field(default_factory=list, init=False, compare=False, repr=False)
    """Intermediates that were made here and are not live yet: a run asks several times."""
    _founded: list[Pair] = field(default_factory=list, init=False, compare=False, repr=False)
    """Roots that are not kept."""

    def provide(self, names: Iterable[str], live: Authorities = NO_AUTHORITIES) -> Provided:
        """Return what a stack needs to inspect connections to these names and those below. Never raises."""
        now, problem = self.clock(), ""
        roots: list[Root] = []
        try:
            with locked(self.folder, writing=self.keeps):
                roots = self._roots(now, may_found=not live.intermediates)
        except (OSError, ValueError) as error:
            problem = _sentence(error)
        root = authority.signing(roots, now)
        others = list(roots_in(live.trust))
        theirs = list(_usable(live.intermediates, others, now))
        if root is None:
            problem = problem or f"{self.folder} has no key of a valid root: that may be on another machine"
        elif theirs and _newest(others) > _newest(roots):
            problem = "the root of what is live is on another machine, and newer than the one here"
        else:
            try:
                return self._provided(authority.shares(names), root, roots, live)
            except ValueError as error:
                problem = _sentence(error)
        return _stated(live.trust, theirs, problem)

    def _provided(
        self, shares: list[tuple[str, ...]], root: Root, roots: list[Root], live: Authorities
    ) -> Provided:
        """Return an intermediate for each share: the one that there is, or a new one.

        Raises:
            ValueError: when the root can't sign.
        """
        now = self.clock()
        known = sorted(_usable([*live.intermediates, *self._minted], roots, now), key=lambda each: each.ends)
        newest = {each.names: each for each in known}
        for share in shares:
            if share not in newest or now >= newest[share].renewed_at:
                pair = authority.mint_intermediate(root.pair, self.project, share, now)
                newest[share] = authority.judge(pair, [root])
        found = [newest[share] for share in shares]
        self._minted[:] = [each.pair for each in found if each.pair not in live.intermediates]
        stated = _stated(bundle(roots), found, "")
        return replace(stated, root_ends=root.ends, root_due=is_due(now, root.begins, root.ends))

    def kept(self) -> tuple[Root, ...]:
        """Return the roots that are kept here, the newest first.

        Raises:
            OSError, ValueError: when they can't be read.
        """
        with locked(self.folder, writing=False):
            return tuple(sorted(self._kept(), key=lambda each: each.made, reverse=True))

    @property
    def damaged(self) -> tuple[Path, ...]:
        """The files of roots that a power loss has emptied, or that have something else in them.

        Raises:
            OSError: when one can't be read.
        """
        return tuple(self._damaged())

    def rotate(self, *, at_once: bool = False, live: bytes = b"") -> None:
        """Make a new root. What was signed under the former one remains trusted, unless it is to go at once.

        Agents have to be given the new bundle before the new root signs: it does so a week from now. Damaged files
        are repaired: a certificate from the bundle here or from the one that is `live`, and a key not at all.

        Raises:
            OSError, ValueError: when that is impossible.
        """
        now = self.clock()
        with locked(self.folder, writing=True):
            self._repair(live)
            former = self._kept()
            found = self._found(now)
            if at_once:
                for each in former:
                    self._remove(each)
                former = []
            self._write_bundle([found, *former])

    def _roots(self, now: float, *, may_found: bool) -> list[Root]:
        """Return the roots that agents have to trust, the newest first, and forget all others.

        Raises:
            OSError, ValueError: when they can't be read, or a new one can't be kept.
        """
        found = self._kept()
        trusted = authority.trusted(found, now)
        if not trusted and may_found:
            trusted = [self._found(now)]
        if self.keeps:
            for each in found:
                if each not in trusted:
                    self._remove(each)
            self._write_bundle(trusted)
        return trusted

    def _kept(self) -> list[Root]:
        if damaged := self.damaged:
            raise ValueError(f"{damaged[0]} is damaged; `clawker-fw ca rotate` repairs it and makes a new root")
        found = [authority.read_root(each) for each in self._founded]
        found += [authority.read_root(pair) for _, pair in self._pairs()]
        return found

    def _pairs(self) -> Iterator[tuple[Path, Pair]]:
        """Yield the path of each root's certificate, and its pair. A key that is not here is empty."""
        for path in sorted(self.folder.glob(f"{_PREFIX}*.crt")):
            key = path.with_suffix(".key")
            yield path, Pair(path.read_bytes(), key.read_bytes() if key.exists() else b"")

    def _damaged(self) -> Iterator[Path]:
        for path, pair in self._pairs():
            if not authority.is_certificate(pair.certificate):
                yield path
            elif path.with_suffix(".key").exists() and not authority.fits(pair):
                yield path.with_suffix(".key")

    def _repair(self, live: bytes) -> None:
        """Write certificates again that a bundle has, and remove the files that are damaged even so."""
        here = {path.stem for kind in ("crt", "key") for path in self.folder.glob(f"{_PREFIX}*.{kind}")}
        for trust in (live, self._bundle()):
            for root in roots_in(trust):
                if _name(root) in here:
                    write_private(self.folder / f"{_name(root)}.crt", root.pair.certificate)
        for path in self.damaged:
            path.unlink()

    def _bundle(self) -> bytes:
        try:
            return (self.folder / BUNDLE).read_bytes()
        except FileNotFoundError:
            return b""

    def _found(self, now: float) -> Root:
        pair = authority.mint_root(self.project, now)
        found = authority.read_root(pair)
        if self.keeps:
            keep_pair(self.folder, _name(found), pair)
        else:
            self._founded.append(pair)
        return found

    def _remove(self, root: Root) -> None:
        for kind in ("key", "crt"):
            (self.folder / f"{_name(root)}.{kind}").unlink(missing_ok=True)

    def _write_bundle(self, roots: Iterable[Root]) -> None:
        path, content = self.folder / BUNDLE, bundle(roots)
        if self._bundle() != content:
            write_private(path, content)


def _stated(trust: bytes, found: Sequence[Intermediate], reason: str) -> Provided:
    renewed_at = min((each.renewed_at for each in found), default=None)
    return Provided(trust, tuple(each.pair for each in found), reason, renewed_at)


def bundle(roots: Iterable[Root]) -> bytes:
    """Return the certificates of roots as PEM, the newest first."""
    newest_first = sorted(roots, key=lambda each: each.made, reverse=True)
    return b"".join(each.pair.certificate for each in newest_first)


def _newest(roots: Iterable[Root]) -> float:
    return max((each.made for each in roots), default=0)


def _name(root: Root) -> str:
    return f"{_PREFIX}{root.identifier[:_TOLD]}"


def _usable(pairs: Iterable[Pair], roots: Sequence[Root], now: float) -> Iterator[Intermediate]:
    """Yield the intermediates that are under a root and valid now."""
    for pair in pairs:
        with suppress(ValueError):
            found = authority.judge(pair, roots)
            if found.begins <= now < found.ends:
                yield found


def roots_in(trust: bytes) -> Iterator[Root]:
    """Yield the roots in a bundle."""
    end = b"-----END CERTIFICATE-----\n"
    for text in trust.split(end)[:-1]:
        with suppress(ValueError):
            yield authority.read_root(Pair(text + end, b""))


def _sentence(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
