"""`denials --ask` at a real terminal: the program in a pseudo-terminal, what it shows, and a person who types."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from devkit import asked
from devkit.stacks import CHECKOUT, environment
from devkit.waiting import until

COLUMNS, LINES = 120, 40
_OVER_MEMORY = (sys.executable, "-m", "devkit.asked", "--", "denials", "--ask")
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A program in a terminal: `denials --ask`, over an in-memory engine unless it is given."""

    def __init__(
        self,
        folder: Path,
        *,
        program: Sequence[str] = _OVER_MEMORY,
        **variables: str,
    ) -> None:
        """Start the program in the folder of a settings file. `program` is another command that runs it."""
        self._said = b""
        records, self._records = os.pipe()
        self._terminal, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        home = str(folder / "home")
        given = {
            **{name: value for name, value in environment().items() if name not in {"COLUMNS", "CI", "NO_COLOR"}},
            "PYTHONPATH": str(CHECKOUT),
            "TERM": "xterm-256color",
            "XDG_CACHE_HOME": home,
            "XDG_STATE_HOME": home,
            "USER": "ana",
            "LOGNAME": "ana",
            asked.NAME: str(records),
            **variables,
        }
        self.process = subprocess.Popen(
            program,
            cwd=folder,
            env=given,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            pass_fds=[records],
            start_new_session=True,
        )
        os.close(records)
        os.close(inside)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._records)
        os.close(self._terminal)

    def refuse(self, agent: str, name: str | None, sibling: str = "envoy", **fields: object) -> None:
        """Have an agent be refused something: a TLS connection, unless the fields say otherwise."""
        record = {"protocol": "tls", "reason": "no-rule", "name": name, **fields}
        line = f"{json.dumps([agent, sibling, record])}\n".encode()
        while line:
            line = line[os.write(self._records, line) :]

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def _read(self) -> None:
        while select.select([self._terminal], [], [], 0.02)[0]:
            try:
                octets = os.read(self._terminal, 1 << 16)
            except OSError:  # nobody has the other end any more
                return
            if not octets:
                return
            self._said += octets

    @property
    def screen(self) -> str:
        """All lines that the terminal shows, also those above its first one, without their styles."""
        self._read()
        return _STYLE.sub("", self._said.decode(errors="replace").replace("\r\n", "\n"))

    def shows(self, text: str) -> str:
        until(lambda: text in self.screen, 120)
        return self.screen

    def ended(self) -> int:
        until(self._has_ended, 120)
        return self.process.wait()

    def _has_ended(self) -> bool:
        self._read()
        return self.process.poll() is not None
