"""Status notifications to a service manager: the protocol of sd_notify(3), one datagram of a few lines."""

import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress

from clawker_fw.watch.decision import Decision


class Manager:
    """The service manager that started this process, if there is one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read from the environment the manager's socket, and whether it expects watchdog pings."""
        self._address = environment.get("NOTIFY_SOCKET", "")
        for_us = environment.get("WATCHDOG_PID", "") in {"", str(os.getpid())}
        self._watchdog = for_us and bool(environment.get("WATCHDOG_USEC"))
        self._is_ready = False
        self._silent: dict[str, bool] = {}
        """By stack: whether it has not been heard of since the last ping."""
        self._lock = threading.Lock()

    def watched(self, stack: str) -> None:
        """Add a stack, without which nothing counts as alive."""
        with self._lock:
            self._silent[stack] = True

    def forget(self, stack: str) -> None:
        """Remove a stack that is no longer watched."""
        with self._lock:
            self._silent.pop(stack, None)

    def report(self, stack: str, decision: Decision) -> None:
        """Report the decision as status, and ping the watchdog.

        A look that fails has ended as well. Another watcher would fail as this one does, with less in memory: the
        watchdog is for a watcher that hangs.
        """
        words = decision.error.message if decision.error else f"{decision.answer}, {decision.verdict}"
        self.alive(stack, f"STATUS={stack}: {words}" if len(self._silent) > 1 else f"STATUS={words}")

    def alive(self, stack: str, *status: str) -> None:
        """Ping the watchdog during a long operation, and after an attempt of which there is nothing new to say.

        With several stacks, the ping follows when all have been heard of: the watchdog notices if one hangs.
        The first message reports readiness: the first heal may outlast the manager's start timeout.
        """
        with self._lock:
            ready, self._is_ready = self._is_ready, True
            self._silent[stack] = False
            heard = not any(self._silent.values())
            if heard:
                self._silent = dict.fromkeys(self._silent, True)
        watchdog = ["WATCHDOG=1"] if self._watchdog and heard else []
        self._say(*([] if ready else ["READY=1"]), *status, *watchdog)

    def stopping(self) -> None:
        """Report that the process is about to exit."""
        self._say("STOPPING=1")

    def _say(self, *lines: str) -> None:
        if not self._address.startswith(("/", "@")) or not lines:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier, suppress(OSError):
            notifier.sendto("\n".join(lines).encode(), address)  # if nobody listens, the manager decides about it
