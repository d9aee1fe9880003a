"""Output on a terminal, in a pipe, and without a reader."""

import subprocess
import sys
from io import StringIO

import pytest

from clawker_fw.model import Verdict
from clawker_fw.report import text, verdict


class Terminal(StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.mark.parametrize(
    ("terminal", "variables", "coloured"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "dumb", "FORCE_COLOR": "1"}, False),
    ],
)
def test_colours(
    terminal: bool,  # noqa: FBT001 - a value of the table
    variables: dict[str, str],
    coloured: bool,  # noqa: FBT001 - a value of the table
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Colours are used on terminals and on request, but not into pipes."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    stream = Terminal() if terminal else StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    text.console().print(verdict.line(Verdict.CURRENT, "clawker"))
    assert ("32m" in stream.getvalue()) == coloured


def test_a_question_without_an_answer_does_not_keep_the_program() -> None:
    """Background work on a hanging engine ends with the program."""
    program = "import time; from clawker_fw.background import in_background; in_background(time.sleep, 600)"
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 0
