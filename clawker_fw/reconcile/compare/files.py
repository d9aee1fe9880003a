"""diff: compare the files in a sibling's volume with what they should be. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from clawker_fw.model import Action, Cause, File, Files, Finding, Layer
from clawker_fw.reconcile.compare.container import SiblingComparison
from clawker_fw.stack import labels
from clawker_fw.stack.container import (
    ATTEMPT,
    COMMITTED,
    GOOD,
    HELPER,
    HOT,
    KEPT,
    NO_ATTEMPT,
    RECORDS,
    SECRETS_AT_REST,
    STAGE,
    read_attempt,
)
from clawker_fw.stack.files import AT_REST, FOLDER, RECORD
from clawker_fw.stack.resources import plain

STAGED = STAGE.removesuffix("/")
"""The field of the hot layer that reports what a killed commit has left behind."""

_HIDDEN = ("another content", "this content")
"""A finding has nothing of a secret's content, not even a digest, which would confirm a guess."""


class FileComparison(SiblingComparison):
    """The boot files, the hot files, and the records and copies that `fwctl` keeps."""

    def findings(self) -> Iterator[Finding]:
        """Yield the differences, layer by layer."""
        yield from self._boot()
        yield from self._hot()

    def _boot(self) -> Iterator[Finding]:
        """Compare every file that is only read at start. Any further file in the volume is a difference."""
        running = {path: file for path, file in self._seen.files.items() if _is_boot(path)}
        folders = {path: FOLDER for path in running if path.startswith("/")}
        made = self._applied.boot if self._applied else {}
        yield from self._files(Layer.BOOT, running, {**self._wanted.boot, **folders}, made, Action.REPLACE)
        for path in sorted(KEPT - {COMMITTED}):
            like = AT_REST if path == SECRETS_AT_REST else RECORD
            yield from self._attributes(Layer.BOOT, path, like, Action.REPLACE)
        try:
            read_attempt(self._seen.files.get(ATTEMPT, NO_ATTEMPT).content)
        except ValueError:
            yield self._unreadable(Layer.BOOT, ATTEMPT, Action.REPLACE, made=self._by_another_release)

    def _hot(self) -> Iterator[Finding]:
        """Compare the hot files (without the version of their commit), their record and their copies."""
        running = {
            path: file.saying(plain(file.content))
            for path, file in self._seen.files.items()
            if path.startswith(HOT)
        }
        commit = last_commit(self._seen.files)
        found = list(self._files(Layer.HOT, running, self._wanted.hot, commit.files, Action.COMMIT))
        yield from found
        desired = CommitDigests(
            {path: labels.digest(file.content) for path, file in self._wanted.hot.items()}, self._wanted.live
        )
        if not found and commit != desired:
            # Another release may have recorded fewer resources, or other digests of what it made live.
            same_files = self._by_another_release and commit.files == desired.files
            yield self._finding(
                Layer.HOT, COMMITTED, "another set", "this set", made=same_files, action=Action.COMMIT
            )
        yield from self._attributes(Layer.HOT, COMMITTED, RECORD, Action.COMMIT)
        if commit.files:
            yield from self._good(commit.files)
        if any(path.startswith(STAGE) for path in self._seen.files):
            yield self._finding(
                Layer.HOT, STAGED, "left behind", None, made=True, action=Action.COMMIT, reason=Cause.UPGRADE
            )

    def _good(self, committed: Mapping[str, str]) -> Iterator[Finding]:
        for path, file in self._seen.files.items():
            if not path.startswith(f"{GOOD}{HOT}"):
                continue
            hot = path.removeprefix(GOOD)
            wanted, kept = self._wanted.hot.get(hot), committed.get(hot)
            digest = labels.digest(plain(file.content))
            if kept != digest:
                hidden = file.secret or (wanted is not None and wanted.secret)
                values = _HIDDEN if hidden else (digest, kept)
                yield self._finding(Layer.HOT, path, *values, made=False, action=Action.COMMIT)
            elif wanted is not None:
                yield from self._attributes(Layer.HOT, path, wanted, Action.COMMIT)

    def _files(
        self, layer: Layer, running: Files, wanted: Files, made: Mapping[str, str], action: Action
    ) -> Iterator[Finding]:
        for path in sorted({*running, *wanted}):
            before, after = running.get(path), wanted.get(path)
            if before == after:
                continue
            yield self._finding(
                layer,
                path,
                *value_pair(before, after),
                made=self._made_file(path, before, after, made.get(path)),
                action=action,
                contents=None if path == HELPER else contents(before, after),
            )

    def _made_file(self, path: str, running: File | None, wanted: File | None, recorded: str | None) -> bool:
        """Whether we made a file as it is now, or its absence. Of a secret's content there is no record."""
        if running is None:
            return recorded is None
        if wanted is not None and attribute_pairs(running, wanted) and not self._made_attributes(path, running):
            return False
        if wanted is not None and running.content == wanted.content:
            return True
        if wanted is None and recorded is None and path.startswith(RECORDS):
            return self._by_another_release  # its `fwctl` keeps a record that this release does not know
        return (
            self._by_another_release if recorded == labels.SECRET else labels.digest(running.content) == recorded
        )

    def _made_attributes(self, path: str, file: File) -> bool:
        recorded = self._applied.attributes_of(path) if self._applied else None
        return self._made(labels.attributes(file), recorded)

    def _attributes(self, layer: Layer, path: str, wanted: File, action: Action) -> Iterator[Finding]:
        file = self._seen.files.get(path)
        if file is not None and attribute_pairs(file, wanted):
            yield self._finding(
                layer,
                path,
                *value_pair(file, wanted.saying(file.content)),
                made=self._made_attributes(path.removeprefix(GOOD), file),
                action=action,
            )


