"""What an index shows of the package, and the one place that says where its repository is."""

import re
import subprocess
import tomllib
from functools import cache
from typing import Any

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from readme_renderer import markdown

from devkit.settings_schema import repository
from devkit.stacks import CHECKOUT
from hatch_build import bill_of_materials


@cache
def metadata() -> ProjectMetadata[Any]:
    """Return the package's metadata, as it is built."""
    return ProjectMetadata(str(CHECKOUT), PluginManager())


@cache
def description() -> str:
    """Return the description that an index shows, as HTML."""
    html = markdown.render(metadata().core.readme)
    assert html
    return str(html)


def places() -> list[str]:
    """Return where the links of the description lead, except within it, and where its pictures come from."""
    return re.findall(r'<(?:a|img)\b[^>]*? (?:href|src)="([^#"][^"]*)"', description())


def test_no_link_of_the_description_is_relative() -> None:
    """An index has none of our files beside it: every link and picture has a whole address."""
    assert len(places()) > 10
    assert [each for each in places() if not each.startswith("https://")] == []


def test_links_of_the_description_lead_to_files() -> None:
    """Each link into the repository is to a file of this release."""
    found = [re.fullmatch(rf"{repository()}/(?:blob|raw)/v([^/]+)/(.+)", each) for each in places()]
    inside = [each for each in found if each]
    assert len(inside) > 10
    assert {each[1] for each in inside} == {metadata().version}
    assert [each[2] for each in inside if not (CHECKOUT / each[2].partition("#")[0]).is_file()] == []


def test_the_repository_has_one_address() -> None:
    """Whatever in the repository names its own address has that of `[project.urls]`."""
    tracked = [
        "git",
        "grep",
        "-hoIE",
        "https://github.com/[A-Za-z0-9-]+/clawker-fw[A-Za-z0-9._-]*",
        "--",
        ":!tests",
    ]
    named = subprocess.run(tracked, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split()
    assert set(named) == {repository()}
    assert all(str(each).startswith(repository()) for each in metadata().core.urls.values())


def test_the_package_says_what_a_stranger_asks() -> None:
    """Who made it, under which licence, where it is developed, where mistakes and vulnerabilities are reported."""
    core = metadata().core
    assert core.authors
    assert core.license_expression == "Apache-2.0"
    assert {"Repository", "Documentation", "Changelog", "Issues", "Security"} <= core.urls.keys()
    for name in ("SECURITY.md", "CONTRIBUTING.md"):
        assert (CHECKOUT / name).is_file()


def test_what_is_typed_says_so() -> None:
    """The classifier and the marker of PEP 561 are both there."""
    assert "Typing :: Typed" in metadata().core.classifiers
    assert (CHECKOUT / "clawker_fw" / "py.typed").read_text() == ""


def test_a_module_without_a_licence_is_in_no_wheel() -> None:
    """If NOTICE lacks what is linked into a program, there is no bill of materials, and so no wheel."""
    program = CHECKOUT / "clawker_fw" / "bin" / "fwctl-linux-amd64"
    notice = (CHECKOUT / "NOTICE").read_text("utf-8")
    about: dict[str, Any] = {
        "name": "x",
        "version": "1",
        "licence": "MIT",
        "requirements": ["a>=1", "b==2; c > '3'"],
    }
    made = bill_of_materials([program], notice, **about)
    versions = {each["name"]: each.get("version") for each in made["components"]}
    assert (versions["a"], versions["b"]) == (None, "2")
    title = f"golang.org/x/sys {versions['golang.org/x/sys']}"
    with pytest.raises(ValueError, match=re.escape(title)):
        bill_of_materials([program], notice.replace(f"{title}\n  ", "other v1\n  "), **about)


def test_the_build_requires_what_the_environment_for_development_has() -> None:
    """Both name the same versions of what builds, since two builds must give the same bytes."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    assert set(project["build-system"]["requires"]) <= set(project["dependency-groups"]["dev"])
    assert all("==" in each for each in project["build-system"]["requires"])


def test_what_is_reached_into_has_an_upper_bound() -> None:
    """A package of whose private modules the program uses one is required below a version that may change them."""
    private = re.compile(r"^\s*(?:from|import) (\w+)(?:\.\w+)*\._\w+", re.MULTILINE)
    sources = [path.read_text("utf-8") for path in (CHECKOUT / "clawker_fw").rglob("*.py")]
    used = {name for source in sources for name in private.findall(source)}
    core = metadata().core
    wanted = [*core.dependencies, *(each for extra in core.optional_dependencies.values() for each in extra)]
    assert {"opentelemetry", "typer"} <= used
    for name in used - {"clawker_fw"}:
        of_it = [each for each in wanted if re.match(rf"{name}\b", each)]
        assert of_it
        assert [each for each in of_it if not re.search("<|==", each)] == []
