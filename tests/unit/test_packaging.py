"""What an index shows of the package, and the one place that says where its repository is."""

import re
from functools import cache
from typing import Any

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from readme_renderer import markdown

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
