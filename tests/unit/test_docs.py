"""The documentation agrees with the code. `./dev docs` builds it and checks its links."""

import re
from pathlib import Path

import pytest

from clawker_fw.errors import ExitCode
from devkit import reference
from devkit.stacks import CHECKOUT

OUTSIDE = tuple(CHECKOUT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))
"""The pages that Sphinx does not build."""


def page(name: str) -> str:
    """Return the text of a page."""
    return (CHECKOUT / name).read_text("utf-8")


def codes(text: str) -> set[str]:
    """Return everything that is formatted as code."""
    return {part for code in re.findall(r"`([^`\n]+)`", text) for part in (code, *code.split())}


def test_every_exit_code_is_documented() -> None:
    """The table in the reference has exactly the program's exit codes."""
    table = page("docs/reference/commands.md").partition("## Exit codes\n")[2].partition("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == list(ExitCode)


def test_error_codes_are_read_from_the_source() -> None:
    """Codes are kebab-case and have one exit code each, and known codes are found."""
    found = {(code, exit_code) for code, exit_code, *_ in reference.raised()}
    assert len({code for code, _ in found}) == len(found)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*(-…)?", code) for code, _ in found)
    assert {("lock-held", 6), ("engine-error", 4), ("commit-rejected", 5), ("rules-contradict", 3)} <= found


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.name)
def test_links_outside_the_documentation_resolve(path: Path) -> None:
    """In pages that Sphinx does not build, links lead to existing files."""
    targets = re.findall(r"\]\((?!https://)([^)#]+)[^)]*\)", path.read_text("utf-8"))
    assert [target for target in targets if not (path.parent / target).is_file()] == []
