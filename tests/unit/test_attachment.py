"""The attachment of an agent, as options and as YAML."""

import shlex
from dataclasses import replace

import yaml

from clawker_fw.agents.attachment import REFUSAL, Attachment

ATTACHMENT = Attachment("my_project-1.x-net", "10.213.1.53")


PROXIED = replace(ATTACHMENT, emptied=("HTTP_PROXY", "http_proxy"))


def test_no_word_needs_quoting() -> None:
    """No option needs quoting, so shells only split the line at blanks."""
    assert all(shlex.quote(word) == word for word in (*PROXIED.flags, REFUSAL))


def test_compose_refuses_the_refusal() -> None:
    """A Compose file must be a mapping. Compose would accept an empty file and attach nothing."""
    assert yaml.safe_load(REFUSAL) == REFUSAL
