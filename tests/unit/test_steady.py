"""A settings file counts as complete once it has not changed for a while."""

import os
from pathlib import Path

import pytest

from clawker_fw.errors import SettingsError
from clawker_fw.watch.trust import require_steady


@pytest.mark.parametrize(("age", "steady"), [(0.0, False), (0.9, False), (1.1, True), (-3600.0, True)])
def test_a_second_has_to_pass(age: float, steady: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Each file has to wait for a second, by the time that nobody can make up, also if the clock was set back."""
    file = tmp_path / "clawker-fw.yaml"
    file.write_text("rules: []\n")
    os.utime(file, (0, 0))
    changed = file.stat().st_ctime_ns / 1e9
    if steady:
        require_steady([file], changed + age)
        return
    with pytest.raises(SettingsError) as caught:
        require_steady([file], changed + age)
    assert caught.value.code == "settings-changing"


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """Nobody knows what it had."""
    with pytest.raises(SettingsError, match="can't be read"):
        require_steady([tmp_path / "gone.yaml"], 0.0)
