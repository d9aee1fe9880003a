"""Where a watcher serves its pages: a loopback address or a unix socket of this machine."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from clawker_fw.rules.rule import HIGHEST_PORT

HEALTH = "/health"
"""The page that says whether the stack is current, and every agent confined."""

HEALTH_OF_SIBLINGS = "/health/siblings"
"""The page that says the same of the siblings alone."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A loopback address with a port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    def __str__(self) -> str:
        """Return the address as on the command line."""
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> ListenAddress:
    """Parse `HOST:PORT` with a loopback host, or `unix:PATH` with an absolute path, or raise ValueError."""
    kind, _, path = text.partition(":")
    if kind == "unix":
        if not Path(path).is_absolute():
            raise ValueError(f"{path!r} is not an absolute path; write unix:/run/…/watch.sock")
        return ListenAddress(path=Path(path))
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback or not (port.isascii() and port.isdigit() and int(port) <= HIGHEST_PORT):
        raise ValueError(f"{text!r} is not a loopback address; write 127.0.0.1:PORT, [::1]:PORT or unix:PATH")
    return ListenAddress(host, int(port))
