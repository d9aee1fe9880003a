"""Many hosts that do not answer, with a real process. `test_swarm.py` has hosts that do."""

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from devkit.firewall import RULES, Firewall
from devkit.stacks import environment

TIMEOUT, SLACK = 5.0, 20.0
"""Seconds that each host may take, and seconds for the start and a busy machine."""

COUNT = 24
"""More hosts than are queried at the same time."""


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[dict[str, socket.socket]]:
    """Listening sockets by address, which never accept, so that they appear to hang."""
    with ExitStack() as stack:
        found = {}
        for number in range(COUNT):
            made = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
            made.bind(str(tmp_path / f"{number}"))
            made.listen()
            found[f"unix://{tmp_path}/{number}"] = made
        yield found


@pytest.fixture
def firewall(tmp_path: Path) -> Firewall:
    made = Firewall("", "fleet", tmp_path)
    made.write(*RULES)
    return made


def status(firewall: Firewall, *addresses: str) -> list[str]:
    """Return the command line that queries hosts."""
    return [*firewall.command("fleet", "status"), *(word for each in addresses for word in ("--host", each))]


def test_a_silent_host_costs_its_own_time(firewall: Firewall, silent: dict[str, socket.socket]) -> None:
    """Each silent host has its row, and none waits for another."""
    hanging, dead = [*silent][:2], f"unix://{firewall.folder}/no.sock"
    command = [*status(firewall, *hanging, dead), "--timeout", f"{TIMEOUT:g}s", "--format", "json"]
    outcome = firewall.call_raw(command).expect(4)
    assert outcome.seconds < TIMEOUT + SLACK
    found = {each["name"]: (each["verdict"], each["error"]["code"]) for each in outcome.json["hosts"]}
    assert found == {
        **dict.fromkeys(hanging, ("unreachable", "engine-silent")),
        dead: ("unreachable", "engine-unreachable"),
    }


def test_an_interrupted_look_ends_at_once(firewall: Firewall, silent: dict[str, socket.socket]) -> None:
    """Ctrl-C ends it with exit code 130 despite hanging hosts, and leaves no processes or files."""
    temporary = firewall.folder / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [*status(firewall, *silent), "--timeout", "3m"],
        env=environment(TMPDIR=str(temporary)),
        cwd=firewall.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    first = next(iter(silent.values()))
    first.settimeout(30)
    accepted, _ = first.accept()  # it is being queried
    with closing(accepted):
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < SLACK
    assert (process.returncode, "error[interrupted]" in said) == (130, True)
    assert list(temporary.iterdir()) == []
    left = subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, check=False, timeout=30)
    assert left.stdout == b""
