"""diff: files in a sibling's volume: their content, their mode and their owner. Pure."""

from collections.abc import Iterator, Mapping

from clawker_fw.model.differences import Action, Finding, Layer
from clawker_fw.model.files import File, Files
from clawker_fw.reconcile.compare.pair import SiblingPair
from clawker_fw.stack import labels
from clawker_fw.stack.container import GOOD, HELPER, RECORDS

HIDDEN = ("another content", "this content")
"""A finding never shows a secret's content. Even a digest would confirm a guess."""


def file_findings(
    pair: SiblingPair,
    layer: Layer,
    running: Files,
    desired: Files,
    *,
    made: Mapping[str, str],
    action: Action,
) -> Iterator[Finding]:
    """Yield differing, missing and extra files. `made` has the recorded digests by path."""
    for path in sorted({*running, *desired}):
        before, after = running.get(path), desired.get(path)
        if before == after:
            continue
        yield pair.finding(
            layer,
            path,
            *_value_pair(before, after),
            made=_made_file(pair, path, before, after, made.get(path)),
            action=action,
            contents=None if path == HELPER else _contents(before, after),
        )


def attribute_findings(
    pair: SiblingPair, layer: Layer, path: str, desired: File, action: Action
) -> Iterator[Finding]:
    """Yield the difference of a file's mode and owner, whatever its content."""
    file = pair.files.get(path)
    if file is not None and _attribute_pairs(file, desired):
        yield pair.finding(
            layer,
            path,
            *_value_pair(file, desired.saying(file.content)),
            made=_made_attributes(pair, path.removeprefix(GOOD), file),
            action=action,
        )


def _made_file(
    pair: SiblingPair, path: str, running: File | None, desired: File | None, recorded: str | None
) -> bool:
    """Whether we made a file, or its absence, as it is now. No record holds a secret's content."""
    if running is None:
        return recorded is None
    if desired is not None and _attribute_pairs(running, desired) and not _made_attributes(pair, path, running):
        return False
    if desired is not None and running.content == desired.content:
        return True
    if desired is None and recorded is None and path.startswith(RECORDS):
        return pair.by_another_release  # its `fwctl` keeps a record that this release does not know
    if recorded == labels.SECRET:
        return pair.by_another_release
    return running.digest == recorded


def _made_attributes(pair: SiblingPair, path: str, file: File) -> bool:
    recorded = pair.applied.attributes_of(path) if pair.applied else None
    return pair.made(labels.attributes(file), recorded)


def _value_pair(running: File | None, desired: File | None) -> tuple[str | None, str | None]:
    """Return the running and the desired value for a finding. None is a missing file."""
    if running is None or desired is None:
        return _named(running), _named(desired)
    words = _attribute_pairs(running, desired)
    if running.content != desired.content:
        digests = running.digest, desired.digest
        words = [HIDDEN if running.secret or desired.secret else digests, *words]
    return ", ".join(one for one, _ in words), ", ".join(other for _, other in words)


def _attribute_pairs(running: File, desired: File) -> list[tuple[str, str]]:
    """Return the differing modes and owners, as pairs of running and desired value."""
    pairs = ((f"mode {file.mode:04o}", "owner {}:{}".format(*file.owner)) for file in (running, desired))
    return [(one, other) for one, other in zip(*pairs, strict=True) if one != other]


def _contents(running: File | None, desired: File | None) -> tuple[bytes, bytes] | None:
    """Return both contents for a diff, or None if they are equal or one is a secret."""
    if any(file is not None and file.secret for file in (running, desired)):
        return None
    one, other = (file.content if file is not None else b"" for file in (running, desired))
    return None if one == other else (one, other)


def _named(file: File | None) -> str | None:
    if file is None:
        return None
    return "a secret" if file.secret else file.digest
