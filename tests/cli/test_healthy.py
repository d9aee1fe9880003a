"""Asking a watcher for its health, in a script or as a container's health check."""

import socket
import subprocess
import sys
import threading
from http import HTTPStatus
from pathlib import Path

import pytest

from clawker_fw.watch.address import HEALTH, HEALTH_OF_SIBLINGS, ListenAddress
from clawker_fw.watch.page import Reply, served

UNAVAILABLE = HTTPStatus.SERVICE_UNAVAILABLE
PAGES = {
    HEALTH: lambda: Reply(b'{"healthy": false}\n', "application/json", UNAVAILABLE),
    HEALTH_OF_SIBLINGS: lambda: Reply(b'{"healthy": true}\n', "application/json"),
}


def healthy(*arguments: str) -> tuple[int, str]:
    program = (sys.executable, "-m", "clawker_fw.watch.healthy")
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize("kind", ["unix", "127.0.0.1", "::1"])
def test_a_watcher_is_asked(kind: str, tmp_path: Path) -> None:
    """The exit code and the text come from the health page."""
    address = ListenAddress(path=tmp_path / "watch.sock") if kind == "unix" else ListenAddress(kind, 0)
    with served(address, PAGES) as where:
        assert healthy(str(where)) == (1, '{"healthy": false}')
        assert healthy(str(where), HEALTH_OF_SIBLINGS) == (0, '{"healthy": true}')


def hang_up(listening: socket.socket) -> None:
    listening.accept()[0].close()


def test_nobody_answers(tmp_path: Path) -> None:
    """A missing watcher, or a server without HTTP, is unhealthy; a wrong command line is an error."""
    path = tmp_path / "watch.sock"
    code, answer = healthy(f"unix:{path}")
    assert (code, "No watcher answers" in answer) == (1, True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        answering = threading.Thread(target=hang_up, args=[listening])
        answering.start()
        assert healthy(f"unix:{path}")[0] == 1
        answering.join()
    assert healthy("127.0.0.1:http")[0] == 1
    assert [healthy(*wrong)[0] for wrong in ((), ("watch.sock",), (f"unix:{path}", "health"))] == [2, 2, 2]


def test_the_health_check_costs_nearly_nothing() -> None:
    """Engines run it every few seconds, so it imports only a socket and nothing slow."""
    script = (
        "import sys; before = set(sys.modules); import clawker_fw.watch.healthy; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.startswith("clawker_fw")}
    assert ours == {"clawker_fw", "clawker_fw.watch", "clawker_fw.watch.healthy"}
    assert not {"typer", "yaml", "http.client", "docker", "rich", "dataclasses", "pathlib"} & set(
        done.stdout.split()
    )
