"""A watcher's records and metrics at a real OpenTelemetry Collector."""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clawker_fw.agents.judge import Agent
from clawker_fw.certificates.store import TelemetryStore
from clawker_fw.certificates.x509 import mint_authority
from clawker_fw.model.differences import Action, Cause, Finding, Layer, Verdict
from clawker_fw.model.stacks import Sibling
from clawker_fw.watch import otlp, record
from clawker_fw.watch.agents import ATTRIBUTES, Change, Presence
from clawker_fw.watch.decision import Decision, Reaction, RunOutcome, Trigger
from clawker_fw.watch.metrics import Metrics
from devkit.collectors import Collector, mutual_tls
from devkit.programs import free_port
from devkit.waiting import until

NAME = "collector.test"
FOUND = Finding(Sibling.ENVOY, Layer.STATE, "status", "exited", "running", Cause.TAMPER, Action.START)
CURRENT = dict.fromkeys(Sibling, Verdict.CURRENT)
HEALED = Decision(Trigger.EVENT, Reaction.HEAL, 0.5, CURRENT, (FOUND,), (FOUND,), (), RunOutcome.DONE)


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[tuple[otlp.CollectorEndpoint, Collector]]:
    """A collector, and what a watcher needs for it."""
    store = TelemetryStore(tmp_path / "certs", "test", keeps=True)
    store.provide()
    trust, pair = store.watcher()
    endpoint = f"127.0.0.1:{free_port()}"
    protocols = mutual_tls(tmp_path / "tls", endpoint, store.collector(NAME)[1], trust)
    with Collector(tmp_path / "collector", protocols) as collector:
        yield otlp.CollectorEndpoint(endpoint, NAME, trust, pair.certificate, pair.key), collector


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """The level of a program."""
    before = otlp.LOG.level
    otlp.LOG.setLevel(logging.INFO)
    yield
    otlp.LOG.setLevel(before)


def test_records_and_metrics_arrive(destination: tuple[otlp.CollectorEndpoint, Collector]) -> None:
    """Each decision is a record with the fields that it has in the log; metrics have the names of the page.

    The record of an agent has every attribute that is documented, by its own name.
    """
    to, collector = destination
    metrics = Metrics("1.2.3", "abc")
    agent = Agent("id", "coder", "image:1", "10.213.0.7", "2026-01-02T03:04:05Z")
    with otlp.sending(lambda: to, {"clawker_fw.project": "test"}, metrics):
        record.write(HEALED)
        metrics.report(HEALED)
        record.write_presence(Presence(Change.MOVED, agent, "10.213.0.6"))
        otlp.LOG.info("only words", extra={"words": "nothing"})

    found, moved = until(lambda: some if len(some := collector.records()) > 1 else None)
    assert (found.event, found.severity) == ("watch_decision", 13)
    assert found.resource == {"service.name": "clawker-fw-watch", "clawker_fw.project": "test"}
    assert found.attributes["clawker_fw.decision"] == "heal"
    shown = str(found.attributes["clawker_fw.found"])
    assert all(repr(word) in shown for word in ("envoy", "state", "status", "tamper", "start"))
    assert (moved.event, moved.severity) == ("agent_presence", 9)
    assert moved.attributes.keys() == ATTRIBUTES.keys()
    assert moved.attributes["client.address"] == "10.213.0.7"
    sent = until(collector.metrics)
    assert {name for name, *_ in metrics.kinds() if list(metrics.values(name))} == set(sent)
    assert len(sent) > 10
    (heals,) = sent["clawker_fw_heals_total"]["sum"]["dataPoints"]
    assert heals["asDouble"] == 1
    attributes = {each["key"]: each["value"]["stringValue"] for each in heals["attributes"]}
    assert attributes == {"action": "start", "outcome": "done"}


@pytest.mark.parametrize("wrong", ["down", "of another authority", "without certificates"])
def test_a_watcher_needs_no_collector(
    wrong: str, destination: tuple[otlp.CollectorEndpoint, Collector], caplog: pytest.LogCaptureFixture
) -> None:
    """Without a collector that takes records no decision waits for one, and the loss is logged once."""
    to, collector = destination
    decided = threading.Event()

    def find() -> otlp.CollectorEndpoint:
        assert decided.wait(30), "a decision waits for the collector"
        match wrong:
            case "down":
                return replace(to, endpoint=f"127.0.0.1:{free_port()}")
            case "of another authority":
                return replace(to, trust=mint_authority("test", time.time()).certificate)
        raise FileNotFoundError(2, "No such file", "watch.crt")

    with otlp.sending(find, {}, Metrics("1.2.3", "abc")):
        for _ in range(100):
            record.write(HEALED)
        decided.set()
        until(lambda: [each for each in caplog.records if each.getMessage() == "telemetry_lost"])
    assert not collector.records()
