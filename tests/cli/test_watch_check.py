"""Asking a watcher for its health, from a script or as a container's health check."""

import socket
import subprocess
import sys
import threading
from http import HTTPStatus
from pathlib import Path

import pytest

from clawker_fw.watch.address import HEALTH, HEALTH_OF_SIBLINGS, ListenAddress
from clawker_fw.watch.page import Reply, served
from tests.cli.conftest import Command

UNAVAILABLE = HTTPStatus.SERVICE_UNAVAILABLE
PAGES = {
    HEALTH: lambda: Reply(b'{"healthy": false}\n', "application/json", UNAVAILABLE),
    HEALTH_OF_SIBLINGS: lambda: Reply(b'{"healthy": true}\n', "application/json"),
}


@pytest.mark.parametrize("kind", ["unix", "127.0.0.1", "::1"])
def test_a_watcher_is_asked(kind: str, command: Command, tmp_path: Path) -> None:
    """The exit code is the page's, and what it says is the answer; agents can be left out."""
    address = ListenAddress(path=tmp_path / "watch.sock") if kind == "unix" else ListenAddress(kind, 0)
    with served(address, PAGES) as where:
        judged = command("watch", "--check", str(where))
        assert (judged.code, judged.json) == (1, {"healthy": False})
        ignored = command("watch", "--check", str(where), "--agents", "ignore")
        assert (ignored.code, ignored.json) == (0, {"healthy": True})


def hang_up(listening: socket.socket) -> None:
    """End the first connection without a word."""
    listening.accept()[0].close()


def test_nobody_answers(command: Command, tmp_path: Path) -> None:
    """Nobody there, or nobody who speaks HTTP, is not healthy, and no error of the command."""
    path = tmp_path / "watch.sock"
    outcome = command("watch", "--check", f"unix:{path}")
    assert (outcome.code, "No watcher answers" in outcome.out) == (1, True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        answering = threading.Thread(target=hang_up, args=[listening])
        answering.start()
        outcome = command("watch", "--check", f"unix:{path}")
        answering.join()
    assert outcome.code == 1
    assert command("watch", "--check", "192.0.2.1:80").code == 2
    assert command("watch", "--agents", "ignore").code == 2, "it is about --check"


def test_little_is_imported() -> None:
    """An engine asks every few seconds: neither YAML, HTTP, the Docker SDK nor rich are imported."""
    script = (
        "import sys; sys.argv[1:] = ['watch', '--check', 'unix:/nowhere']\n"
        "from clawker_fw.cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"yaml", "http.client", "http.server", "docker", "rich"} & set(done.stdout.split())
