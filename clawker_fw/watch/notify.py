"""Telling a service manager how it goes: the protocol of sd_notify(3), a datagram of a few lines."""

import os
import socket
from collections.abc import Mapping

from clawker_fw.watch.decision import Decision


class Manager:
    """The service manager that started us, if one did and wants to be told."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read from the environment where it listens, and whether it wants signs of life."""
        self._address = environment.get("NOTIFY_SOCKET", "")
        for_us = environment.get("WATCHDOG_PID", "") in {"", str(os.getpid())}
        self._watchdog = for_us and bool(environment.get("WATCHDOG_USEC"))
        self._is_ready = False

    def tell(self, decision: Decision) -> None:
        """Say what came of a look, and after each that succeeds that we are alive."""
        words = decision.error.message if decision.error else f"{decision.answer}, {decision.verdict}"
        alive = self._sign_of_life() if decision.verdict is not None else []
        self._say(*self._ready(), f"STATUS={words}", *alive)

    def alive(self) -> None:
        """Give a sign of life while something long goes on."""
        self._say(*self._ready(), *self._sign_of_life())

    def stopping(self) -> None:
        """Say that we are about to end."""
        self._say("STOPPING=1")

    def _ready(self) -> list[str]:
        """Say so with the first thing that is said: the first heal may take longer than a manager waits."""
        ready, self._is_ready = self._is_ready, True
        return [] if ready else ["READY=1"]

    def _sign_of_life(self) -> list[str]:
        return ["WATCHDOG=1"] if self._watchdog else []

    def _say(self, *lines: str) -> None:
        if not self._address.startswith(("/", "@")) or not lines:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
            try:
                notifier.sendto("\n".join(lines).encode(), address)
            except OSError:
                return  # nobody listens; it is their decision what follows from silence
