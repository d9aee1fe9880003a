"""Counting refusals."""

import gzip
import json

import pytest

from clawker_fw.denials import tally
from clawker_fw.denials.tally import Tally, together
from clawker_fw.model.containers import ContainerSpec, Shape
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.handed_over import UNKNOWN_AGENT, hand_over, handed_over
from clawker_fw.stack.container import HANDED_OVER
from clawker_fw.stack.files import public
from devkit.memory.engine import MemoryEngine

BODY = b'{"name":"%s","port":443,"protocol":"tls","reason":"no-rule","source":"10.0.0.%d:%d","time":"%s"}\n'


def line(second: int, name: bytes, agent: int = 1, port: int = 1) -> bytes:
    time = b"2026-01-01T00:00:%02d" % second
    return time + b".000000000Z " + BODY % (name, agent, port, time)


def numbered(*numbers: int) -> list[bytes]:
    """Return lines with these numbers, one second apart."""
    return [line(number, b"a").replace(b"}\n", b',"line":%d}\n' % number) for number in numbers]


def gaps_in(*lines: bytes, chunk: int = 100) -> list[tuple[str, str]]:
    """Return the times between which lines are missing."""
    counted = Tally(Sibling.ENVOY)
    for begin in range(0, len(lines), chunk):
        counted.add(lines[begin : begin + chunk], own=True)
    return [(gap.since[17:19], (gap.until or "")[17:19]) for gap in counted.gaps]


@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize(
    ("numbers", "gaps"),
    [
        ((1, 2, 3), []),
        ((7, 8, 9), []),  # the engine has rotated the first lines away
        ((1, 2, 5, 6), [("02", "05")]),
        ((3, 4, 1, 2), []),  # another recorder
        ((1, 4, 5, 9), [("01", "04"), ("05", "09")]),
    ],
)
def test_a_number_that_is_missing_is_a_gap(
    numbers: tuple[int, ...], gaps: list[tuple[str, str]], chunk: int
) -> None:
    """An engine with a full disk loses lines silently; only missing numbers show that."""
    assert gaps_in(*numbered(*numbers), chunk=chunk) == gaps


def test_lines_without_numbers_have_no_gap() -> None:
    """Lines of earlier releases, and lines that are not records, have no numbers and no gaps."""
    assert gaps_in(line(1, b"a"), line(5, b"b")) == []
    one, two = numbered(1, 2)
    assert gaps_in(one, line(1, b"x").replace(b"{", b"[INFO] {"), two) == []


def test_too_many_different_ones_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that invents names uses bounded memory, and known refusals are still counted."""
    monkeypatch.setattr(tally, "MOST_DIFFERENT", 10)
    counted = Tally(Sibling.ENVOY)
    for second in range(4):
        counted.add([line(second, b"%d-%d.test" % (second, number)) for number in range(6)])
    counted.add([line(9, b"0-0.test")])
    found = together([counted])
    assert (len(found.counted), found.more) == (10, 14)
    assert found.counted[-1].times == 2


def test_what_was_handed_over_may_be_anything() -> None:
    """An invalid or truncated archive yields its readable lines."""
    engine = MemoryEngine()
    engine.pull_image("x", lambda _: None)
    container = engine.create_container(ContainerSpec("x", "x", {}, Shape((), (), {}), {}))
    whole = gzip.compress(line(1, b"a.test") * 3)
    for content, count in ((whole, 3), (b"no archive", 0), (b"", 0)):
        engine.put_files(container, {HANDED_OVER: public(content)})
        assert len(handed_over(engine, container)) == count


def test_what_was_only_counted_is_handed_over() -> None:
    """Refusals that were only counted are handed over as one line after the others."""
    engine = MemoryEngine()
    engine.pull_image("x", lambda _: None)
    old, new = (engine.create_container(ContainerSpec(name, "x", {}, Shape((), (), {}), {})) for name in "on")
    engine.inside(old).log += [BODY.decode().strip() % ("a.test", 1, 1, "x")]
    hand_over(engine, old, new)
    assert len(handed_over(engine, new)) == 1  # a stopped container can't be asked
    engine.inside(old).status = "running"
    hand_over(engine, old, new)
    assert len(handed_over(engine, new)) == 1  # no refusal was only counted
    engine.inside(old).status, engine.inside(old).suppressed = "running", 7
    engine.inside(old).limited = {"10.213.0.2": 9}
    counted_record = {"name": "b.test", "reason": "no-rule", "source": "10.213.0.3", "times": 4}
    engine.inside(old).counted, engine.inside(old).lines = [counted_record], 1
    engine.inside(old).log += [json.dumps({**counted_record, "line": 2})]  # since it was counted
    hand_over(engine, old, new)
    counted = Tally(Sibling.ENVOY)
    counted.add(handed_over(engine, new))
    found = together([counted])
    times = [(each.refusal.name, each.times) for each in found.counted]
    assert (times, found.suppressed) == ([("a.test", 1), ("b.test", 4)], {UNKNOWN_AGENT: 7, "10.213.0.2": 9})
