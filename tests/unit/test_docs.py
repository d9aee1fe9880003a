"""The documentation agrees with the code. `./dev docs` builds it and checks its links."""

import re
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS
from devkit.attacks import GROUPS, Group
from devkit.stacks import CHECKOUT

OUTSIDE = tuple(CHECKOUT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))
"""The pages that Sphinx does not build."""


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.title)
def test_further_tests_of_attacks_exist(group: Group) -> None:
    """Each file of tests that the page about attacks names is there, and each group has attacks or tests."""
    assert group.attacks or group.tests
    for name in group.tests:
        assert (CHECKOUT / name).is_file() or name.removeprefix("python -m bench ") in BENCHMARKS, name


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.name)
def test_links_outside_the_documentation_resolve(path: Path) -> None:
    """In pages that Sphinx does not build, links lead to existing files."""
    targets = re.findall(r"\]\((?!https://)([^)#]+)[^)]*\)", path.read_text("utf-8"))
    assert [target for target in targets if not (path.parent / target).is_file()] == []
