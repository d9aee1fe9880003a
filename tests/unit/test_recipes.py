"""The recipes in the documentation can be used as they are written."""

import json
import re
from pathlib import Path

import pytest
import yaml

from clawker_fw.agents.attachment import Attachment
from clawker_fw.settings.load import load_settings
from clawker_fw.settings.validation import validated
from devkit.stacks import CHECKOUT

PAGE = (CHECKOUT / "docs" / "recipes.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """Return the blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


RULES = [block for block in blocks("yaml") if block.startswith("rules:")]


@pytest.mark.parametrize("text", RULES)
def test_each_settings_file_is_valid(text: str, tmp_path: Path) -> None:
    """It is read as it stands, and allows something."""
    path = tmp_path / "clawker-fw.yaml"
    path.write_text(text)
    assert load_settings(path, {}).rules.rules


def test_the_rules_of_a_job_are_valid() -> None:
    """Rules in a variable need no file."""
    (script,) = blocks("sh")
    found = re.search(r"CLAWKER_FW_RULES='(.*?)'", script)
    assert found
    given = {"CLAWKER_FW_RULES": found[1]}
    assert len(validated((), "", given).loaded.rules.rules) == 2


def test_the_words_of_a_development_container_are_those_of_agent_flags() -> None:
    """They are the ones that are printed, for the usual stack."""
    (text,) = blocks("json")
    assert tuple(json.loads(text)["runArgs"]) == Attachment("clawker-net", "10.213.1.53").flags


def test_the_file_for_compose_is_one() -> None:
    """The third file is YAML, and its network is internal."""
    (text,) = [block for block in blocks("yaml") if block not in RULES]
    assert yaml.safe_load(text)["networks"]["database"]["internal"] is True
