"""Reads settings files, with limits on size and time, because a path may lead to anything."""

import os
import select
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clawker_fw.errors import SettingsError, unreadable_settings

MOST_BYTES = 64 << 20
"""Per file. Ten thousand rules take one or two MiB."""

PIPE_SECONDS = 10.0
"""The timeout for a pipe's writer."""

_PIECE = 1 << 20


def read_text(path: Path, *, regular: bool = False) -> str:
    """Read a settings file. With `regular`, refuse pipes and devices. Raise SettingsError if it can't be read."""
    with _reading(path):
        return text_of(bounded(path, regular=regular), path)


def read_bytes(path: Path) -> bytes:
    """Read a settings file's bytes. Raise SettingsError if it can't be read."""
    with _reading(path):
        return bounded(path)


def bounded(path: Path, *, regular: bool = False) -> bytes:
    """Read a file, or a pipe such as `<(…)`, to its end within limits.

    Raises:
        OSError: when it can't be read, is too long, its writer stalls, or it is not `regular`, as required.
    """
    end, content = time.monotonic() + PIPE_SECONDS, bytearray()
    with open(path, "rb", buffering=0, opener=_without_waiting) as file:
        if regular and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is not a regular file")
        while len(content) <= MOST_BYTES:
            piece = file.read(_PIECE)
            if piece == b"":
                return bytes(content)
            if piece:
                content += piece
            elif not select.select([file], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"nothing more was written to it for {PIPE_SECONDS:g} s")
    raise OSError(f"it is longer than {MOST_BYTES:,} bytes")


def may_exist(path: Path) -> bool:
    """Whether a path exists or can't be checked; reading it then reports why."""
    try:
        return path.exists()
    except OSError:
        return True


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def resolved(path: Path) -> Path:
    """Return a path with symlinks resolved; it need not exist. Raise SettingsError if that is impossible."""
    with _reading(path):
        return path.resolve()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise SettingsError(
            "settings-not-found", f"{path} does not exist.", hint="Write one with `clawker-fw init`."
        ) from error
    except (OSError, ValueError, RuntimeError) as error:  # null characters; symlink loops before Python 3.13
        raise unreadable_settings(path, error) from error


def text_of(content: bytes, path: Path) -> str:
    r"""Return a settings file's text without a byte-order mark and with `\n` line breaks.

    Raises:
        SettingsError: when it is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise unreadable_settings(path, error) from error
