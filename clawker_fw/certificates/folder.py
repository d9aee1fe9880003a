"""The files of certificates in the user's state folder: a folder for each project, which only the user can read.

Files are replaced by rename, under a lock.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import platformdirs

from clawker_fw.certificates.credentials import Pair


def state_folder() -> Path:
    """Return the folder of all projects, in the user's state folder."""
    return platformdirs.user_state_path("clawker-fw") / "certs"


@contextmanager
def locked(folder: Path, *, writing: bool) -> Iterator[None]:
    """Hold a folder's lock. Whoever only reads needs none where there is no folder yet.

    Raises:
        OSError: when the folder can't be used.
    """
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
    """Make a folder that only the user can enter.

    Raises:
        OSError: when it can't be made.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file, which only the user can read from its first byte on.

    Raises:
        OSError: when it can't be written.
    """
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
    fresh.replace(path)


def keep_pair(folder: Path, name: str, pair: Pair) -> None:
    """Write a pair, the key first: a run that dies in between leaves a pair that does not fit.

    Raises:
        OSError: when it can't be written.
    """
    write_private(folder / f"{name}.key", pair.key)
    write_private(folder / f"{name}.crt", pair.certificate)


def read_pair(folder: Path, name: str) -> Pair:
    """Read a pair.

    Raises:
        OSError: when it can't be read.
    """
    return Pair((folder / f"{name}.crt").read_bytes(), (folder / f"{name}.key").read_bytes())
