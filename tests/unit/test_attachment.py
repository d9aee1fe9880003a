"""The attachment of an agent, as options and as YAML."""

import shlex
from dataclasses import replace
from typing import Any

import pytest
import yaml

from clawker_fw.agents.attachment import REFUSAL, Attachment

ATTACHMENT = Attachment("my_project-1.x-net", "10.213.1.53")


class Compose(yaml.SafeLoader):
    """Reads the two tags of the Compose specification, `!override` and `!reset`."""


def _replaced(loader: Compose, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.MappingNode):
        return {node.tag: loader.construct_mapping(node, deep=True)}
    assert isinstance(node, yaml.SequenceNode)
    return {node.tag: loader.construct_sequence(node)}


for tag in ("!override", "!reset"):
    Compose.add_constructor(tag, _replaced)


PROXIED = replace(ATTACHMENT, emptied=("HTTP_PROXY", "http_proxy"))


def test_no_word_needs_quoting() -> None:
    """No option needs quoting, so shells only split the line at blanks."""
    assert all(shlex.quote(word) == word for word in (*PROXIED.flags, REFUSAL))


def test_an_old_compose_refuses_the_override() -> None:
    """Compose 1 would join both files' networks. Its loader does not know the tags, so it fails."""
    with pytest.raises(yaml.constructor.ConstructorError):
        yaml.safe_load(ATTACHMENT.compose(["agent"]))


def test_compose_refuses_the_refusal() -> None:
    """A Compose file must be a mapping. Compose would accept an empty file and attach nothing."""
    assert yaml.safe_load(REFUSAL) == REFUSAL
