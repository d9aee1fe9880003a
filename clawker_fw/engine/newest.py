"""The newest lines of a log that has lines that were cut off, as on a disk that was full.

At such a line, an engine stops, or drops some lines and goes on. But it counts lines from the end of a log by
their ends alone. So it sends fewer lines than it was asked for exactly if one of them is cut off.
"""

from bisect import bisect_left

from clawker_fw.engine.port import EngineReader


def newest_lines(reader: EngineReader, container: str, after: bytes) -> list[bytes]:
    """Return the newest lines of a log, from one before `after` on, or from behind the last line that is cut off.

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
