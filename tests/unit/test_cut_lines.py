"""Logs with truncated lines: later lines are read, and missing ones are reported."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clawker_fw.denials import reading
from clawker_fw.denials.reading import records
from clawker_fw.engine.newest import newest_lines
from clawker_fw.engine.outputs import STAMP, stamp
from clawker_fw.engine.port import EngineReader
from clawker_fw.model.stacks import Sibling
from devkit.memory.engine import MemoryEngine

CUT = b""


class Log(MemoryEngine):
    """An engine with one log, which ends at a truncated line or continues for `after` lines."""

    def __init__(self, lines: Sequence[bytes], after: int | None = None) -> None:
        super().__init__()
        self.lines = list(lines)
        self._after = after

    @contextmanager
    def log(
        self, container: str, lines: int | None, *, follow: bool = False, errors: bool = False
    ) -> Iterator[Iterator[list[bytes]]]:
        del container, follow, errors
        yield self._sent(self.lines[max(0, len(self.lines) - lines) :] if lines is not None else self.lines)

    def _sent(self, lines: list[bytes]) -> Iterator[list[bytes]]:
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
        """Return nothing: no refusals were handed over."""


def written(*cut: int) -> list[bytes]:
    return [CUT if at in cut else _line(at) for at in range(40)]


def _line(at: int) -> bytes:
    source = f'"source":"10.0.0.2:1","name":"{at}.test","reason":"no-rule","line":{at + 1}'
    return stamp(1_700_000_000 + at) + b" {" + source.encode() + b"}\n"


@given(st.sets(st.integers(1, 39), max_size=4), st.sampled_from([None, 0, 1, 3]), st.integers(-1, 39))
@example({39}, 1, -1)
def test_lines_behind_the_last_one_that_was_cut_off(cut: set[int], after: int | None, known: int) -> None:
    """Reading starts after the last truncated line, or at a known line if none was truncated since."""
    engine: EngineReader = Log(lines := written(*cut), after)
    behind = lines[max(cut, default=-1) + 1 :]
    newest = newest_lines(engine, "envoy", _line(known) if known >= 0 else b"")
    assert newest == lines[len(lines) - len(newest) :]
    assert newest == behind or (len(newest) < len(behind) and newest[0] <= _line(known) and known >= 0)


@given(st.sets(st.integers(1, 39), max_size=4), st.sampled_from([None, 0, 1, 3]), st.integers(-1, 39))
@example({39}, None, 0)
@example({20}, 3, 0)
def test_what_was_refused_is_shown_or_in_a_gap(cut: set[int], after: int | None, begin: int) -> None:
    """Each refusal is shown or lies in a reported gap; all after the last truncated line are shown."""
    since = _line(begin)[:STAMP] if begin >= 0 else b""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reading, "_FIRST_LINES", 4)
        tally = records(Log(lines := written(*cut), after), Sibling.ENVOY, "envoy", since)
    gaps = [*tally.gaps, *filter(None, [tally.numbering.missing_after(len(lines))])]
    shown = {refusal.name for refusal in tally.counted}
    for at in range(max(begin, 0), len(lines)):
        moment = _line(at)[:STAMP].decode()
        in_a_gap = any(gap.since < moment < (gap.until or "9") for gap in gaps)
        assert (f"{at}.test" in shown) != in_a_gap
        assert not in_a_gap or at <= max(cut)
