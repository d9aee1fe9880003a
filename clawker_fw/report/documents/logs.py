"""The lines of `logs`."""

from dataclasses import dataclass

from clawker_fw.report.documents import Moment


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of `clawker-fw logs --format json`."""

    time: Moment
    """When the engine read it."""
    container: str
    line: str
    """What the program wrote."""
