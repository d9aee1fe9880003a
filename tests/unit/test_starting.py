"""Waiting for a program that was started ends when it answers, and not when its socket's file exists."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

import pytest

from devkit.starting import StartError, pings, wait_for
from devkit.waiting import until


class _Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def running() -> Iterator["subprocess.Popen[bytes]"]:
    """A program that does nothing."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process


def test_a_socket_at_which_nobody_listens_yet(running: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    """The file alone is no answer; the program is waited for until it listens."""
    path = tmp_path / "program.sock"
    server = UnixStreamServer(str(path), _Answering, bind_and_activate=False)
    server.server_bind()
    assert path.exists()
    assert not pings(path)
    waiting = threading.Thread(target=wait_for, args=(running, lambda: pings(path)))
    waiting.start()
    server.server_activate()
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    waiting.join(20)
    assert not waiting.is_alive()
    server.shutdown()
    serving.join()
    server.server_close()


def test_a_program_that_ends_or_is_silent(running: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    """The error says which program, how it went, and the end of its log."""
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    with pytest.raises(
        StartError, match=r"input\(\) does not answer within 0.05 s; the end of its log:\nline 80\n"
    ):
        wait_for(running, lambda: False, log, seconds=0.05)
    with subprocess.Popen(["sh", "-c", "exit 3"]) as ending:
        until(lambda: ending.poll() is not None)
        with pytest.raises(StartError, match="has ended with 3"):
            wait_for(ending, lambda: False)
