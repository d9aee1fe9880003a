"""Writing the file that `--output` names."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from clawker_fw.errors import OutputError

STANDARD_OUTPUT = Path("-")


def write_output(path: Path, content: bytes) -> None:
    """Write a whole file, like `writing`.

    Raises:
        OutputError: when it can't be written.
    """
    with writing(path) as stream:
        stream.write(content)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Yield what takes the content of a file that the user names, or of standard output for `-`.

    What exists is written to and stays what it is: a file with its owner and mode, a link, a device, a pipe. A new
    file appears when it is complete.

    Raises:
        OutputError: when it can't be written.
    """
    try:
        if path == STANDARD_OUTPUT:
            yield sys.stdout.buffer
            sys.stdout.flush()
        elif os.path.lexists(path):
            with path.open("wb") as stream:
                yield stream
        else:
            yield from _creating(path)
    except OSError as error:
        name = "Standard output" if path == STANDARD_OUTPUT else path
        raise OutputError("output-failed", f"{name} can't be written: {error.strerror}.") from None


def _creating(path: Path) -> Iterator[BinaryIO]:
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)  # from a process that was killed
    try:
        with fresh.open("xb") as stream:
            yield stream
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
