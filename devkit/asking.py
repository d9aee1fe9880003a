"""`denials --ask` in a pseudo-terminal, over an in-memory engine with the agents `builder` and `tests`."""

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
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn, Self

from clawker_fw.__main__ import main
from clawker_fw.cli import session
from clawker_fw.errors import EngineError
from clawker_fw.model.containers import ContainerSpec, Shape
from devkit.memory.engine import MemoryEngine
from devkit.stacks import CHECKOUT, environment
from devkit.waiting import until

_AGENTS = ("builder", "tests")
_SIZE = struct.pack("HHHH", 40, 120, 0, 0)
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_LEFT_OUT = {"COLUMNS", "CI", "NO_COLOR"}


class Terminal:
    """The program in a terminal."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self._said = b""
        records, self._records = os.pipe()
        self._terminal, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, _SIZE)
        home = str(folder / "home")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "devkit.asking", str(records)],
            cwd=folder,
            env={name: value for name, value in environment().items() if name not in _LEFT_OUT}
            | {"PYTHONPATH": str(CHECKOUT), "TERM": "xterm-256color", "USER": "ana", "LOGNAME": "ana"}
            | {"XDG_CACHE_HOME": home, "XDG_STATE_HOME": home, **variables},
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

    def fail(self) -> None:
        """Have the engine fail from now on."""
        self.refuse("", None)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    @property
    def screen(self) -> str:
        """All lines that the terminal shows, also those above its first one, without their styles."""
        with suppress(OSError):  # nobody has the other end any more
            while select.select([self._terminal], [], [], 0.02)[0] and (
                octets := os.read(self._terminal, 1 << 16)
            ):
                self._said += octets
        return _STYLE.sub("", self._said.decode(errors="replace").replace("\r\n", "\n"))

    def shows(self, text: str) -> str:
        until(lambda: text in self.screen, 120)
        return self.screen

    def ended(self) -> int:
        until(lambda: self.screen and self.process.poll() is not None, 120)
        return self.process.wait()


def _refuse(memory: MemoryEngine, addresses: dict[str, str], records: int) -> None:
    """Write a record into a sibling's log for each line that arrives, until there are no more."""
    with os.fdopen(records, encoding="utf-8") as lines:
        for line in lines:
            agent, sibling, fields = json.loads(line)
            if not agent:
                envoy = memory.inside("clawker-envoy")
                memory.inside = _fail  # type: ignore[method-assign]  # what reads the logs calls it
                envoy.status = "exited"
                return
            record = {"time": "x", "source": f"{addresses[agent]}:40000", "port": 443, **fields}
            log = memory.inside(f"clawker-{sibling}")
            log.logged_at = datetime.now(UTC).strftime("%FT%T.%f000Z")
            log.log.append(json.dumps(record, separators=(",", ":")))


def _fail(container: str) -> NoReturn:
    raise EngineError("engine-error", f"The engine could not read the log of {container}.")


def _run(records: int) -> None:
    memory = MemoryEngine()
    session.connect_engine = lambda chosen: memory  # noqa: ARG005 - the same name
    sys.argv = ["clawker-fw", "run"]
    said = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Path(os.devnull).open("w") for _ in said)  # noqa: SIM115 - the program keeps them
    with suppress(SystemExit):
        main()
    sys.stdout, sys.stderr = said
    image, addresses = memory.inside("clawker-envoy").image, {}
    for name in _AGENTS:
        shape = Shape((), (), {"clawker-net": ""})
        memory.start(memory.create_container(ContainerSpec(name, image, {}, shape, {})))
        addresses[name] = memory.inside(name).networks["clawker-net"]
    threading.Thread(target=_refuse, args=(memory, addresses, records), daemon=True).start()
    sys.argv = ["clawker-fw", "denials", "--ask"]
    main()


if __name__ == "__main__":
    _run(int(sys.argv[1]))
