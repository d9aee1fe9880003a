"""When a settings file has stayed as it is for long enough."""

import os
from pathlib import Path

import pytest

from clawker_fw.errors import SettingsError
from clawker_fw.watch.steady import Steady


class Clocks:
    """Both clocks: one that only goes on, and the machine's, which can be set."""

    def __init__(self, file: Path) -> None:
        """Begin at the moment of a file's last change."""
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


def test_a_second_has_to_pass(file: Path) -> None:
    """A file that has just been changed waits, one that has been as it is for a second does not."""
    clocks = Clocks(file)
    assert not clocks.passes(file)
    clocks.now = 0.9
    assert not clocks.passes(file)
    clocks.now = 1.0
    assert clocks.passes(file)
    assert clocks.passes()


def test_the_time_of_a_change_cannot_be_made_up(file: Path) -> None:
    """An old time put on a file that has just been written does not make it old."""
    clocks = Clocks(file)
    os.utime(file, (0, 0))
    assert file.stat().st_mtime == 0
    assert not clocks.passes(file)


@pytest.mark.parametrize("set_", [-3600.0, 0.0])
def test_a_clock_that_is_set_back_blocks_nothing(set_: float, file: Path) -> None:
    """What has been seen to stay as it is for a second is steady, whatever the machine says the time is."""
    clocks = Clocks(file)
    clocks.set = set_
    assert not clocks.passes(file)
    clocks.now = 1.0
    assert clocks.passes(file)


def test_every_file_counts(file: Path, tmp_path: Path) -> None:
    """One of several that has gone is an error, and one that was just made waits."""
    clocks = Clocks(file)
    clocks.now = 5.0
    assert clocks.passes(file)
    with pytest.raises(SettingsError, match="can't be read"):
        clocks.steady.require([file, tmp_path / "gone.yaml"])
