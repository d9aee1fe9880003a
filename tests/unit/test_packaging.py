"""The package's page on an index, and the single place that names the repository."""

import re
from typing import Any

import pytest

from devkit.stacks import CHECKOUT
from hatch_build import bill_of_materials


def test_a_module_without_a_licence_is_in_no_wheel() -> None:
    """If NOTICE lacks a linked module, there is no bill of materials, and so no wheel."""
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
