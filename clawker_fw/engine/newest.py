"""Reads the newest lines of a log that may have truncated lines, for example from a full disk.

At a truncated line, an engine stops, or skips lines. But it counts lines from the log's end only by line ends. So
it sends fewer lines than requested exactly if one of them is truncated.
"""

from bisect import bisect_left

from clawker_fw.engine.port import EngineReader


def newest_lines(reader: EngineReader, container: str, after: bytes) -> list[bytes]:
    """Return the newest lines of a log, from one at or before `after`, or after the last truncated line.

    Raises:
        EngineError: when the log can't be read.
    """

    def read(number: int) -> list[bytes]:
        with reader.log(container, number) as log:
            return [line for some in log for line in some]

    number, lines = 1, read(1)
    while len(lines) >= number and lines[0] > after:
        number *= 2
        lines = read(number)
    if len(lines) < number:
        number = bisect_left(range(number), 1, number // 2, key=lambda fewer: fewer - len(read(fewer)))
        lines = read(number - 1)
    return lines
