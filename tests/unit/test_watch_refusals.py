"""A watcher's count of refusals."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn, cast

import pytest

from clawker_fw.agents import names
from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import EngineError, FirewallError
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.desired_state import addressing
from clawker_fw.stack import labels
from clawker_fw.watch.metrics import Metrics
from clawker_fw.watch.refusals import NOT_RECORDED, RefusalCounter, keep_counting
from devkit import stacks
from devkit.memory.engine import MemoryEngine

LINE = '{"name":"a.test","port":443,"protocol":"tls","reason":"%s","source":"10.0.0.1:1"%s}'


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryEngine:
    """An engine with both containers of project `p`."""
    monkeypatch.setattr(names, "remembered_at", lambda: tmp_path / "agents.json")
    engine = MemoryEngine()
    engine.pull_image("x", lambda _: None)
    for sibling in Sibling:
        spec = stacks.never_started(f"p-{sibling}", "x", labels.sibling_labels("p", sibling, 0))
        engine.inside(engine.create_container(spec)).status = "running"
    return engine


def test_each_refusal_is_counted_once(engine: MemoryEngine) -> None:
    """Only new refusals count, by container and reason, including those without a log line."""
    counted: Counter[tuple[Sibling, str]] = Counter()
    metrics = Metrics("1", "x")

    def count(sibling: Sibling, reason: str, times: int) -> None:
        counted[sibling, reason] += times
        metrics.refused("", sibling, reason, times)

    counter = RefusalCounter("p", count)
    envoy, coredns = engine.inside("p-envoy"), engine.inside("p-coredns")
    envoy.log += [LINE % ("no-rule", "")] * 3  # before the watcher
    counter.look(engine)
    assert not counted
    envoy.logged_at = coredns.logged_at = "2999-01-01T00:00:01.000000000Z"
    coredns.log += [LINE % ("expired", ',"suppressed":7'), LINE % ("nonsense", "")]
    envoy.log += ['{"source":"","suppressed":11}', LINE % ("denied", ',"times":5')]
    counter.look(engine)
    counter.look(engine)
    assert counted == {
        (Sibling.ENVOY, "no-rule"): 3,
        (Sibling.ENVOY, "denied"): 5,
        (Sibling.COREDNS, "expired"): 1,
        (Sibling.COREDNS, NOT_RECORDED): 7,
        (Sibling.ENVOY, NOT_RECORDED): 11,
    }
    assert b'clawker_fw_refusals_total{group="",reason="no-rule",sibling="envoy"} 3.0' in metrics.page()


def test_what_conformance_tries_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals caused by `conformance` do not count, with or without a log line."""
    monkeypatch.setattr(names, "remembered_at", lambda: tmp_path / "agents.json")
    engine = MemoryEngine()
    seen = stacks.converged(engine, stacks.blueprint(engine.facts(), "a.test"))
    trial = str(addressing(seen.blueprint, seen.observed).trial)
    counted: Counter[str] = Counter()
    counter = RefusalCounter("clawker", lambda _, reason, times: counted.update({reason: times}))
    counter.look(engine)
    for sibling, source in ((Sibling.COREDNS, trial), (Sibling.ENVOY, trial), (Sibling.ENVOY, "10.213.0.9")):
        inside = engine.inside(f"clawker-{sibling}")
        inside.logged_at = "2999-01-01T00:00:01.000000000Z"
        inside.log += [(LINE % ("no-rule", ',"suppressed":5')).replace("10.0.0.1", source)]
    counter.look(engine)
    assert counted == {"no-rule": 1, NOT_RECORDED: 5}


def test_what_was_before_the_watcher_is_never_counted(
    engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier refusals never count, even if the engine fails at the first comparison."""
    counted: Counter[str] = Counter()
    counter = RefusalCounter("p", lambda _, reason, times: counted.update({reason: times}))
    envoy = engine.inside("p-envoy")

    def fail(*_: object) -> NoReturn:
        raise EngineError("engine-error", "It does not answer.")

    with monkeypatch.context() as failed, suppress(EngineError):
        failed.setattr(engine, "log", fail)
        counter.look(engine)
    envoy.log += [LINE % ("no-rule", "")]
    for second in range(2):
        envoy.logged_at = f"2999-01-01T00:00:0{second}.000000000Z"
        counter.look(engine)
    assert counted == {"no-rule": 2}


def test_a_mistake_of_ours_does_not_end_the_count(engine: MemoryEngine) -> None:
    """Any exception is reported once, and the next comparison takes place."""
    ended, looks = threading.Event(), iter((KeyError("a"), KeyError("a"), None))
    reported: list[FirewallError] = []

    class Failing(RefusalCounter):
        def look(self, reader: EngineReader) -> None:
            del reader
            failure = next(looks)
            if failure:
                raise failure
            ended.set()

    waits = SimpleNamespace(wait=lambda _: ended.is_set())
    counter = Failing("p", lambda *_: None)
    keep_counting(counter, lambda: nullcontext(engine), reported.append, cast("threading.Event", waits))
    assert [each.code for each in reported] == ["counting-failed"]


def test_a_look_that_fails_loses_nothing(engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """If CoreDNS's log is unreadable once, Envoy's new lines are counted at the next comparison."""
    counted: Counter[str] = Counter()
    counter = RefusalCounter("p", lambda _, reason, times: counted.update({reason: times}))
    counter.look(engine)
    envoy, coredns, reading = engine.inside("p-envoy"), engine.inside("p-coredns"), engine.log
    envoy.log += [LINE % ("no-rule", ',"suppressed":7')]
    envoy.logged_at = "2999-01-01T00:00:00.000000000Z"

    def fail(container: str, lines: int | None, **how: bool) -> AbstractContextManager[Iterator[list[bytes]]]:
        if container == coredns.id:
            raise EngineError("engine-error", "It does not answer.")
        return reading(container, lines, **how)

    listed = sorted(engine.listing(), key=lambda each: each.name, reverse=True)  # CoreDNS last
    monkeypatch.setattr(engine, "listing", lambda: listed)
    monkeypatch.setattr(engine, "log", fail)
    with pytest.raises(EngineError):
        counter.look(engine)
    monkeypatch.setattr(engine, "log", reading)
    counter.look(engine)
    assert counted == {"no-rule": 1, NOT_RECORDED: 7}
