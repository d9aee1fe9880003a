"""diff: the files that a sibling reads once, at start, and the records beside them. Pure."""

from collections.abc import Iterator

from clawker_fw.model.differences import Action, Finding, Layer
from clawker_fw.reconcile.compare.files import attribute_findings, file_findings
from clawker_fw.reconcile.compare.pair import SiblingPair
from clawker_fw.stack.container import (
    ATTEMPT,
    COMMITTED,
    GOOD,
    HOT,
    KEPT,
    NO_ATTEMPT,
    SECRETS_AT_REST,
    read_attempt,
)
from clawker_fw.stack.files import AT_REST, FOLDER, RECORD


def findings(pair: SiblingPair) -> Iterator[Finding]:
    """Compare every file that is only read at start. Any further file in the volume is a difference."""
    running = {
        path: file for path, file in pair.files.items() if path not in KEPT and not path.startswith((HOT, GOOD))
    }
    folders = {path: FOLDER for path in running if path.startswith("/")}
    made = pair.applied.boot if pair.applied else {}
    wanted = {**pair.wanted.boot, **folders}
    yield from file_findings(pair, Layer.BOOT, running, wanted, made=made, action=Action.REPLACE)
    for path in sorted(KEPT - {COMMITTED}):
        like = AT_REST if path == SECRETS_AT_REST else RECORD
        yield from attribute_findings(pair, Layer.BOOT, path, like, Action.REPLACE)
    try:
        read_attempt(pair.files.get(ATTEMPT, NO_ATTEMPT).content)
    except ValueError:
        yield pair.unreadable(Layer.BOOT, ATTEMPT, Action.REPLACE, made=pair.by_another_release)
