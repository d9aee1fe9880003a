"""The documentation agrees with the code. `./dev docs` builds it and checks its links."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS
from clawker_fw.errors import ExitCode
from clawker_fw.model import Action, Cause, Layer, Shape, Sibling, Verdict
from clawker_fw.rules.path_words import MOST_PATHS, MOST_REPOSITORIES
from clawker_fw.rules.schema import FIELDS
from clawker_fw.settings.environment import ENVIRONMENT_PREFIX
from clawker_fw.settings.model import setting_keys
from clawker_fw.settings.preset import FOLDER
from clawker_fw.stack import labels
from clawker_fw.stack.envoy.tls_interception import HEADERS_REMOVED, PREFIXES_REMOVED, SECOND_PATHS
from clawker_fw.watch.decision import Reaction, RunOutcome, Trigger
from clawker_fw.watch.metrics import Metrics
from clawker_fw.watch.reactions import Heal
from devkit import reference
from devkit.attacks import ATTACKS, GROUPS, Group
from devkit.stacks import CHECKOUT

DOCS = CHECKOUT / "docs"
OUTSIDE = tuple(CHECKOUT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))
"""The pages that Sphinx does not build."""

PAGES = (*OUTSIDE, *sorted(DOCS.rglob("*.md")))
PICTURES = tuple(sorted(DOCS.glob("pictures/*.svg")))

HOSTS_THAT_MAY_BE_NAMED = {
    *("example.com", "example.net", "example.org"),
    *("github.com", "golang.org"),  # in the names of Go modules
    *("w3.org", "googleapis.com"),  # in the names of formats
    *("github.io", "publicsuffix.org"),  # a public suffix, and the list of all
    "apple.com",  # in the name of a format
    "pypa.io",  # pipx, which installs the program
    "textualize.io",  # in every picture that rich writes
}


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


@pytest.mark.parametrize("sibling", list(Sibling))
def test_settings_of_the_kernel(sibling: Sibling) -> None:
    """The page about enforcement says why each setting of the kernel is there, and that no other one is."""
    told = codes(section(page("docs/enforcement.md"), "## Settings of the kernel"))
    boot = json.loads((CHECKOUT / f"tests/golden/expected/{sibling}/boot/sibling.json").read_text())
    sent = {name.removeprefix("net.ipv4.conf.all.") for name in boot["sysctls"]} | set(boot["settings"])
    assert sent - {each.rstrip(",") for each in told} == set()


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


def test_generated_pages_do_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference does not depend on the terminal's width, colours or our variables."""
    for name, value in {"COLUMNS": "20", "FORCE_COLOR": "1", "CLAWKER_FW_PROJECT": "other"}.items():
        monkeypatch.setenv(name, value)
    assert reference.stale() == []


@pytest.mark.parametrize("name", reference.commands())
def test_every_command_and_option_is_documented(name: str) -> None:
    """Each command has a section with all of its options and an example."""
    text = section(page("docs/reference/commands.md"), f"## `{name}`")
    options = reference.options_of(reference.commands()[name])
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
    """The tables in the README and the reference have exactly the program's exit codes."""
    for name in ("README.md", "docs/reference/commands.md"):
        table = section(page(name), "## Exit codes")
        assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == list(ExitCode), name


ENDS_WITH_1 = {
    "certs": "certs show",
    "conformance": "conformance",
    "doctor": "doctor",
    "editing": "--dry-run",
    "explain": "explain",
    "fleet": "fleet",
    "healthy": "healthy",
    "stack": "drift",
}
"""The modules of commands that can end with exit code 1, and how the README names the command."""


def test_each_command_that_ends_with_1_is_named() -> None:
    """The README says of each command that can end with exit code 1 what that means."""
    modules = (CHECKOUT / "clawker_fw" / "cli").glob("*.py")
    assert set(ENDS_WITH_1) == {each.stem for each in modules if "Exit(ExitCode.DRIFT)" in each.read_text()}
    (row,) = re.findall(r"^\| 1 \|.*$", page("README.md"), re.MULTILINE)
    assert set(ENDS_WITH_1.values()) <= set(re.findall(r"`([^`]+)`", row)) | {"--dry-run"}
    assert "`--dry-run`" in row


