"""The docker CLI as a child of this process, with which it shares the terminal and signals.

`docker run` can't be stopped between creating and starting a container, so we call `docker create` and later
`docker start`. This module makes up for their differences to `docker run` (docker/cli, cli/command/container).
"""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Self

from clawker_fw import interrupts
from clawker_fw.agents.docker_options import RunWords
from clawker_fw.errors import EngineError

FAILED = 1
"""The exit code of `docker create` and `docker start` after any failure."""

RUN_FAILED = 125
"""The exit code of `docker run` if docker itself fails."""

_ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
_PASSED_ON = (*sorted(_ENDING), signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)

_ID = re.compile("[0-9a-f]{64}")

_COMPOSE_NEEDED = (2, 24, 4)
"""Earlier releases ignore `!override`, so a service would keep its networks and bypass the firewall."""

_VERSION_SECONDS = 10.0


def require_compose(program: str | None) -> None:
    """Require that an installed Docker Compose replaces networks as our override file says.

    Raises:
        EngineError: if it is too old.
    """
    if program is None:
        return
    asked = (program, "compose", "version", "--short")
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=_VERSION_SECONDS)
    except (OSError, ValueError, subprocess.SubprocessError):
        return  # the file may be for another machine
    if (version := re.match(r"v?(\d+)\.(\d+)\.(\d+)", done.stdout)) is None:
        return
    if tuple(map(int, version.groups())) < _COMPOSE_NEEDED:
        raise EngineError(
            "compose-too-old",
            f"Docker Compose {done.stdout.strip()} would leave the services on their own networks.",
            hint="Install Docker Compose 2.24.4 or later, which understands `!override`.",
        )


class DockerCli:
    """The docker CLI."""

    def __init__(self, program: str, place: Sequence[str]) -> None:
        self._command = [program, *place]
        self._pass_on: Callable[[int], object] | None = None
        self._waiting: list[int] = []
        self.stopped = False
        """Whether a signal has come that ends programs."""

    def go_on(self) -> None:
        """Continue, unless a signal has come that ends programs.

        Raises:
            KeyboardInterrupt: if one has.
        """
        if self.stopped:
            raise KeyboardInterrupt

    @contextmanager
    def gets_signals(self) -> Iterator[Self]:
        """Pass signals on to the running command instead of ending, except ignored signals."""
        taken = [number for number in _PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
        with interrupts.handled(self._receive, *taken):
            yield self

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.stopped = self.stopped or number in _ENDING
        if self._pass_on:
            self._pass_on(number)
        else:
            self._waiting.append(number)

    def create(self, words: Sequence[str]) -> str | int:
        """Create a container. Returns its id or, without a container, the exit code of `docker run`."""
        child = self._begin("create", *words, stdout=subprocess.PIPE)
        out = self._to_end(child, child.send_signal)
        output = out.split()
        if child.returncode == 0 and output and _ID.fullmatch(output[-1]):
            return output[-1]
        if out:
            os.write(1, os.fsencode(out))
        return RUN_FAILED if child.returncode == FAILED else _exit_code(child)

    def start(self, container: str, run_words: RunWords) -> int:
        """Start a container and attach to it until it ends, unless it is detached. Returns docker's exit code.

        `docker start` passes no signals to a container with a terminal, and newer versions (28) end at a signal
        while the container runs on. So `docker kill` sends them.
        """
        options = [] if run_words.detached else ["--attach", *(["--interactive"] if run_words.interactive else [])]
        child = self._begin("start", *options, container)

        def pass_on(number: int) -> None:
            name = signal.Signals(number).name
            if number == signal.SIGWINCH:
                child.send_signal(number)
            elif self._quietly("kill", f"--signal={name}", container, stderr=subprocess.DEVNULL).returncode:
                child.send_signal(number)  # the container does not run yet

        self._to_end(child, pass_on)
        return _exit_code(child)

    def _begin(self, *words: str, stdout: int | None = None) -> "subprocess.Popen[str]":
        """Start a command in a new session: it gets no signals of the terminal, but can use it."""
        command = [*self._command, *words]
        return subprocess.Popen(
            command, stdout=stdout, text=True, errors="surrogateescape", start_new_session=True
        )

    def _to_end(self, child: "subprocess.Popen[str]", pass_on: Callable[[int], object]) -> str:
        """Wait for a command, and pass signals on to it, including earlier ones."""
        self._pass_on = pass_on
        try:
            while self._waiting:
                pass_on(self._waiting.pop())
            return child.communicate()[0] or ""
        finally:
            self._pass_on = None

    def remove(self, container: str) -> None:
        """Remove a container with its anonymous volumes, whatever signals come.

        Raises:
            EngineError: if it can't be removed.
        """
        done = self._quietly("rm", "--force", "--volumes", container)
        if done.returncode:
            raise EngineError("engine-error", f"docker could not remove the container {container}.")

    def _quietly(self, *words: str, stderr: int | None = None) -> "subprocess.CompletedProcess[bytes]":
        """Run a command that no terminal can interrupt, and that prints only errors."""
        command = [*self._command, *words]
        return subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True, check=False
        )


def _exit_code(child: "subprocess.Popen[str]") -> int:
    return child.returncode if child.returncode >= 0 else 128 - child.returncode
