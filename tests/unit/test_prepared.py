"""A command in a fork of the prepared interpreter is what a process of its own would be."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from devkit import prepared
from devkit.stacks import environment

TOLD = """
import json, os, signal, sys, time

def handler(number):
    found = signal.getsignal(number)
    return getattr(found, "__name__", str(found))

streams = [sys.stdin, sys.stdout, sys.stderr]
print(json.dumps({
    "name": __name__, "arguments": sys.argv, "path": sys.path[0], "folder": os.getcwd(),
    "environment": dict(os.environ), "zone": time.tzname, "umask": os.umask(0),
    "parent": os.getppid(), "group": os.getpgrp(), "session": os.getsid(0),
    "descriptors": os.listdir("/proc/self/fd"),
    "streams": [(each.encoding, each.errors, each.line_buffering, each.isatty()) for each in streams],
    "signals": {int(number): handler(number) for number in signal.valid_signals()},
    "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "input": sys.stdin.read(),
}))
"""

ENDS = {
    "it ends": "print('said')",
    "it is told to exit with a code": "import sys; print('said'); sys.exit(3)",
    "it is told to exit with a sentence": "import sys; sys.exit('a sentence')",
    "it fails": "raise ValueError('a failure')",
    "it kills itself": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "it is interrupted": """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
os.kill(os.getpid(), signal.SIGINT)
signal.pause()
""",
    "it does something at its end": "import atexit; atexit.register(print, 'last'); print('first')",
    "a thread goes on": """
import threading
def go_on():
    threading.main_thread().join()
    print("late")
threading.Thread(target=go_on).start()
""",
}


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """The file of a module called `told`."""
    return tmp_path / "told.py"


@pytest.fixture
def interpreter() -> Iterator[prepared.Interpreter]:
    """A prepared interpreter of its own."""
    made = prepared.Interpreter(environment())
    yield made
    made.close()


def both(module: Path, *arguments: str, **variables: str) -> list["subprocess.Popen[str]"]:
    """Start the module in a fork, and as a process of its own."""
    command, given = [sys.executable, "-m", "told", *arguments], environment(**variables)
    named: Mapping[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        prepared.start(command, module.parent, given),
        subprocess.Popen(command, cwd=module.parent, env=given, **named),
    ]


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, list[str]]:
    """Return the exit code, the output, and the lines of the errors that are not about files around the module."""
    out, err = process.communicate(timeout=30)
    lines = err.splitlines()
    own = next((number for number, line in enumerate(lines) if "told.py" in line), 0)
    return process.returncode, out, lines[own:]


def test_all_that_a_process_is_given(module: Path) -> None:
    """Arguments, environment, folder, umask, streams, signals and relatives are those of a process of its own."""
    module.write_text(TOLD)
    before = os.umask(0o026)
    try:
        fork, own = both(module, "one", "two words", A_VARIABLE="a\nvalue")
    finally:
        os.umask(before)
    assert type(fork) is not type(own)
    told = json.loads(ended(fork)[1])
    assert told == json.loads(ended(own)[1])
    assert told["arguments"][1:] == ["one", "two words"]


@pytest.mark.parametrize("how", ENDS)
def test_every_end(how: str, module: Path) -> None:
    """Exit codes, signals, and what is written at the end are those of a process of its own."""
    module.write_text(ENDS[how])
    fork, own = both(module)
    assert ended(fork) == ended(own)
