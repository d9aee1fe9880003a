"""The build SHA covers everything that decides what the siblings are, and nothing else."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clawker_fw.digests import Digests
from clawker_fw.stack.release import Release
from devkit import stacks

CHANGED = ["stack/coredns.py", "templates/Corefile.j2", "templates/Corefile.j2", "bin/fwctl-linux-arm64"]


@pytest.mark.parametrize("path", CHANGED)
def test_each_file_of_the_subset_counts(path: str, release: Release, tmp_path: Path) -> None:
    """It covers code, templates and programs of every architecture."""
    other = stacks.copied_release(tmp_path)
    assert other.build_sha == release.build_sha
    stacks.change_file(other.package / path, lambda content: content + b"\n")
    assert Release(other.package, Digests(tmp_path / "none.json")).build_sha != release.build_sha


@pytest.mark.parametrize("path", ["cli.py", "report/text.py", "reconcile/plan.py", "stack/__pycache__/zone.pyc"])
def test_files_outside_the_subset_do_not(path: str, release: Release, tmp_path: Path) -> None:
    """Changes in reporting and reconciling don't replace siblings."""
    other = stacks.copied_release(tmp_path)
    (other.package / path).parent.mkdir(exist_ok=True)
    if (other.package / path).exists():
        (other.package / path).unlink()
    (other.package / path).write_bytes(b"changed")
    assert other.build_sha == release.build_sha


def _age(path: Path) -> None:
    """Make a file old enough for the cache."""
    past = time.time() - 60
    os.utime(path, (past, past))


def _same_size(path: Path) -> None:
    path.write_bytes(b"B")


def _replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"B")
    _age(other)
    other.replace(path)


@pytest.mark.parametrize("change", [_same_size, _replaced])
def test_a_changed_file_is_hashed_again(change: Callable[[Path], None], tmp_path: Path) -> None:
    """A changed file is hashed again, even if its size and times are equal."""
    path = tmp_path / "file"
    path.write_bytes(b"A")
    _age(path)
    with Digests(tmp_path / "digests.json") as digests:
        before = digests.of(path)
    change(path)
    assert Digests(tmp_path / "digests.json").of(path) != before


def test_a_file_that_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    """A recently changed file is not cached, because it could change again within the same clock tick."""
    path = tmp_path / "file"
    path.write_bytes(b"A")
    with Digests(tmp_path / "digests.json") as digests:
        digests.of(path)
    assert not (tmp_path / "digests.json").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"x": 1}', b"\xff"])
def test_an_unreadable_store_is_done_without(content: bytes, tmp_path: Path) -> None:
    """A damaged cache is ignored."""
    store = tmp_path / "digests.json"
    store.write_bytes(content)
    path = tmp_path / "file"
    path.write_bytes(b"A")
    assert Digests(store).of(path) == "559aead08264d5795d3909718cdd05abd49572e84fe55590eef31a88a08fdffd"


def test_a_store_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    """A read-only cache folder is not an error."""
    (tmp_path / "file").write_bytes(b"A")
    _age(tmp_path / "file")
    (tmp_path / "blocked").write_bytes(b"")
    with Digests(tmp_path / "blocked" / "digests.json") as digests:
        digests.of(tmp_path / "file")
