"""The build SHA covers exactly the files that define the firewall containers."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import grimp
import pytest

from clawker_fw.stack.release import Release, digest_of
from devkit import stacks

CHANGED = ["stack/coredns.py", "templates/Corefile.j2", "bin/fwctl-linux-arm64"]

CONSTANT = re.compile(rb"^(_?[A-Z][A-Z_]+(?:: [^=\n]+)?) = ", re.MULTILINE)


@pytest.mark.parametrize("path", CHANGED)
def test_each_file_of_the_subset_counts(path: str, release: Release, tmp_path: Path) -> None:
    """Code and programs of every architecture count."""
    other = stacks.copied_release(tmp_path)
    assert other.build_sha == release.build_sha
    stacks.change_file(other.package / path, lambda content: content + b"\n")
    assert Release(other.package).build_sha != release.build_sha


def test_a_constant_of_each_module_that_defines_the_containers_counts(tmp_path: Path) -> None:
    """A changed constant in any module that defines the containers changes the SHA."""
    other = stacks.copied_release(tmp_path)
    before, changed = other.build_sha, 0
    for path in other.modules():
        content = (other.package / path).read_bytes()
        if constant := CONSTANT.search(content):
            at = constant.end()
            (other.package / path).write_bytes(content[:at] + b"None or " + content[at:])
            assert Release(other.package).build_sha != before, path
            (other.package / path).write_bytes(content)
            changed += 1
    assert changed > 40
    assert {"rules/ranges.py", "settings/values.py"} <= other.modules().keys()
    assert Release(other.package).build_sha == before


def test_the_import_graph_is_the_real_one(release: Release) -> None:
    """The modules equal those that a tool for import graphs finds, without imports for types."""
    graph = grimp.build_graph("clawker_fw", exclude_type_checking_imports=True)
    stack = {module for module in graph.modules if module.startswith("clawker_fw.stack")}
    reached = stack.union(*map(graph.find_upstream_modules, stack))
    names = {f"clawker_fw/{path}".removesuffix(".py").replace("/", ".") for path in release.modules()}
    assert {name.removesuffix(".__init__") for name in names} == reached


@pytest.mark.parametrize("path", ["cli.py", "report/text.py", "reconcile/plan.py", "stack/__pycache__/zone.pyc"])
def test_files_outside_the_subset_do_not(path: str, release: Release, tmp_path: Path) -> None:
    """Changes in reporting and reconciling don't replace containers."""
    other = stacks.copied_release(tmp_path)
    (other.package / path).parent.mkdir(exist_ok=True)
    if (other.package / path).exists():
        (other.package / path).unlink()
    (other.package / path).write_bytes(b"changed")
    assert other.build_sha == release.build_sha


def _age(path: Path) -> None:
    """Set a file's times back, as an attacker might to hide a change."""
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
    """A changed file is hashed again, even with equal size and times."""
    path = tmp_path / "file"
    path.write_bytes(b"A")
    _age(path)
    before = digest_of(path)
    assert before == "559aead08264d5795d3909718cdd05abd49572e84fe55590eef31a88a08fdffd"
    change(path)
    assert digest_of(path) != before
