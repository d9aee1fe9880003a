"""Templates render exactly the given values, or fail."""

import jinja2
import pytest
import yaml
from hypothesis import given, strategies

from clawker_fw import rendering
from clawker_fw.rendering import parsed, render
from clawker_fw.stack.envoy.bootstrap import bootstrap

VALUES = {"guarded": "10.0.0.1", "exempt": "10.0.0.2", "heap": 1, "connections": 2, "admin_socket": "/a"}


@given(strategies.text())
def test_no_value_becomes_structure(text: str) -> None:
    """Any value stays text in the bootstrap, in its place."""
    usual = bootstrap(project="p", trusted_ca="/ca", **VALUES)
    made = bootstrap(project=text, trusted_ca="/ca", **VALUES)
    assert made["node"].pop("id") == f"{text}-envoy"
    usual["node"].pop("id")
    assert made == usual


@pytest.mark.parametrize("name", ["true", "no", "null", "y", "1", "a: b", "#", "- a", "pip"])
def test_words_of_yaml_stay_text(name: str) -> None:
    """A preset's name is unquoted only if YAML reads it as the same text."""
    assert yaml.safe_load(render("clawker-fw.yaml.j2", presets=[name, "npm"]))["presets"] == [name, "npm"]


def test_a_value_that_is_missing_is_an_error() -> None:
    """A missing value is an error, never empty text."""
    with pytest.raises(jinja2.UndefinedError):
        render("Corefile.j2")


@pytest.mark.parametrize("value", ["a b", "a\n}", "{", '"', ""])
def test_a_word_of_the_corefile_is_one_word(value: str) -> None:
    """A value can't end its line or open a block."""
    words = dict.fromkeys(("collector_file", "collector_socket", "policy_file"), "/x")
    with pytest.raises(ValueError, match="can't be"):
        render("Corefile.j2", policy_socket=value, **words)


def test_structure_is_no_value() -> None:
    """A list or a mapping can't be printed into YAML."""
    with pytest.raises(TypeError):
        parsed("clawker-fw.yaml.j2", presets=[["a"]])


def test_a_checkout_and_a_wheel_have_the_same_folder() -> None:
    """A checkout has its templates beside the package, as a wheel has."""
    assert {path.name for path in rendering.TEMPLATES.iterdir()} >= {"bootstrap.yaml.j2", "Corefile.j2"}
