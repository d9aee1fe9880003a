"""How an agent is attached, as words and as YAML."""

import shlex
from dataclasses import replace
from typing import Any

import pytest
import yaml

from clawker_fw.agents.attachment import REFUSAL, Attachment

ATTACHMENT = Attachment("my_project-1.x-net", "10.213.1.53")


class Compose(yaml.SafeLoader):
    """Reads the two tags of the compose specification: what is replaced, and what is reset."""


def _replaced(loader: Compose, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.MappingNode):
        return {node.tag: loader.construct_mapping(node, deep=True)}
    assert isinstance(node, yaml.SequenceNode)
    return {node.tag: loader.construct_sequence(node)}


for tag in ("!override", "!reset"):
    Compose.add_constructor(tag, _replaced)


PROXIED = replace(ATTACHMENT, emptied=("HTTP_PROXY", "http_proxy"))


def test_no_word_needs_quoting() -> None:
    """A shell splits the line at blanks and changes nothing; a backslash or a variable would be a surprise."""
    assert all(shlex.quote(word) == word for word in (*PROXIED.flags, REFUSAL))


def test_an_old_compose_refuses_the_override() -> None:
    """Compose 1 would join the networks of both files. It reads with a loader that does not know the tags."""
    with pytest.raises(yaml.constructor.ConstructorError):
        yaml.safe_load(ATTACHMENT.compose(["agent"]))


def test_compose_refuses_the_refusal() -> None:
    """A file of compose is a mapping. An empty file would be accepted, and would attach nothing."""
    assert yaml.safe_load(REFUSAL) == REFUSAL
