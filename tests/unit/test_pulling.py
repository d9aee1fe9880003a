"""Pulls by what engines said of them: how far they are, and why they failed."""

from typing import Any

import pytest

from clawker_fw.engine.pulling import Transfer, registry_of

REFERENCE = "registry.test:5000/envoy@sha256:" + "0" * 64


def downloading(layer: str, current: int, total: int) -> dict[str, Any]:
    """Return a line as engines send it."""
    return {"status": "Downloading", "id": layer, "progressDetail": {"current": current, "total": total}}


def test_the_share_is_of_all_layers_by_their_bytes() -> None:
    """Each layer counts by its size, and is done when it is said to be."""
    transfer = Transfer()
    shares = []
    for line in (
        {"status": "Pulling from envoy", "id": "sha256:00"},
        downloading("a", 10, 100),
        downloading("b", 0, 300),
        downloading("b", 150, 300),
        {"status": "Download complete", "id": "b", "progressDetail": {}},
        {"status": "Extracting", "id": "b", "progressDetail": {"current": 1, "total": 300}},
        {"status": "Already exists", "id": "c", "progressDetail": {}},
        {"status": "Download complete", "id": "a"},
        {"status": "Digest: sha256:00"},
    ):
        assert transfer.take(line)
        shares.append(transfer.share)
    assert shares == [0, 0.1, 0.1, 0.4, 0.775, 0.775, 0.775, 1, 1]


def test_a_share_never_shrinks() -> None:
    """A layer that is heard of late makes the whole larger, not what has arrived smaller."""
    transfer = Transfer()
    for line in (downloading("a", 90, 100), downloading("b", 0, 900), downloading("b", 900, 900)):
        transfer.take(line)
        assert transfer.share >= 0.9
    assert transfer.share == 0.99


def test_what_says_nothing_new() -> None:
    """A line that is repeated, or empty, is no sign of life; the same bytes of another layer are one."""
    transfer = Transfer()
    assert transfer.take(downloading("a", 1, 2))
    assert not transfer.take(downloading("a", 1, 2))
    assert not transfer.take({})
    assert transfer.take(downloading("b", 1, 2))
    assert not transfer.take(downloading("a", 1, 2))
    assert transfer.take(downloading("a", 2, 2))


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("envoyproxy/envoy@sha256:0", "docker.io"),
        ("envoy@sha256:0", "docker.io"),
        ("registry.test/envoy:1@sha256:0", "registry.test"),
        ("localhost/envoy@sha256:0", "localhost"),
        ("registry:5000/a/b@sha256:0", "registry:5000"),
    ],
)
def test_the_registry_of_a_reference(reference: str, registry: str) -> None:
    """The first part is a registry when it looks like a host."""
    assert registry_of(reference) == registry
