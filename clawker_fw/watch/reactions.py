"""What a watcher does without being asked: the differences that it closes, and what becomes of open agents."""

from enum import StrEnum


class Heal(StrEnum):
    """Which differences a watcher closes without being asked."""

    TAMPER = "tamper"
    ALL = "all"
    NONE = "none"


class OnOpen(StrEnum):
    """What is done about an open agent, besides a record of it."""

    WARN = "warn"
    DETACH = "detach"
    STOP = "stop"
