"""Edits the rules of a settings file in place, atomically: locked against other editors, and validated first."""

import fcntl
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from clawker_fw.errors import MistakesError, RefusedError, SettingsError, unwritable_settings
from clawker_fw.private_files import write_private
from clawker_fw.settings.document import document_of
from clawker_fw.settings.edit.edits import EditOutcome, EditResult, Written, placed
from clawker_fw.settings.edit.splice import KEY, Edit, spliced
from clawker_fw.settings.environment import RULES_VARIABLE
from clawker_fw.settings.files import read_bytes, resolved, text_of
from clawker_fw.settings.find import find
from clawker_fw.settings.groups import own_location, own_values
from clawker_fw.settings.loaded import Loaded
from clawker_fw.settings.sources import Source, joined, sources
from clawker_fw.settings.validation import validated

Decide = Callable[[Sequence[Written]], tuple[Edit, Sequence[EditResult]]]
"""Decides an edit from the existing rules."""


@dataclass(frozen=True, slots=True)
class Edited:
    """The result of an edit, written or not: the settings and the file's content, before and after."""

    path: Path
    results: Sequence[EditResult]
    before: Loaded
    after: Loaded
    contents: tuple[bytes, bytes]

    @property
    def changed(self) -> bool:
        """Whether the content differs."""
        return self.contents[0] != self.contents[1]


def edit(
    named: Path | None,
    environment: Mapping[str, str],
    decide: Decide,
    *,
    write: bool,
    group: str | None = None,
) -> Edited:
    """Edit the rules of the top level or of a group in the named settings file, or the one on the search path.

    Without `write`, the file stays unchanged.

    Raises:
        SettingsError: when there is no file, or the settings are invalid before or after the edit.
        RefusedError: when a rule in another place would have to change, or the file was changed meanwhile.
    """
    path, located = _editable(named, environment)
    target = resolved(path)
    settings = _File(path, located, environment, group)
    if not write:
        return _edited(settings, decide, read_bytes(target))
    with _locked(target) as content:
        done = _edited(settings, decide, content)
        if done.changed:
            _replace(target, content, done.contents[1])
    return done


@dataclass(frozen=True)
class Editable:
    """The existing rules with their places, and the file that commands edit."""

    path: Path
    entries: tuple[Written, ...]
    text: str
    group: str | None = None

    @cache  # noqa: B019 - it lives only as long as a command
    def fits(self, position: int | None) -> bool:
        """Whether the file's form allows a change of the rule at a position in place, or else a further rule."""
        change = Edit(added=[{"dst": "a.test"}]) if position is None else Edit(changed={position: {"note": "x"}})
        try:
            spliced(self.text, change, str(self.path), self.group)
        except SettingsError:
            return False
        return True


def editable(named: Path | None, environment: Mapping[str, str], group: str | None = None) -> Editable:
    """Return what commands can edit. Raise SettingsError if there is no file, or the settings are invalid."""
    entries: list[Written] = []

    def see(rules: Sequence[Written]) -> tuple[Edit, Sequence[EditResult]]:
        entries.extend(rules)
        return Edit(), ()

    done = edit(named, environment, see, write=False, group=group)
    return Editable(done.path, tuple(entries), text_of(done.contents[0], done.path), group)


def _editable(named: Path | None, environment: Mapping[str, str]) -> tuple[Path, str]:
    path, located = find(named)
    if path is None:
        raise SettingsError(
            "settings-not-found", "There is no settings file to edit.", hint="Write one with `clawker-fw init`."
        )
    if RULES_VARIABLE in environment:
        raise SettingsError(
            "rules-in-environment",
            f"The rules come from the variable {RULES_VARIABLE}, so an edit of {path} would have no effect.",
            hint="Unset the variable.",
        )
    return path, located


@dataclass(frozen=True, slots=True)
class _File:
    """A settings file, where it was found, and the group whose rules are edited."""

    path: Path
    located: str
    environment: Mapping[str, str]
    group: str | None

    def validated(self, read: tuple[Source, ...]) -> Loaded:
        return validated(read, self.located, self.environment, self.group)


def _edited(settings: _File, decide: Decide, content: bytes) -> Edited:
    path, location = settings.path, own_location(settings.group)
    first, *others = sources(path)
    read = (replace(first, text=text_of(content, path)), *others)
    before = settings.validated(read)
    document = joined(read, settings.group)
    places = [document.place((KEY, position)) for position in range(len(before.settings.rules))]
    own = own_values(document_of(read[0].text, path).values, location).get(KEY, [])
    rules = enumerate(zip(before.settings.rules, places, strict=True))
    entries = [
        Written(entry.rule(place), number if number < len(own) else None) for number, (entry, place) in rules
    ]
    entries += [Written(rule, None) for rule in before.rules.rules if rule.preset]
    change, results = decide(entries)
    if change.empty:
        return Edited(path, results, before, before, (content, content))
    new = spliced(content.decode(), change, str(path), settings.group).encode()
    kept = (place for position, place in enumerate(places[: len(own)]) if position not in change.removed)
    added = (result.place for result in results if result.outcome is EditOutcome.ADDED)
    read = (replace(first, text=text_of(new, path)), *others)
    after = _validated(settings, read, (*kept, *added))
    document = document_of(read[0].text, path)
    own = own_values(document.values, location).get(KEY, ())
    places = [document.place((*location, KEY, position)) for position in range(len(own))]
    return Edited(path, placed(results, places), before, after, (content, new))


def _validated(settings: _File, read: tuple[Source, ...], origins: tuple[str, ...]) -> Loaded:
    """Validate edited settings before they are written. Errors name where each rule comes from.

    All errors are listed, because no other command can show the rest.
    """
    with suppress(SettingsError):
        return settings.validated(read)
    try:
        return settings.validated((replace(read[0], origins=origins), *read[1:]))
    except MistakesError as error:
        raise error.in_full() from error


@contextmanager
def _locked(path: Path) -> Iterator[bytes]:
    """Lock a settings file against other editors of ours, and yield its content.

    The lock is on the file itself. If the file was replaced while we waited, start over.
    """
    while True:
        read_bytes(path)  # reports a missing file like other commands
        try:
            file = path.open("rb+", buffering=0)  # an NFS server locks only files open for writing
        except OSError as error:
            raise unwritable_settings(path, error) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            same = False
            with suppress(FileNotFoundError):
                same = os.path.samestat(path.stat(), os.fstat(file.fileno()))
            if same:
                yield read_bytes(path)
                return


def _replace(path: Path, before: bytes, after: bytes) -> None:
    """Replace a file atomically, keeping its mode, owner and attributes."""

    def prepare(fresh: int) -> None:
        _resemble(fresh, path)
        if path.read_bytes() != before:
            raise RefusedError(
                "settings-changed", f"{path} was changed by another program meanwhile.", hint="Run it again."
            )

    try:
        write_private(path, after, prepare=prepare)
    except OSError as error:
        raise unwritable_settings(path, error) from error


def _resemble(fresh: int, old: Path) -> None:
    was, now = old.stat(), os.fstat(fresh)
    if (was.st_uid, was.st_gid) != (now.st_uid, now.st_gid):
        os.fchown(fresh, was.st_uid, was.st_gid)
    names: list[str] = []
    if sys.platform == "linux":
        with suppress(OSError):  # the file system does not support them
            names = os.listxattr(old)
    for name in names:
        with suppress(OSError):  # only the system may set some of them
            os.setxattr(fresh, name, os.getxattr(old, name))
    os.fchmod(fresh, stat.S_IMODE(was.st_mode))
