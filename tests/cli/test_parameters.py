"""Durations on the command line. A service's command contains them in the form in which they are read."""

import pytest

from clawker_fw.cli.parameters import duration, written


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.001, "0.001s"), (1, "1s"), (30, "30s"), (90.5, "90.5s"), (3600, "3600s"), (86400, "86400s")],
)
def test_what_is_written_is_read(seconds: float, text: str) -> None:
    """They are exact to the millisecond, without an exponent."""
    assert written(seconds) == text
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["25h", "1e3s", "soon", "-1s"])
def test_what_is_no_duration(text: str) -> None:
    """An invalid duration is a mistake on the command line, as in the settings."""
    with pytest.raises(Exception, match=r"24h|is not a duration"):
        duration(text)
