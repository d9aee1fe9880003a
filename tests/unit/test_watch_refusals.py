"""A watcher's count of refusals."""

from collections import Counter
from pathlib import Path

import pytest

from clawker_fw.denials import agents
from clawker_fw.engine.memory import MemoryEngine
from clawker_fw.model import ContainerSpec, Shape, Sibling
from clawker_fw.stack import labels
from clawker_fw.watch.metrics import Metrics
from clawker_fw.watch.refusals import NOT_RECORDED, RefusalCounter

LINE = '{"name":"a.test","port":443,"protocol":"tls","reason":"%s","source":"10.0.0.1:1"%s}'


def test_each_refusal_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is new is counted, by sibling and reason; also what the siblings have only counted."""
    monkeypatch.setattr(agents, "remembered_at", lambda: tmp_path / "agents.json")
    engine = MemoryEngine()
    engine.pull_image("x", lambda _: None)
    logs = {}
    for sibling in Sibling:
        spec = ContainerSpec(f"p-{sibling}", "x", labels.sibling_labels("p", sibling, 0), Shape((), (), {}), {})
        logs[sibling] = engine.inside(engine.create_container(spec))
        logs[sibling].status = "running"
    counted: Counter[tuple[Sibling, str]] = Counter()
    metrics = Metrics("1", "x")

    def count(sibling: Sibling, reason: str, times: int) -> None:
        counted[sibling, reason] += times
        metrics.refused(sibling, reason, times)

    counter = RefusalCounter("p", count)
    envoy, coredns = logs[Sibling.ENVOY], logs[Sibling.COREDNS]
    envoy.log += [LINE % ("no-rule", "")] * 3  # before the watcher
    envoy.suppressed = 1000
    counter.look(engine)
    assert not counted
    envoy.logged_at = coredns.logged_at = "2999-01-01T00:00:01.000000000Z"
    coredns.log += [LINE % ("expired", ',"suppressed":7'), LINE % ("nonsense", "")]
    envoy.log += ['{"source":"","suppressed":1000}']  # handed over by a predecessor
    envoy.suppressed = 1011
    counter.look(engine)
    counter.look(engine)
    assert counted == {
        (Sibling.ENVOY, "no-rule"): 3,
        (Sibling.COREDNS, "expired"): 1,
        (Sibling.COREDNS, NOT_RECORDED): 7,
        (Sibling.ENVOY, NOT_RECORDED): 11,
    }
    assert b'clawker_fw_refusals_total{reason="no-rule",sibling="envoy"} 3.0' in metrics.page()
    envoy.suppressed = 2  # it has been restarted
    envoy.logged_at = "2999-01-01T00:00:02.000000000Z"
    counter.look(engine)
    assert counted[Sibling.ENVOY, NOT_RECORDED] == 13
