"""The progress and errors of pulls, from recorded answers of engines."""

from typing import Any

import pytest

from clawker_fw.engine.pulling import Transfer, failure, registry_of

DIGEST = "sha256:" + "0401" * 16
NAME = "registry.test:5000/denied/forbidden/not-found"
REFERENCE = f"{NAME}:1@{DIGEST}"
URL = f"http://registry.test:5000/v2/denied/forbidden/not-found/manifests/{DIGEST}"
UNRESOLVED = f'failed to resolve reference "{NAME}@{DIGEST}": '

WORDS = (
    # the classic image store: 20.10.24, 26.1.5, 28.5.2
    (
        f"pull access denied for {NAME}, repository does not exist or may require 'docker login'",
        "image-needs-login",
    ),
    (f'Get "{URL}": dial tcp 127.0.0.1:5000: connect: connection refused', "image-not-pulled"),
    # the containerd image store: 28.5.2
    (
        (
            "no matching manifest for linux/amd64 in the manifest list entries: no match for platform in "
            "manifest: not found"
        ),
        "image-other-platform",
    ),
    (
        (
            f"{UNRESOLVED}pull access denied, repository does not exist or may require authorization: "
            "authorization failed: no basic auth credentials"
        ),
        "image-needs-login",
    ),
    (f"unknown: {UNRESOLVED}unexpected status from HEAD request to {URL}: 403 Forbidden", "image-needs-login"),
    (f"{UNRESOLVED}{NAME}@{DIGEST}: not found", "image-not-found"),
    (
        f"unknown: {UNRESOLVED}unexpected status from HEAD request to {URL}: 500 Internal Server Error",
        "image-not-pulled",
    ),
    (
        (
            f'failed commit on ref "manifest-{DIGEST}": commit failed: unexpected commit digest sha256:1, '
            f"expected {DIGEST}: failed precondition"
        ),
        "image-other-bytes",
    ),
    # the Docker SDK
    (
        "Credentials store error: StoreError('Credentials store docker-credential-x exited')",
        "credentials-unreadable",
    ),
)


def downloading(layer: str, current: int, total: int) -> dict[str, Any]:
    """Return a line in the engine's form."""
    return {"status": "Downloading", "id": layer, "progressDetail": {"current": current, "total": total}}


def test_the_share_is_of_all_layers_by_their_bytes() -> None:
    """Layers count by their size, and one is complete when the engine says so. A repeated line is no progress."""
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


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("envoyproxy/envoy@sha256:0", "docker.io"),
        ("localhost/envoy@sha256:0", "localhost"),
        ("registry:5000/a/b@sha256:0", "registry:5000"),
    ],
)
def test_the_registry_of_a_reference(reference: str, registry: str) -> None:
    """The first part of a reference is a registry if it looks like a host."""
    assert registry_of(reference) == registry


@pytest.mark.parametrize(("words", "code"), WORDS)
def test_words_have_one_meaning(words: str, code: str) -> None:
    """Each recorded error has its code and is in the context. An image's name does not influence the code."""
    error = failure(REFERENCE, "linux/amd64", words)
    assert error.code == code
    assert error.context == (words,)
    assert error.hint
    assert "registry.test:5000" in error.message
