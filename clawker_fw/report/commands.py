"""Commands in sentences for people, with the options that name the same stack."""

import re
import shlex
from collections.abc import Sequence

_COMMAND = re.compile(r"(?<=[`(])clawker-fw (?=[a-z])")
"""A command in a sentence is in backquotes, or is what a shell replaces."""


def in_text(text: str, options: Sequence[str]) -> str:
    """Return a text in which each command has these options before its name, quoted for a shell."""
    if not options:
        return text
    command = f"clawker-fw {shlex.join(options)} "
    return _COMMAND.sub(lambda _: command, text)