def test_the_tree_for_developers_has_each_module() -> None:
    """The tree in the page for developers names each module, and no module that is not there."""
    tree = section(page("docs/development.md"), "## Where things are").partition("\n```\n")[2].partition("```")[0]
    modules = {path.name for path in (CHECKOUT / "clawker_fw").rglob("*.py")} - {"__init__.py", "__main__.py"}
    named = set(re.findall(r"\w+\.py", tree.partition("templates/  ")[0]))
    assert named == modules


PLACES_OF_PATHS = ("", "clawker_fw", "go", "go/internal")
PATH_IN_TEXT = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|go|md|j2|sh|svg))`")


def texts_with_paths() -> Iterator[tuple[Path, str]]:
    """Yield each docstring, and each comment in Go, with the file that has it."""
    for folder in ("clawker_fw", "devkit", "bench", "tests"):
        for path in (CHECKOUT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    yield path, ast.get_docstring(node) or ""
    for path in (CHECKOUT / "go").rglob("*.go"):
        yield path, "\n".join(line for line in path.read_text().splitlines() if line.lstrip().startswith("//"))


def test_files_that_docstrings_name_exist() -> None:
    """A docstring that sends a reader to a file names one that is there, from its own folder or from a root."""
    missing = {
        (str(path.relative_to(CHECKOUT)), name)
        for path, text in texts_with_paths()
        for name in PATH_IN_TEXT.findall(text)
        if not any((place / name).exists() for place in (path.parent, *map(CHECKOUT.joinpath, PLACES_OF_PATHS)))
    }
    assert missing == set()


def test_the_picture_of_the_rooms_has_each_in_its_place() -> None:
    """It shows the layers that the contract of imports has, from the top."""
    contracts = tomllib.loads(page("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["name"].endswith("every module is in a room"))
    rooms = [name for layer in layers for name in layer.split(" | ") if name != "__main__"]
    drawn = re.findall(r'class="name"[^>]*>(\w+)', page("docs/pictures/rooms.svg"))
    assert drawn == rooms


def test_error_codes_are_read_from_the_source() -> None:
    """Codes are kebab-case and have one exit code each, and known codes are found."""
    found = {(code, exit_code) for code, exit_code, *_ in reference.raised()}
    assert len({code for code, _ in found}) == len(found)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*(-…)?", code) for code, _ in found)
    assert {("lock-held", 6), ("engine-error", 4), ("commit-rejected", 5), ("rules-contradict", 3)} <= found


def test_every_record_is_documented() -> None:
    """The page on JSON has each event of standard error."""
    source = "".join(path.read_text() for path in (CHECKOUT / "clawker_fw").rglob("*.py"))
    written = re.findall(r'(?:LOG\.(?:info|warning|error|log)|_warn|notice)\([^":]*"([a-z_]+)"', source)
    events = {event for event in written if event != "words"}  # the argument of `log.notice`
    assert {"agent_open", "step", "stopping", "settings_open"} <= events
    assert events <= codes(section(page("docs/drift.md"), "## Standard error"))


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("## Layers", [*Layer, *labels.DRIFT_LABELS, *(f.name for f in fields(Shape) if f.name != "networks")]),
        ("## Causes", list(Cause)),
        ("## Actions", list(Action)),
        ("## Verdicts", list(Verdict)),
    ],
)
def test_every_word_of_drift_is_explained(heading: str, words: list[str]) -> None:
    """Everything that `drift` can report is on its page, in the matching section."""
    named = codes(section(page("docs/drift.md"), heading))
    prefix = labels.STACK_BUILD_SHA.rpartition(".")[0]
    assert {word for word in words if word not in named and word.removeprefix(prefix) not in named} == set()


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("## What it does", [*Heal, *Reaction, *RunOutcome]),
        ("## Records", [*Trigger]),
        ("## Metrics and health", sorted(set(re.findall(r"clawker_fw_\w+", Metrics("1", "2").page().decode())))),
    ],
)
def test_every_word_of_watch_is_explained(heading: str, words: list[str]) -> None:
    """Everything that a watcher can report is on its page."""
    named = codes(section(page("docs/watch.md"), heading))
    derived = ("_created", "_count", "_sum")  # of what is named: Prometheus's own endings
    assert {word for word in words if word not in named and not word.endswith(derived)} == set()


def test_every_schema_is_linked() -> None:
    """The page about JSON links each published schema, and nothing else there."""
    linked = re.findall(r"\(schemas/([^)]+)\)", section(page("docs/drift.md"), "## JSON"))
    assert sorted(linked) == sorted(path.name for path in (DOCS / "schemas").iterdir())


def test_every_verb_of_the_helper_is_explained() -> None:
    """The documented verbs of `fwctl` are those in its own usage text."""
    verbs = re.findall(r"^  ([a-z]+) ", page("go/cmd/fwctl/main.go").partition("const help")[2], re.MULTILINE)
    text = section(page("docs/how-it-works.md"), "## Anatomy of a sibling")
    assert verbs
    assert set(verbs) <= codes(text)


def test_every_dependency_has_a_reason() -> None:
    """Each direct dependency, in Python and in Go, is in a table."""
    named = codes(page("docs/dependencies.md"))
    project = tomllib.loads(page("pyproject.toml"))
    wanted = (
        *project["project"]["dependencies"],
        *project["build-system"]["requires"],
        *project["dependency-groups"]["dev"],
    )
    assert {re.split(r"[=<>;]", each)[0] for each in wanted} <= named
    for module in ("go", "devkit/peer"):
        modules = re.findall(r"^(?:require)?\s+(\S+\.\S+/\S+) v\S+$", page(f"{module}/go.mod"), re.MULTILINE)
        assert modules
        assert set(modules) <= named, module


def test_every_session_is_explained() -> None:
    """The development guide names exactly the existing sessions."""
    sessions = re.findall(r"^@nox\.session.*\ndef (\w+)", page("noxfile.py"), re.MULTILINE)
    table = section(page("docs/development.md"), "## Two commands")
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == sessions


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.name)
def test_links_outside_the_documentation_resolve(path: Path) -> None:
    """In pages that Sphinx does not build, links lead to existing files."""
    targets = re.findall(r"\]\((?!https://)([^)#]+)[^)]*\)", path.read_text("utf-8"))
    assert [target for target in targets if not (path.parent / target).is_file()] == []


def _hosts(text: str) -> set[str]:
    return set(re.findall(r"\b(?:[a-z0-9-]+\.)*([a-z0-9-]+\.(?:com|dev|io|net|org))\b(?!\.)", text))


@pytest.mark.parametrize("path", [*PAGES, *PICTURES], ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_the_documentation_names_no_place(path: Path) -> None:
    """Only reserved example hosts appear, and no folder of a real machine."""
    text = path.read_text("utf-8")
    presets = "".join(each.read_text("utf-8") for each in FOLDER.iterdir()) if path.name == "presets.md" else ""
    assert _hosts(text) <= HOSTS_THAT_MAY_BE_NAMED | _hosts(presets)
    assert not re.search(r"(?<![\w./])/(?:home|mnt|root|srv|Users|work)/", text)


def test_the_page_on_inspected_tls_has_what_is_removed_and_the_limits() -> None:
    """Each header that no host gets, and how many paths and repositories a rule can have."""
    shown = page("docs/inspection.md")
    (listed,) = re.findall(r"removes these from every inspected request:\n([^.]*)\.", shown)
    assert re.findall("`([^`]*)`", listed) == [*HEADERS_REMOVED]
    (second,) = re.findall(r"as if they were not there:\n([^.]*)\.", shown)
    assert re.findall("`([^`]*)`", second) == [*SECOND_PATHS]
    assert {f"{each}-" for each in PREFIXES_REMOVED} <= {*re.findall("`([^`]*)`", shown)}
    assert f"at most {MOST_PATHS:,} `path_rules` and {MOST_REPOSITORIES} repositories" in shown
