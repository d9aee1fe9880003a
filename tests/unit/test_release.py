"""The build SHA covers everything that decides what the siblings are, and nothing else."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clawker_fw.stack.release import Release, digest_of
from devkit import stacks

CHANGED = ["stack/coredns.py", "bin/fwctl-linux-arm64"]


@pytest.mark.parametrize("path", CHANGED)
def test_each_file_of_the_subset_counts(path: str, release: Release, tmp_path: Path) -> None:
    """It covers code and programs of every architecture."""
    other = stacks.copied_release(tmp_path)
    assert other.build_sha == release.build_sha
    stacks.change_file(other.package / path, lambda content: content + b"\n")
    assert Release(other.package).build_sha != release.build_sha


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
    """Set the times of a file back, as somebody might who hides a change."""
    os.utime(path, (1_000_000_000, 1_000_000_000))


def _same_size(path: Path) -> None:
    path.write_bytes(b"B")
    _age(path)


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
    before = digest_of(path)
    assert before == "559aead08264d5795d3909718cdd05abd49572e84fe55590eef31a88a08fdffd"
    change(path)
    assert digest_of(path) != before
