"""Progress and errors of pulls, from recorded answers of engines."""

from typing import Any

from clawker_fw.engine.pulling import Transfer


def downloading(layer: str, current: int, total: int) -> dict[str, Any]:
    """Return a line in the engine's form."""
    return {"status": "Downloading", "id": layer, "progressDetail": {"current": current, "total": total}}


def test_the_share_is_of_all_layers_by_their_bytes() -> None:
    """Layers count by size, and are complete when the engine says so. A repeated line is no progress."""
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
    transfer = Transfer()
    assert transfer.take(downloading("a", 1, 2))
    assert not transfer.take(downloading("a", 1, 2))
    assert not transfer.take({})
    assert transfer.take(downloading("b", 1, 2))
    assert not transfer.take(downloading("a", 1, 2))
    assert transfer.take(downloading("a", 2, 2))
