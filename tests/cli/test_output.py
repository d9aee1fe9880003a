"""`--output` of every command: what the user names keeps being what it is."""

import os
import stat
import threading
from pathlib import Path

import pytest

from clawker_fw.certificates.store import InspectionStore
from clawker_fw.cli import output
from clawker_fw.errors import OutputError
from tests.cli.conftest import Command


@pytest.fixture
def pem(settings_file: Path) -> bytes:
    """The roots of this machine, as `certs export roots` writes them."""
    folder = settings_file.parent / "state" / "clawker-fw" / "certs" / "clawker"
    return InspectionStore(folder, "clawker", keeps=True).provide(["a.test"]).trust


def test_a_pipe_is_written_to(command: Command, pem: bytes, tmp_path: Path) -> None:
    """Who reads it gets the whole answer, and the pipe is still there."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    assert command("certs", "export", "roots", "--output", str(pipe)).code == 0
    reader.join(30)
    assert got == [pem]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


@pytest.mark.parametrize("there", [True, False], ids=["target", "no target"])
@pytest.mark.parametrize("hard", [True, False], ids=["hard", "symbolic"])
def test_a_link_is_written_through(command: Command, pem: bytes, tmp_path: Path, there: bool, hard: bool) -> None:  # noqa: FBT001 - a row
    """The target has the answer, with its mode, and the link still leads there."""
    target, link = tmp_path / "target", tmp_path / "link"
    if there or hard:
        target.write_bytes(b"before" * 1000)
        target.chmod(0o640)
    (link.hardlink_to if hard else link.symlink_to)(target)
    assert command("certs", "export", "roots", "--output", str(link)).code == 0
    assert target.read_bytes() == pem
    assert link.samefile(target)
    assert link.is_symlink() != hard
    if there or hard:
        assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_device_is_written_to(command: Command, pem: bytes, tmp_path: Path) -> None:
    """It stays one: as root, a device file was once replaced by a regular one."""
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        device.write_bytes(b"")
    except PermissionError:
        device.unlink(missing_ok=True)
        device.symlink_to("/dev/null")
    before = device.lstat()
    assert pem
    assert command("ca", "export", "--output", str(device)).code == 0
    assert (device.lstat().st_ino, device.lstat().st_mode) == (before.st_ino, before.st_mode)


def test_a_new_file_appears_when_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted command leaves nothing, and a link with the name of the unfinished file is not followed."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"kept")
    (tmp_path / ".new.tar.new").symlink_to(victim)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            output.write_output(tmp_path / "new.tar", b"whole")
    assert [*tmp_path.iterdir()] == [victim]
    output.write_output(tmp_path / "new.tar", b"whole")
    assert ((tmp_path / "new.tar").read_bytes(), victim.read_bytes()) == (b"whole", b"kept")


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    """A folder, or a folder that is not there, is named with its reason."""
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "a" / "b", "No such file or directory")):
        with pytest.raises(OutputError, match=reason):
            output.write_output(path, b"x")
