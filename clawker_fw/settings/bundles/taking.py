"""Taking bundles from a registry: what is in force, and when something else takes its place.

A registry is asked for the digest under the tag: one request if it is still the one in force. Another one is
pulled by that digest, verified by the keys of the local settings, checked, and kept as the last good one. Whatever
goes wrong, the last good one stays in force.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clawker_fw.errors import FirewallError, SettingsError
from clawker_fw.settings.bundles.keys import PublicKey, public_keys
from clawker_fw.settings.bundles.reference import Reference, parse_reference
from clawker_fw.settings.bundles.store import Bundle, Kept, Problem, Store

if TYPE_CHECKING:
    from clawker_fw.settings.bundles.pulling import Pulled  # what is kept needs none of it
    from clawker_fw.settings.bundles.registry import Repository

MOST_AHEAD = 3600.0
"""How far ahead of this machine's clock a bundle may be made, in seconds: it would outlive its successors."""

Open = Callable[[Reference], "Repository"]
"""Returns the repository of a reference, which is closed after use."""

Check = Callable[["Bundles", Bundle, str], None]
"""Checks that settings would be valid with a bundle that has this text; raises SettingsError."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking for one bundle: whether another one is in force now, or why it could not be had."""

    reference: str
    taken: bool = False
    error: FirewallError | None = None


@dataclass(frozen=True)
class Bundles:
    """The bundles of a project: those that are kept, and the way to their registries."""

    store: Store
    open: Open
    check: Check
    wall: Callable[[], float] = time.time

    def in_force(self, reference: str, keys: Sequence[Path]) -> Kept:
        """Return the bundle in force, without asking for another one. If none is kept, it is pulled.

        Raises:
            SettingsError: when none is kept, and none can be had.
        """
        trusted = public_keys(keys)
        return self._kept(reference, trusted) or self._first(reference, trusted)

    def ask(self, reference: str, keys: Sequence[Path]) -> bool:
        """Ask the registry, and take what it has under the tag. Return whether something else is in force now.

        Raises:
            RegistryError: when it can't be asked.
            SettingsError: when what it has is refused. The last good one stays in force, and has the reason noted.
        """
        trusted = public_keys(keys)
        kept = self._kept(reference, trusted)
        if kept and parse_reference(reference).digest:
            return False  # pinned: nothing else can take its place
        try:
            with self._repository(reference) as (repository, parsed):
                digest = repository.resolve(parsed.manifest)
                if digest is None:
                    raise _absent(parsed)
                if kept and kept.bundle.digest == digest:
                    self._note(reference, None, confirmed=self.wall())
                    return False
                return self._keep(self._taken(repository, parsed, trusted, digest), parsed, trusted)
        except FirewallError as error:
            self._note(reference, Problem(error.code, error.message, self.wall()))
            raise

    def kept(self, reference: str, keys: Sequence[Path]) -> Kept | None:
        """Return what is kept of a reference and was signed with one of these keys, without asking anybody.

        Raises:
            SettingsError: when a key can't be read.
        """
        return self._kept(reference, public_keys(keys))

    def _kept(self, reference: str, keys: Sequence[PublicKey]) -> Kept | None:
        """Return what is kept, if its key is still trusted: who takes a key away means what it has signed."""
        kept = self.store.read(reference)
        return kept if kept and kept.bundle.key in {each.fingerprint for each in keys} else None

    def _first(self, reference: str, keys: Sequence[PublicKey]) -> Kept:
        try:
            with self._repository(reference) as (repository, parsed):
                taken = self._taken(repository, parsed, keys)
                self._keep(taken, parsed, keys)
        except FirewallError as error:
            raise unavailable(reference, error) from error
        return Kept(taken.bundle, taken.text, self.wall())

    def _taken(
        self, repository: "Repository", reference: Reference, keys: Sequence[PublicKey], digest: str = ""
    ) -> "Pulled":
        """Return a bundle that has been pulled, verified and checked."""
        from clawker_fw.settings.bundles.pulling import pulled  # noqa: PLC0415 - only another bundle needs it

        taken = pulled(repository, reference, keys, digest)
        self.check(self, taken.bundle, taken.text)
        return taken

    @contextmanager
    def _repository(self, reference: str) -> Iterator[tuple["Repository", Reference]]:
        parsed = parse_reference(reference)
        repository = self.open(parsed)
        try:
            yield repository, parsed
        finally:
            repository.close()

    def _keep(self, taken: "Pulled", reference: Reference, keys: Sequence[PublicKey]) -> bool:
        """Keep a bundle, if it is not older than the one in force. Return whether its text is another one.

        Raises:
            SettingsError: when it is older, or from the future, or can't be kept.
        """
        now, name = self.wall(), str(reference)
        if taken.bundle.created > now + MOST_AHEAD:
            raise SettingsError(
                "bundle-from-future",
                f"{taken.bundle.name} says that it was made in {taken.bundle.created - now:,.0f} s from now.",
                hint="Set the clock of the machine that pushes, or of this one, and push again.",
            )
        try:
            with self.store.exclusive():
                kept = self._kept(name, keys)
                same = kept is not None and kept.bundle.layer == taken.bundle.layer
                older = kept is not None and taken.bundle.created <= kept.bundle.created
                if kept and older and not (same or reference.digest):
                    raise _older(taken, kept)
                newest = max(taken.bundle.created, kept.bundle.created if kept and same else 0.0)
                self.store.write(Kept(replace(taken.bundle, created=newest), taken.text, now))
                return not same
        except OSError as error:
            raise SettingsError(
                "bundle-unkept",
                f"{taken.bundle.name} can't be kept, so it is not used: {error}.",
                hint=f"The user of this command must be able to write {self.store.folder}.",
            ) from error

    def _note(self, reference: str, problem: Problem | None, confirmed: float | None = None) -> None:
        try:
            self.store.note(reference, problem, confirmed)
        except OSError as error:
            raise SettingsError(
                "bundle-unkept",
                f"What is known of {reference} can't be written down: {error}.",
                hint=f"The user of this command must be able to write {self.store.folder}.",
            ) from error


def _absent(reference: Reference) -> SettingsError:
    from clawker_fw.settings.bundles.pulling import absent  # noqa: PLC0415 - only an error needs it

    return absent(reference)


def unavailable(reference: str, error: FirewallError) -> SettingsError:
    """Return the error that there is no bundle of a reference: none is kept, and none can be had."""
    return SettingsError(
        error.code if isinstance(error, SettingsError) else "bundle-unavailable",
        f"The rules are unknown: no bundle {reference} is kept here, and it can't be had now. {error.message}",
        context=error.context,
        hint=error.hint,
    )


def _older(taken: "Pulled", kept: Kept) -> SettingsError:
    seconds = kept.bundle.created - taken.bundle.created
    return SettingsError(
        "bundle-older",
        f"{taken.bundle.name} is older than what is in force, so it is not used.",
        context=[f"in force is {kept.bundle.digest}, made {seconds:,.0f} s later"],
        hint="To go back on purpose, push the earlier rules again, which makes a newer bundle; or pin the digest "
        "in the local settings file (`oci://…@sha256:…`).",
    )
