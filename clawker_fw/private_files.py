"""Files that only the user can read, in the user's state folder, with a folder per project.

Files are replaced by rename, and are on disk before a write returns, so a reader or a power loss never leaves half
a file. Processes that read and then write hold the folder's lock.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import platformdirs


def state_folder() -> Path:
    """Return the folder of all projects, in the user's state folder."""
    return platformdirs.user_state_path("clawker-fw") / "certs"


@contextmanager
def locked(folder: Path, *, writing: bool) -> Iterator[None]:
    """Hold a folder's lock. Readers need none if the folder does not exist. Raise OSError if it can't be used."""
    with ExitStack() as held:
        if writing:
            make_private(folder)
        with suppress(*(() if writing else (FileNotFoundError,))):
            how = os.O_RDWR | os.O_CREAT if writing else os.O_RDONLY
            handle = os.open(folder / "lock", how | os.O_CLOEXEC, 0o600)
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def make_private(folder: Path) -> None:
    """Make a folder that only the user can enter, with its parents. Raise OSError if it can't be made."""
    for path in reversed([path for path in (folder, *folder.parents) if not path.is_dir()]):
        path.mkdir(exist_ok=True, mode=0o700)
        sync_folder(path.parent)
    folder.chmod(0o700)


def write_private(
    path: Path, content: bytes, mode: int = 0o600, prepare: Callable[[int], None] = lambda _: None
) -> None:
    """Replace a file by rename, and return when the file and its name are on disk.

    Only the user can read it, from the first byte; another `mode` is subject to the umask. `prepare` gets the new
    file's descriptor before the rename, because a path in a foreign folder could change meanwhile. Writers hold
    the folder's lock; otherwise two of them could mix their contents.

    Raises:
        OSError: when it can't be written. The former file is still there.
    """
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)  # left by a process that was killed
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            prepare(stream.fileno())
            os.fsync(stream.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to disk, if its file system and mode permit. Raise OSError if the disk fails."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
