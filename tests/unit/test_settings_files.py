"""Reading files within bounds, whatever kind of file it is."""

import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from clawker_fw.errors import SettingsError
from clawker_fw.settings import files
from clawker_fw.settings.files import bounded, read_text


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_pipe_is_read_to_its_end(pipe: Path) -> None:
    """A pipe such as `<(…)` is read to its end, beyond its buffer."""
    # Open for reading as well, the writer neither waits for a reader nor fails while there is none.
    writer = subprocess.Popen(["sh", "-c", 'exec head -c 1000000 /dev/zero 1<>"$0"', pipe])
    try:
        content = b""
        while not content:  # until the writer has opened it
            content = bounded(pipe)
    finally:
        writer.kill()
        writer.wait()
    assert content == bytes(1_000_000)


class _Held:
    """Holds a pipe open without writing."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR)

    def close(self) -> None:
        os.close(self._handle)


def test_nobody_waits_for_a_pipe_without_end(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unopened pipe is empty; one that is held open without an end is an error."""
    assert bounded(pipe) == b""
    monkeypatch.setattr(files, "PIPE_SECONDS", 0.05)
    with closing(_Held(pipe)), pytest.raises(SettingsError, match="nothing more was written"):
        read_text(pipe)


def test_a_file_without_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device or a sparse file uses no more memory than the longest settings."""
    monkeypatch.setattr(files, "MOST_BYTES", 5 << 20)
    holes = tmp_path / "holes"
    with holes.open("wb") as file:
        file.truncate(1 << 40)
    for path in (Path("/dev/zero"), holes):
        with pytest.raises(SettingsError, match="longer than"):
            read_text(path)
    holes.write_bytes(b"a" * (5 << 20))
    assert len(read_text(holes)) == 5 << 20
