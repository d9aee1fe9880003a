"""diff: a sibling's dynamic files, their record, and their last good copies. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from clawker_fw.model.differences import Action, Finding, Layer
from clawker_fw.model.files import Files
from clawker_fw.reconcile.compare.files import HIDDEN, attribute_findings, file_findings
from clawker_fw.reconcile.compare.pair import SiblingPair
from clawker_fw.stack import labels
from clawker_fw.stack.container import COMMITTED, GOOD, HOT
from clawker_fw.stack.files import RECORD, read_record
from clawker_fw.stack.resources import plain


@dataclass(frozen=True, slots=True)
class CommitDigests:
    """The digests of each dynamic file, and of each resource that is live with these files."""

    files: Mapping[str, str]
    live: Mapping[str, str]


def last_commit(files: Files) -> CommitDigests:
    """Return the last commit from the container's record, or an empty one if it is unreadable."""
    try:
        record = read_record(files[COMMITTED].content)
        digests = {HOT + str(file["path"]): f"sha256:{file['sha256']}" for file in record["files"]}
        return CommitDigests(digests, {str(name): str(digest) for name, digest in record["live"].items()})
    except (AttributeError, KeyError, TypeError, ValueError):
        return CommitDigests({}, {})


def findings(pair: SiblingPair) -> Iterator[Finding]:
    """Compare the dynamic files (without their commit's version), their record and their copies."""
    running = {path: file.saying(plain(file.content)) for path, file in pair.files.items() if path.startswith(HOT)}
    commit = last_commit(pair.files)
    hot = file_findings(
        pair, Layer.HOT, running, pair.desired_sibling.hot, made=commit.files, action=Action.COMMIT
    )
    differing = list(hot)
    yield from differing
    digests = {path: file.digest for path, file in pair.desired_sibling.hot.items()}
    desired = CommitDigests(digests, pair.desired_sibling.live)
    if not differing and commit != desired:
        # Another release may have recorded fewer resources, or other digests of what it made live.
        same_files = pair.by_another_release and commit.files == desired.files
        yield pair.finding(Layer.HOT, COMMITTED, "another set", "this set", made=same_files, action=Action.COMMIT)
    yield from attribute_findings(pair, Layer.HOT, COMMITTED, RECORD, Action.COMMIT)
    if commit.files:
        yield from _copies(pair, commit.files)


def _copies(pair: SiblingPair, committed: Mapping[str, str]) -> Iterator[Finding]:
    copies = {path for path in pair.files if path.startswith(f"{GOOD}{HOT}")}
    if pair.container.status != "created":  # the helper makes the copies when it starts
        copies |= {f"{GOOD}{hot}" for hot in committed}
    for path in sorted(copies):
        hot = path.removeprefix(GOOD)
        file, desired, recorded = pair.files.get(path), pair.desired_sibling.hot.get(hot), committed.get(hot)
        digest = None if file is None else labels.digest(plain(file.content))
        if recorded != digest:
            hidden = any(version is not None and version.secret for version in (file, desired))
            running, expected = HIDDEN if hidden else (digest, recorded)
            running = running if file else None
            yield pair.finding(Layer.HOT, path, running, expected, made=False, action=Action.COMMIT)
        elif desired is not None:
            yield from attribute_findings(pair, Layer.HOT, path, desired, Action.COMMIT)
