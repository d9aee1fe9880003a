"""A simulated internet beyond an engine's host: whoever goes there is forwarded by the host, as on every machine.

(`devkit.world` is in the engine's own network, where nothing has to be forwarded.)
"""

import subprocess
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path

from devkit.engines import PrivateEngine
from devkit.starting import own_network
from devkit.world import WORLD, Internet

HOST, _BEYOND, _LENGTH = "198.51.100.1", "198.51.100.2", 24
"""The two ends of the line between the host and the internet (TEST-NET-2, RFC 5737)."""


class Beyond(Internet):
    """A server at `WORLD` and a name server, in a network namespace that a cable connects with the engine's."""

    def __init__(
        self, engine: PrivateEngine, folder: Path, architecture: str, stack: ExitStack, *, routed: bool = False
    ) -> None:
        """Connect the host, and start the servers. A `routed` host need not masquerade."""
        holder = stack.enter_context(own_network())
        self._inside = ["nsenter", f"--net=/proc/{holder}/ns/net"]
        engine.run_in_network(
            ["ip", "link", "add", "uplink", "type", "veth", "peer", "name", "host", "netns", str(holder)]
        )
        engine.run_in_network(["ip", "address", "add", f"{HOST}/{_LENGTH}", "dev", "uplink"])
        engine.run_in_network(["ip", "link", "set", "uplink", "up"])
        for command in (
            f"address add {_BEYOND}/{_LENGTH} dev host",
            "link set host up",
            "link set lo up",
            *([f"route add 10.0.0.0/8 via {HOST}"] if routed else []),
        ):
            subprocess.run([*self._inside, "ip", *command.split()], check=True)
        engine.run_in_network(["ip", "route", "add", "default", "via", _BEYOND])
        super().__init__(engine, folder, architecture, stack)
        self.add(WORLD)
        self.origin = self.serve("origin", "--name", "world", "--http", "80,2222,2223", "--https", "443", "--tell")
        zone = {f"{name}.test": [WORLD] for name in ("pub", "plain", "stream", "talk", "denied", "heard")}
        self.resolve(zone)
        self.names = self.serve(
            "dns", "--listen", f"{WORLD}:5300", "--verbose", "--zone", f"heard.test={WORLD},refused.test={WORLD}"
        )

    def add(self, *addresses: str) -> None:
        for address in addresses:
            subprocess.run(
                [*self._inside, "ip", "address", "add", str(ip_network(address)), "dev", "lo"], check=True
            )

    def argv(self, *arguments: str, process: int | None = None) -> list[str]:
        if process is not None:
            return super().argv(*arguments, process=process)
        return [*self._inside, self._program, *arguments]
