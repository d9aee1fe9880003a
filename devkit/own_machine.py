"""What is done within a machine that was booted for one host: its engine has the machine's own namespaces."""

import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from signal import Signals

from devkit.engines import PrivateEngine
from devkit.hosts import HOSTS, Host, perform, prepare
from devkit.world import NAMESERVER

_TIMED = ("replacement", "restart")
"""Steps with bounds that User-Mode Linux is too slow for."""

_PATIENCE = 600.0
"""The seconds that a command may take."""


class OwnEngine(PrivateEngine):
    """An engine whose host is this machine, as on an ordinary one. It ends with the machine."""

    @property
    def init(self) -> int:
        """Process 1 of this machine."""
        return 1

    def network_argv(self, *argv: str) -> list[str]:
        """Return the command itself: its network is the engine's."""
        return list(argv)

    def _nsenter(self) -> list[str]:
        return []

    def _signal(self, name: str) -> None:
        if self._daemon is not None:  # a child of this process, which has to wait for it
            self._daemon.send_signal(Signals[f"SIG{name}"])
            self._daemon.wait()
            self._daemon = None


def start(host: Host, folder: Path) -> OwnEngine:
    """Start the engine of a host."""
    engine = OwnEngine(folder)
    engine.configure({"dns": [NAMESERVER], **host.settings})
    for name, value in host.sysctls.items():
        engine.run_in_network(["sysctl", "--quiet", "--write", f"{name}={value}"])
    for command in host.before:
        engine.run_in_network(shlex.split(command))
    engine.start()
    return engine


def main() -> None:
    """Try the host whose name is the argument."""
    (host,) = (host for host in HOSTS if host.name == sys.argv[1])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine = start(host, folder)
        stack.callback(engine.stop)
        job = prepare(host, engine, stack)
        job.left_out, job.firewall.patience = _TIMED, _PATIENCE
        perform(host, job)


if __name__ == "__main__":
    main()
