"""Progress and errors of pulling an image. Pure.

The engine, not this machine, contacts the registry, and passes on the registry's errors as prose. `_FAILURES` has
messages recorded from every supported engine (`tests/unit/test_pulling.py`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clawker_fw.errors import EngineError

STALLED_SECONDS = 120
"""How long a pull may stall: slow registries are fine, silent ones are not."""


@dataclass(frozen=True, slots=True)
class PullFailure:
    """A kind of failed pull: its error, and the words that identify it, in lower case.

    `message` and `hint` may contain `{reference}`, `{registry}` and `{platform}`.
    """

    code: str
    message: str
    hint: str
    words: tuple[str, ...] = ()


_FAILURES = (
    PullFailure(
        "credentials-unreadable",
        "The credentials for {registry} can't be read.",
        "The docker CLI's config.json names the program that keeps them; does `docker login` work?",
        words=("credentials store",),
    ),
    PullFailure(
        "image-other-bytes",
        "What {registry} sent for {reference} does not match the digest.",
        "The content was discarded. A mirror or cache may be broken, or the content was tampered with. Keep the "
        "digest.",
        words=("verification failed", "unexpected commit digest", "digest mismatch", "failed size validation"),
    ),
    PullFailure(
        "image-other-platform",
        "{reference} has no image for {platform}.",
        "Name an image for the engine's platform, or an index that has one.",
        words=("no matching manifest", "no match for platform"),
    ),
    PullFailure(
        "image-needs-login",
        "{registry} refuses to serve {reference}.",
        "Run `docker login {registry}` on this machine, because its credentials are used. Check the name too: "
        "some registries give the same answer for an image that they don't have.",
        words=("unauthorized", "authentication required", "no basic auth", "denied", "forbidden", "http 403"),
    ),
    PullFailure(
        "image-not-found",
        "{registry} does not have {reference}.",
        "Check the name and the digest in the settings under `images`.",
        words=("manifest unknown", "name unknown", "not found"),
    ),
)
"""Every known kind of failure. The first one whose words occur applies."""

_UNKNOWN_FAILURE = PullFailure(
    "image-not-pulled",
    "The engine could not pull {reference}.",
    "The engine contacts {registry}, not this machine. Run again when the engine can reach it.",
)

_NAMES = re.compile(r'"[^"]*"|https?://\S+|\S*sha256:\S+')
"""Names in such messages, removed before the search, because an image may have any name."""


class Transfer:
    """The progress of a pull: `share`, 0 to 1, of the bytes of all layers known so far. It never shrinks."""

    def __init__(self) -> None:
        self.share = 0.0
        self._layers: dict[str, tuple[int, int]] = {}
        self._last_lines: dict[str, Mapping[str, Any]] = {}

    def take(self, line: Mapping[str, Any]) -> bool:
        """Process a line, and return whether it is new. Engines repeat lines while nothing arrives."""
        layer, detail = str(line.get("id", "")), line.get("progressDetail") or {}
        if not line or self._last_lines.get(layer) == line:
            return False
        self._last_lines[layer] = line
        match line.get("status"):
            case "Downloading" if detail.get("total", 0) > 0:
                self._layers[layer] = (detail.get("current", 0), detail["total"])
            case "Download complete" if layer in self._layers:
                self._layers[layer] = (self._layers[layer][1],) * 2
        if total := sum(size for _, size in self._layers.values()):
            self.share = max(self.share, sum(done for done, _ in self._layers.values()) / total)
        return True


def registry_of(reference: str) -> str:
    """Return the registry of a reference, as `docker login` takes it (distribution/reference)."""
    first, slash, _ = reference.partition("/")
    return first if slash and (any(mark in first for mark in ".:") or first == "localhost") else "docker.io"


def failure(reference: str, platform: str, words: str) -> EngineError:
    """Return the error for a pull that ended with this message of the engine."""
    message = re.sub(_NAMES, "", words).lower()
    kinds = (kind for kind in _FAILURES if any(word in message for word in kind.words))
    kind = next(kinds, _UNKNOWN_FAILURE)
    fields = {"reference": reference, "registry": registry_of(reference), "platform": platform}
    return EngineError(kind.code, kind.message.format(**fields), context=[words], hint=kind.hint.format(**fields))
