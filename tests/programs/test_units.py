"""The service's unit, checked by systemd."""

from pathlib import Path

import pytest

from clawker_fw.errors import RefusedError
from clawker_fw.watch.service import quoted, unit
from devkit.engines import EngineError
from devkit.units import exposure, install_systemd, verify

MOST_EXPOSED = {"system": 2.5, "user": 7.0}
"""The highest exposure on systemd's scale of 0 to 10. An unconfined service has 9.6."""


@pytest.fixture(scope="module", autouse=True)
def _systemd(require_engine: bool) -> None:  # noqa: FBT001 - a fixture
    try:
        install_systemd()
    except EngineError as error:
        if require_engine:
            raise
        pytest.skip(f"NO UNIT IS TESTED: {error}")


def written(folder: Path, scope: str, *arguments: str, user: int = 0, **variables: str) -> Path:
    path = folder / "clawker-fw.service"
    socket, system = Path("/run/other/watch.sock"), scope == "system"
    path.write_text(unit("clawker", arguments, 30, variables, system=system, socket=socket, user=user))
    return path


AWKWARD = ("--config", '/etc/100% $HOME; \\n/it\'s "here".yaml', "", "--project", "clawker", "watch")


@pytest.mark.parametrize("scope", ["system", "user"])
def test_the_unit_is_one_that_systemd_reads(scope: str, tmp_path: Path) -> None:
    """It has no unknown or malformed line, whatever the options contain, and is confined by systemd's scale."""
    path = written(tmp_path, scope, *AWKWARD, user=1000, CLAWKER_FW_RULES='[{"dst": "a.test"}]')
    assert verify(path, scope) == (0, "")
    assert exposure(path, scope) <= MOST_EXPOSED[scope]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--heal", "--heal"),
        ("/run/a.sock", "/run/a.sock"),
        ("", '""'),
        ("two words", '"two words"'),
        ("50%", '"50%%"'),
        ("$HOME", '"$$HOME"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("it's", '"it\'s"'),
    ],
)
def test_words_are_quoted_as_systemd_reads_them(word: str, expected: str) -> None:
    """Specifiers and variables of systemd in options are escaped."""
    assert quoted(word) == expected


def test_a_line_break_is_refused() -> None:
    """A line break in an option is refused, because it would start another setting."""
    with pytest.raises(RefusedError):
        quoted("a\nExecStart=/bin/sh")