@dataclass(frozen=True, slots=True)
class CommitDigests:
    """The digest of each hot file, and of each resource that is live with these files."""

    files: Mapping[str, str]
    live: Mapping[str, str]


def last_commit(files: Files) -> CommitDigests:
    """Return the last commit according to the container's own record, or an empty one if it is unreadable."""
    try:
        record = json.loads(files[COMMITTED].content)
        digests = {HOT + str(file["path"]): f"sha256:{file['sha256']}" for file in record["files"]}
        return CommitDigests(digests, {str(name): str(digest) for name, digest in record["live"].items()})
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return CommitDigests({}, {})


def _is_boot(path: str) -> bool:
    return path not in KEPT and not path.startswith((HOT, GOOD, STAGE))


def value_pair(running: File | None, desired: File | None) -> tuple[str | None, str | None]:
    """Return the running and the desired value of a finding about a file; None for a missing file."""
    if running is None or desired is None:
        return _named(running), _named(desired)
    words = attribute_pairs(running, desired)
    if running.content != desired.content:
        digests = labels.digest(running.content), labels.digest(desired.content)
        words = [_HIDDEN if running.secret or desired.secret else digests, *words]
    return ", ".join(one for one, _ in words), ", ".join(other for _, other in words)


def attribute_pairs(running: File, desired: File) -> list[tuple[str, str]]:
    """Return the modes and owners in which two files differ, as pairs of running and desired value."""
    pairs = ((f"mode {file.mode:04o}", "owner {}:{}".format(*file.owner)) for file in (running, desired))
    return [(one, other) for one, other in zip(*pairs, strict=True) if one != other]


def contents(running: File | None, desired: File | None) -> tuple[bytes, bytes] | None:
    """Return both contents for a diff, or None if they are equal or one is a secret."""
    there = [file for file in (running, desired) if file is not None]
    one, other = (file.content if file is not None else b"" for file in (running, desired))
    return None if one == other or any(file.secret for file in there) else (one, other)


def _named(file: File | None) -> str | None:
    if file is None:
        return None
    return "a secret" if file.secret else labels.digest(file.content)
