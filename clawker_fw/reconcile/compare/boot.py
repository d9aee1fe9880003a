"""diff: a sibling's startup files, and the records beside them. Pure."""

from collections.abc import Iterator

from clawker_fw.model.differences import LEFTOVER, Action, Cause, Finding, Layer
from clawker_fw.model.files import Files
from clawker_fw.reconcile.compare.files import attribute_findings, file_findings
from clawker_fw.reconcile.compare.hot import last_commit
from clawker_fw.reconcile.compare.pair import SiblingPair
from clawker_fw.stack import labels
from clawker_fw.stack.container import (
    ATTEMPT,
    COMMITTED,
    GOOD,
    HOT,
    KEPT,
    NO_ATTEMPT,
    SECRETS_AT_REST,
    STAGE,
    read_attempt,
)
from clawker_fw.stack.files import AT_REST, FOLDER, RECORD
from clawker_fw.stack.resources import plain


def findings(pair: SiblingPair) -> Iterator[Finding]:
    """Compare each startup file. Any further file in the volume is a difference."""
    staged = _staged(pair.files)
    running = {
        path: file
        for path, file in pair.files.items()
        if path not in KEPT | staged and not path.startswith((HOT, GOOD))
    }
    folders = {path: FOLDER for path in running if path.startswith("/")}
    made = pair.applied.boot if pair.applied else {}
    desired = {**pair.desired_sibling.boot, **folders}
    yield from file_findings(pair, Layer.BOOT, running, desired, made=made, action=Action.REPLACE)
    for path in sorted(KEPT - {COMMITTED}):
        like = AT_REST if path == SECRETS_AT_REST else RECORD
        yield from attribute_findings(pair, Layer.BOOT, path, like, Action.REPLACE)
    try:
        read_attempt(pair.files.get(ATTEMPT, NO_ATTEMPT).content)
    except ValueError:
        yield pair.unreadable(Layer.BOOT, ATTEMPT, Action.REPLACE, made=pair.by_another_release)
    if staged:
        what, cause = f"{LEFTOVER}{STAGE}", Cause.UPGRADE
        yield pair.finding(Layer.BOOT, what, "a commit", None, made=True, cause=cause, action=Action.REPLACE)


def _staged(files: Files) -> frozenset[str]:
    """Return the paths of a commit staged by an earlier release, which another release's helper never removes."""
    staged = {path.removeprefix(STAGE): file for path, file in files.items() if path.startswith(STAGE)}
    record = staged.pop("commit.json", None)
    digests = {path: labels.digest(plain(file.content)) for path, file in staged.items()}
    complete = record is not None and digests == last_commit({COMMITTED: record}).files
    return frozenset(path for path in files if path.startswith(STAGE)) if complete and digests else frozenset()
