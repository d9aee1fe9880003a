"""Pulling an image: how far it is, by the lines that an engine sends, and why it failed, in words that help.

Pure. The engine asks the registry, not this machine, and hands on what it was told as prose: which words stand for
what was recorded from every engine that is supported (`tests/unit/test_pulling.py`).
"""

import re
from collections.abc import Mapping
from typing import Any

from clawker_fw.errors import EngineError

_LOGIN = ("unauthorized", "authentication required", "no basic auth", "denied", "forbidden", "http 403")
_PLATFORM = ("no matching manifest", "no match for platform")
_BYTES = ("verification failed", "unexpected commit digest", "digest mismatch", "failed size validation")
_ABSENT = ("manifest unknown", "name unknown", "not found")
_CREDENTIALS = ("credentials store",)
_NAMES = re.compile(r'"[^"]*"|https?://\S+|\S*sha256:\S+')
"""What is named in such prose: an image may be called anything."""


class Transfer:
    """How much of an image has arrived: `share`, 0 to 1, by bytes of the layers heard of; it never shrinks."""

    def __init__(self) -> None:
        """Begin without having heard of a layer."""
        self.share = 0.0
        self._layers: dict[str, tuple[int, int]] = {}
        self._said: dict[str, Mapping[str, Any]] = {}

    def take(self, line: Mapping[str, Any]) -> bool:
        """Take in a line; whether it says something new. Engines repeat themselves while nothing arrives."""
        layer, detail = str(line.get("id", "")), line.get("progressDetail") or {}
        if not line or self._said.get(layer) == line:
            return False
        self._said[layer] = line
        match line.get("status"):
            case "Downloading" if detail.get("total", 0) > 0:
                self._layers[layer] = (detail.get("current", 0), detail["total"])
            case "Download complete" if layer in self._layers:
                self._layers[layer] = (self._layers[layer][1],) * 2
        if total := sum(size for _, size in self._layers.values()):
            self.share = max(self.share, sum(done for done, _ in self._layers.values()) / total)
        return True


def registry_of(reference: str) -> str:
    """Return the registry that a reference names, as `docker login` wants it (distribution/reference)."""
    first, slash, _ = reference.partition("/")
    return first if slash and (any(mark in first for mark in ".:") or first == "localhost") else "docker.io"


def stalled(reference: str, seconds: float) -> EngineError:
    """Return the error for a pull of which nothing was heard for so long."""
    return EngineError(
        "pull-stalled",
        f"Nothing more of {reference} has arrived for {seconds:g} s.",
        hint=f"{registry_of(reference)} does not answer the engine. Run again when it does.",
    )


def failure(reference: str, platform: str, words: str) -> EngineError:
    """Return the error for a pull that an engine ended with these words."""
    registry = registry_of(reference)
    said = re.sub(_NAMES, "", words).lower()
    if _has(said, _CREDENTIALS):
        return EngineError(
            "credentials-unreadable",
            f"The credentials for {registry} can't be read.",
            context=[words],
            hint="The docker CLI's config.json names the program that keeps them; does `docker login` work?",
        )
    if _has(said, _BYTES):
        return EngineError(
            "image-other-bytes",
            f"What {registry} sent for {reference} is not what the digest says.",
            context=[words],
            hint="None of it is used. A mirror or cache may be broken, or somebody meddles. Keep the digest.",
        )
    if _has(said, _PLATFORM):
        return EngineError(
            "image-other-platform",
            f"{reference} has nothing for {platform}.",
            context=[words],
            hint="Name an image for the engine's platform, or an index that has it.",
        )
    if _has(said, _LOGIN):
        return EngineError(
            "image-needs-login",
            f"{registry} does not hand out {reference}.",
            context=[words],
            hint=f"`docker login {registry}`, here: its credentials are used. And check the name: "
            "some registries answer so for what they don't have.",
        )
    if _has(said, _ABSENT):
        return EngineError(
            "image-not-found",
            f"{registry} does not have {reference}.",
            context=[words],
            hint="Check the name and the digest in the settings under `images`.",
        )
    return EngineError(
        "image-not-pulled",
        f"The engine could not pull {reference}.",
        context=[words],
        hint=f"The engine asks {registry}, not this machine. Run again when it can be reached from there.",
    )


def _has(said: str, words: tuple[str, ...]) -> bool:
    return any(word in said for word in words)
