"""Runs commands, and records paths they read and call deciding: `traced.py OPENED DECIDING COMMAND...`."""

import os
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from clawker_fw.agents import deciding
from clawker_fw.cli import session
from clawker_fw.cli.main import app
from clawker_fw.engine.locate import locate
from devkit.memory.engine import MemoryEngine

_ASKED = {"open", "os.listdir", "os.scandir"}

if __name__ == "__main__":
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
    collected = Path(sys.argv[2])
    memory = MemoryEngine()
    files = deciding.files

    def hear(event: str, given: tuple[Any, ...]) -> None:
        """Record each file opened for reading, and each folder."""
        if event in _ASKED and isinstance(given[0], str | bytes | os.PathLike):
            writes = event == "open" and isinstance(given[2], int) and given[2] & os.O_WRONLY
            if not writes:
                os.write(log, os.path.abspath(os.fsencode(given[0])) + b"\n")  # noqa: PTH100 - bytes

    def collect(*given: Any) -> tuple[Path, ...]:  # noqa: ANN401 - passed on
        """Record the deciding files."""
        found = files(*given)
        collected.write_text("".join(f"{each}\n" for each in found))
        return found

    session.connect_engine = lambda chosen: memory  # noqa: ARG005 - the same name
    deciding.files = collect  # type: ignore[assignment]  # with the same arguments
    sys.addaudithook(hear)
    locate(None, None, os.environ)
    for command in sys.argv[3:]:
        line = command.split()
        done = CliRunner().invoke(app, line)
        if done.exit_code:
            sys.exit(f"{command}: {done.output}{done.exception!r}")
