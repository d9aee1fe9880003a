"""Two versions of a file of a sibling: the settings that differ in it, and unified diffs."""

import contextlib
import difflib
import json
from collections.abc import Iterator

from clawker_fw.model import Finding, Sibling
from clawker_fw.stack import resources

_CONTEXT = 2
_LARGE = 100_000
"""Size in bytes above which JSON is only broken into lines: indenting it takes many times as long."""

_BREAK_AFTER = ",{["
_VERSION = '"version_info":'

_LIMITS = {
    name: f"limits.{name}"
    for name in ("connections", "connections_per_second", "datagrams_per_second", "queries_per_second")
}
_SETTINGS = {
    Sibling.ENVOY: {**_LIMITS, "all_connections": "resources.envoy.connections"},
    Sibling.COREDNS: {
        **_LIMITS,
        "connections": "limits.resolver_connections",
        "all_connections": "resources.coredns.connections",
    },
}
"""The settings by what they are called among the limits in the file with what a sibling's helper does."""


def changed_settings(finding: Finding) -> Iterator[str]:
    """Yield the settings whose values differ in a finding's files: `limits.connections 1024 → 500`."""
    if finding.field == resources.SIBLING:
        before, after = map(_limits, finding.contents or (b"", b""))
        for name, setting in _SETTINGS[finding.sibling].items():
            if before.get(name) != after.get(name):
                yield f"{setting} {before.get(name)} → {after.get(name)}"


def _limits(content: bytes) -> dict[str, object]:
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        return dict(json.loads(content)["limits"])
    return {}


def unified_diff(finding: Finding) -> Iterator[str]:
    """Return a unified diff of a finding's files. JSON is broken into lines first.

    The version in Envoy's files is left out: it changes with every commit, and has findings of its own.
    """
    old = f"running {finding.field}" if finding.running is not None else "/dev/null"
    new = f"desired {finding.field}" if finding.desired is not None else "/dev/null"
    before, after = map(_lines, finding.contents or (b"", b""))
    return difflib.unified_diff(before, after, old, new, n=_CONTEXT)


def _lines(content: bytes) -> list[str]:
    text = content.decode(errors="backslashreplace")
    if text.startswith("{") and text.count("\n") <= 1:
        if len(content) > _LARGE:
            for mark in _BREAK_AFTER:  # many times as fast as `translate`
                text = text.replace(mark, f"{mark}\n")
            return [f"{line}\n" for line in text.splitlines() if not line.startswith(_VERSION)]
        with contextlib.suppress(ValueError):
            document = json.loads(text)
            document.pop("version_info", None)
            text = json.dumps(document, indent=1, sort_keys=True)
    return [f"{line}\n" for line in text.splitlines()]
