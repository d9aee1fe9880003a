"""What a watcher does without being asked: the differences that it closes, and what becomes of open agents.

The command line imports this module early, so it must import nothing heavy.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

if TYPE_CHECKING:
    from clawker_fw.model import Cause


class Heal(StrEnum):
    """Which differences a watcher closes without being asked."""

    TAMPER = "tamper"
    ALL = "all"
    NONE = "none"

    @property
    def causes(self) -> "frozenset[Cause]":
        """The causes of the differences to close."""
        from clawker_fw.model import Cause  # noqa: PLC0415

        match self:
            case Heal.TAMPER:
                return frozenset({Cause.TAMPER, Cause.AGENT})
            case Heal.ALL:
                return frozenset(Cause)
            case Heal.NONE:
                return frozenset()
            case _:
                assert_never(self)


class OnOpen(StrEnum):
    """What is done about an open agent, besides a record of it."""

    WARN = "warn"
    DETACH = "detach"
    STOP = "stop"
