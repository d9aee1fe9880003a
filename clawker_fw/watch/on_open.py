"""What a watcher may do about an agent that has a way around the firewall. The command line imports this early."""

from enum import StrEnum


class OnOpen(StrEnum):
    """What is done about an open agent, besides a record of it."""

    WARN = "warn"
    DETACH = "detach"
    STOP = "stop"
