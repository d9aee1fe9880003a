"""The documentation agrees with the code. `./dev docs` builds it and checks its links."""

import re
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS
from clawker_fw.errors import ExitCode
from clawker_fw.rules.schema import FIELDS
from clawker_fw.settings.environment import ENVIRONMENT_PREFIX
from clawker_fw.settings.model import setting_keys
from devkit import reference
from devkit.attacks import ATTACKS, GROUPS, Group
from devkit.stacks import CHECKOUT

DOCS = CHECKOUT / "docs"
OUTSIDE = tuple(CHECKOUT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))
"""The pages that Sphinx does not build."""


def page(name: str) -> str:
    """Return the text of a page."""
    return (CHECKOUT / name).read_text("utf-8")


def section(text: str, heading: str) -> str:
    """Return the text below a heading, up to the next heading of the same level."""
    level = heading.partition(" ")[0]
    return re.split(rf"^{level} ", text.partition(f"{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def codes(text: str) -> set[str]:
    """Return everything that is formatted as code."""
    return {part for code in re.findall(r"`([^`\n]+)`", text) for part in (code, *code.split())}


def test_generated_pages_are_current() -> None:
    """The generated reference pages are current."""
    assert reference.stale() == [], "run `python -m devkit.reference`"


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.title)
def test_further_tests_of_attacks_exist(group: Group) -> None:
    """Each test that the pages about attacks name is there, and each group has attacks or tests."""
    assert group.attacks or group.tests
    for name in group.tests:
        path, _, function = name.partition("::")
        if function:
            assert re.search(rf"^(def|func) {function}\(", page(path), re.MULTILINE), name
        else:
            assert name.removeprefix("python -m bench ") in BENCHMARKS, name


def test_attacks_are_told_apart() -> None:
    """Each attack is described once, and what gets through has a reason."""
    told = [attack.what for attack in ATTACKS]
    assert sorted(told) == sorted(set(told))
    assert [
        each.what
        for each in ATTACKS
        if each.because and not (each.arrives or each.heard or each.result == "an address")
    ] == []


@pytest.mark.parametrize("name", reference.commands())
def test_every_command_and_option_is_documented(name: str) -> None:
    """Each command has a section with all of its arguments and options, and an example."""
    text = section(page("docs/reference/commands.md"), f"## `{name}`")
    options = reference.options_of(reference.commands()[name])
    arguments = reference.arguments_of(reference.commands()[name])
    assert {str(each.metavar).replace("|", r"\|") for each in arguments} <= codes(text)
    assert {each for option in options for each in (*option.opts, *option.secondary_opts)} <= codes(text)
    assert f"$ clawker-fw {name}" in text


def test_no_command_is_left_out() -> None:
    """The sections are the commands, and the global options have a section of their own."""
    text = page("docs/reference/commands.md")
    assert re.findall(r"^## `([\w ]+)`$", text, re.MULTILINE) == list(reference.commands())
    before = {each for option in reference.options_of(reference.program()) for each in option.opts}
    assert before <= codes(section(text, "## Before the command"))


def test_every_setting_is_documented() -> None:
    """The page has each key, its variable, and each field of a rule."""
    named = codes(page("docs/reference/settings.md"))
    keys = set(setting_keys())
    variables = {ENVIRONMENT_PREFIX + key.upper().replace(".", "__") for key in keys - {"include"}}
    assert keys | variables | set(FIELDS) <= named


def test_every_exit_code_is_documented() -> None:
    """The table in the reference has exactly the program's exit codes."""
    table = section(page("docs/reference/commands.md"), "## Exit codes")
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
