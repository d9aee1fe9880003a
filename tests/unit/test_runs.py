"""Logs with lines that were cut off: every other line is read, and where some are missing is told."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clawker_fw.denials.reading import records
from clawker_fw.denials.refusal import Gap
from clawker_fw.engine.outputs import stamp
from clawker_fw.engine.port import EngineReader
from clawker_fw.engine.runs import complete, last_run, runs
from clawker_fw.model.stacks import Sibling
from devkit.memory.engine import MemoryEngine

CUT = b""


class Log(MemoryEngine):
    """An engine with one log. At a line that is cut off it ends, or it goes on `after` so many further lines."""

    def __init__(self, lines: Sequence[bytes], after: int | None = None) -> None:
        super().__init__()
        self.lines = list(lines)
        self._after = after

    @contextmanager
    def log(
        self, container: str, lines: int | None, *, follow: bool = False, errors: bool = False
    ) -> Iterator[Iterator[list[bytes]]]:
        """See `EngineReader`."""
        del container, follow, errors
        yield self._sent(self.lines[max(0, len(self.lines) - lines) :] if lines is not None else self.lines)

    def _sent(self, lines: list[bytes]) -> Iterator[list[bytes]]:
        """Yield what an engine sends of some lines."""
        at = 0
        while at < len(lines):
            if lines[at] == CUT:
                if self._after is None:
                    return
                at += self._after
            else:
                yield [lines[at]]
            at += 1

    def file(self, container: str, path: str) -> None:
        """Return nothing: nothing has been handed over."""


def written(*cut: int, total: int = 40) -> list[bytes]:
    """Return lines, some of which are cut off."""
    return [CUT if at in cut else _line(at) for at in range(total)]


def _line(at: int) -> bytes:
    source = f'"source":"10.0.0.2:1","name":"{at}.test","reason":"no-rule"'
    return stamp(1_700_000_000 + at) + b" {" + source.encode() + b"}\n"


@given(st.sets(st.integers(2, 39), max_size=8), st.sampled_from([None, 0, 1, 3]))
@example({0, 2}, 1)
def test_every_line_that_is_whole_is_read(cut: set[int], after: int | None) -> None:
    """However an engine goes on after a line that was cut off. The runs are what is between such lines."""
    engine: EngineReader = Log(lines := written(*cut), after)
    whole = [line for line in lines if line != CUT]
    found = runs(engine, "envoy", b"")
    assert [line for run in found for line in run] == whole
    assert len([run for run in found if run]) <= len(cut) + 1
    assert (found[-1] == []) == (lines[-1] == CUT)


@given(st.sets(st.integers(1, 39), max_size=3), st.sampled_from([None, 0, 3]))
def test_a_log_is_complete_without_cut_lines(cut: set[int], after: int | None) -> None:
    """Which one request after reading it shows, by the number of lines."""
    engine: EngineReader = Log(written(*cut), after)
    with engine.log("envoy", None) as log:
        lines = [line for some in log for line in some]
    assert complete(engine, "envoy", lines[0], lines[-1], len(lines)) == (not cut)


@pytest.mark.parametrize(("cut", "until"), [(20, 21), (39, None)])
def test_a_gap_is_told_with_its_time(cut: int, until: int | None) -> None:
    """It is between the last line before and the first one after; if there is none after, it is open."""
    tally = records(Log(written(cut)), Sibling.ENVOY, "envoy", b"")
    assert len(tally.counted) == 39
    times = [_line(each)[:30].decode() for each in (cut - 1, *([until] if until else []))]
    assert tally.gaps == [Gap(Sibling.ENVOY, times[0], times[1] if until else None)]


def test_the_last_run_goes_back_to_the_last_cut_line() -> None:
    """Or as far as is asked."""
    engine: EngineReader = Log(written(10, 20))
    assert last_run(engine, "envoy", 100) == written()[21:]
    assert last_run(engine, "envoy", 5) == written()[35:]
