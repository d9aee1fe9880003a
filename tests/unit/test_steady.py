"""A settings file counts as complete after a while without changes."""

import os
from pathlib import Path

import pytest

from clawker_fw.errors import SettingsError
from clawker_fw.watch.trusted_settings import Steady


class Clocks:
    """A monotonic clock, and a system clock that can be set."""

    def __init__(self, file: Path) -> None:
        self.now = 0.0
        self._wall = file.stat().st_ctime_ns / 1e9
        self.steady = Steady(lambda: self.now, lambda: self._wall + self.now + self.set)
        self.set = 0.0

    def passes(self, *files: Path) -> bool:
        """Whether the files may be applied now."""
        try:
            self.steady.require(files)
        except SettingsError as error:
            return error.code != "settings-changing"
        return True


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file that has just been written."""
    path = tmp_path / "clawker-fw.yaml"
    path.write_text("rules: []\n")
    return path


@pytest.mark.parametrize("set_", [-3600.0, 0.0])
def test_a_second_has_to_pass(set_: float, file: Path) -> None:
    """A changed file waits for a second, independent of the system clock."""
    clocks = Clocks(file)
    clocks.set = set_
    for now in (0.0, 0.9, 1.0):
        clocks.now = now
        assert clocks.passes(file) is (now == 1.0)
    assert clocks.passes()


def test_the_time_of_a_change_cannot_be_made_up(file: Path) -> None:
    """A forged old modification time does not make a new file complete."""
    clocks = Clocks(file)
    os.utime(file, (0, 0))
    assert file.stat().st_mtime == 0
    assert not clocks.passes(file)
