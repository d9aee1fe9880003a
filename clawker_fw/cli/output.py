"""Writing the file that `--output` names."""

import os
import sys
from pathlib import Path

from clawker_fw.errors import OutputError

_STANDARD_OUTPUT = Path("-")


def write_output(path: Path, content: bytes) -> None:
    """Write the content of a file that the user names, or standard output for `-`.

    What exists is written to and stays what it is: a file with its owner and mode, a link, a device, a pipe. A new
    file appears when it is complete.

    Raises:
        OutputError: when it can't be written.
    """
    try:
        if path == _STANDARD_OUTPUT:
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
        elif os.path.lexists(path):
            path.write_bytes(content)
        else:
            _create(path, content)
    except OSError as error:
        name = "Standard output" if path == _STANDARD_OUTPUT else path
        raise OutputError("output-failed", f"{name} can't be written: {error.strerror}.") from None


def _create(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)  # from a process that was killed
    try:
        with fresh.open("xb") as stream:
            stream.write(content)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
