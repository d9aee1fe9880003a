"""The real CoreDNS sends its decisions to a real OpenTelemetry Collector, but needs none to answer."""

import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from clawker_fw.certificates.credentials import Pair
from clawker_fw.certificates.x509 import mint_authority, mint_client, mint_server
from clawker_fw.model.stacks import Sibling
from clawker_fw.stack.collector import QUERY
from clawker_fw.stack.release import Release
from devkit.collectors import Collector, mutual_tls
from devkit.coredns import Program
from devkit.programs import free_port
from devkit.stacks import rule_set
from devkit.telemetry import ATTRIBUTES
from devkit.waiting import until

NAME = "collector.test"
SERVICE = "clawker-fw-coredns"
DAY = 86400


@dataclass
class Trust:
    """A CA, with certificates that it has signed for the resolver."""

    authority: Pair

    @classmethod
    def fresh(cls) -> "Trust":
        return cls(mint_authority("test", time.time() - DAY * 100))

    def client(self, now: float | None = None) -> Pair:
        """Return a new client certificate of the resolver."""
        return mint_client(self.authority, "test", Sibling.COREDNS, now or time.time())

    def server(self) -> Pair:
        """Return a certificate of the collector."""
        return mint_server(self.authority, NAME, time.time())

    def settings(self, port: int, pair: Pair | None = None, **change: object) -> dict[str, object]:
        own = pair or self.client()
        return {
            "endpoint": f"127.0.0.1:{port}",
            "server_name": NAME,
            "ca": self.authority.certificate.decode(),
            "certificate": own.certificate.decode(),
            "key": own.key.decode(),
            "sample": 1.0,
            "resource": {"service.name": SERVICE, "clawker_fw.project": "test"},
            **change,
        }


@pytest.fixture(scope="module")
def trust() -> Trust:
    return Trust.fresh()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Program]:
    """The resolver, for all tests of this module."""
    with Program(tmp_path_factory.mktemp("coredns"), release) as started:
        started.serve(rule_set("a.test")[1])
        yield started


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory, trust: Trust, port: int) -> Iterator[Collector]:
    """The collector, for all tests of this module."""
    folder = tmp_path_factory.mktemp("collector")
    protocols = mutual_tls(folder, f"127.0.0.1:{port}", trust.server(), trust.authority.certificate)
    with Collector(folder, protocols) as started:
        yield started


def _counted(program: Program) -> int:
    status = program.telemetry_status
    return int(status["sent"]) + int(status["lost"])


def _sends_more(program: Program) -> None:
    known = program.telemetry_status["sent"]
    until(lambda: program.telemetry_status["sent"] > known)


def _asks(program: Program, count: int, name: str) -> None:
    """Send this many queries, each of which must be answered, and wait until their records are counted."""
    before = _counted(program)
    answers = program.resolver.ask_all([f"{number}.{name}" for number in range(count)])
    assert len(answers) == count
    until(lambda: _counted(program) >= before + count, 60)


def test_each_query_has_a_record(program: Program, collector: Collector, trust: Trust, port: int) -> None:
    """A record gives the agent, the query, the decision and its reason."""
    program.send(trust.settings(port))
    before = len(collector.records())
    for name, kind in (("a.test", 1), ("A.test", 28), ("b.test", 16), ("a.test", 252), ("x*.test", 1)):
        program.ask(name, kind=kind)
    found = until(lambda: new if len(new := collector.records()[before:]) == 5 else None)

    assert all(each.event == "dns.query" for each in found)
    assert {key: value for key, value in found[0].resource.items() if key != "service.version"} == {
        "service.name": SERVICE,
        "clawker_fw.project": "test",
    }
    documented = {each.name for each in ATTRIBUTES if QUERY in each.events} - {"event.name"}
    assert set().union(*(each.attributes for each in found)) == documented
    durations = [each.attributes.pop("clawker_fw.duration_ms") for each in found]
    assert all(isinstance(each, float) and 0 < each < 1000 for each in durations)
    shown = {
        (
            each.severity,
            *(each.attributes[f"dns.{key}"] for key in ("question.name", "question.type", "response.code")),
            each.attributes["dns.answer.count"],
            *(each.attributes.get(f"clawker_fw.{key}") for key in ("action", "reason")),
        )
        for each in found
    }
    assert shown == {  # in any order: a record is made after its answer has been sent
        (9, "a.test", "A", "NOERROR", 1, "allowed", None),
        (9, "A.test", "AAAA", "NOERROR", 0, "allowed", None),
        (13, "b.test", "TXT", "NXDOMAIN", 0, "refused", "no-rule"),
        (13, "a.test", "AXFR", "REFUSED", 0, "refused", "bad-request"),
        (13, "x*.test", "A", "NXDOMAIN", 0, "refused", "bad-name"),
    }
    assert {each.attributes["client.address"] for each in found} == {"127.0.0.1"}


def test_allowed_queries_are_sampled(program: Program, collector: Collector, trust: Trust, port: int) -> None:
    """With a share of 0, only refused queries have records."""
    program.send(trust.settings(port, sample=0.0))
    before = len(collector.records())
    program.ask("a.test")
    program.ask("b.test")
    until(lambda: len(collector.records()) > before)
    assert [each.attributes["dns.question.name"] for each in collector.records()[before:]] == ["b.test"]


def test_a_new_certificate_loses_nothing(program: Program, collector: Collector, trust: Trust, port: int) -> None:
    """While certificates are replaced, every record arrives. An unusable pair leaves the working one in use."""
    program.send(trust.settings(port))
    before, lost = len(collector.records()), program.telemetry_status["lost"]
    ended = threading.Event()
    asked = itertools.count()

    def ask() -> None:
        while not ended.wait(0.002):
            program.resolver.ask_all([f"{next(asked)}.rotate.test"])

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(3):
            program.send(trust.settings(port))
            _sends_more(program)
        unusable = trust.settings(port) | {"key": trust.client().key.decode()}
        program.write(json.dumps(unusable).encode(), program.telemetry)
        until(lambda: "private key does not match" in program.telemetry_status["reason"])
        _sends_more(program)
    finally:
        ended.set()
        asking.join()
    count = next(asked)
    until(lambda: len(collector.records()) == before + count)
    assert program.telemetry_status["lost"] == lost


def _wrong(trust: Trust, port: int) -> dict[str, dict[str, object]]:
    """Return settings with wrong client certificates, or for another collector, so that nothing may arrive."""
    now = time.time()
    return {
        "of another authority": trust.settings(port, Trust.fresh().client()),
        "expired": trust.settings(port, trust.client(now - DAY * 95)),
        "not yet valid": trust.settings(port, trust.client(now + DAY)),
        "a server's": trust.settings(port, trust.server()),
        "to another name": trust.settings(port, server_name="other.test"),
        "to another authority": trust.settings(port, ca=Trust.fresh().authority.certificate.decode()),
    }


def test_wrong_certificates_are_refused(
    collector: Collector, release: Release, trust: Trust, port: int, tmp_path: Path
) -> None:
    """The collector refuses a wrong client, the resolver a wrong collector. Each record is counted as lost.

    One more may be counted for the query of the readiness check, because records follow their answers.
    """
    programs = {}
    with ExitStack() as stack:
        for number, (what, settings) in enumerate(_wrong(trust, port).items()):
            (tmp_path / str(number)).mkdir()
            programs[what] = stack.enter_context(Program(tmp_path / str(number), release))
            programs[what].send(settings)
            programs[what].resolver.ask_all(["wrong.test"] * 20)
        for what, each in programs.items():
            until(lambda: each.telemetry_status["lost"] >= 20)  # noqa: B023 - asked at once
            assert each.telemetry_status["sent"] == 0, what
    assert not [each for each in collector.records() if each.attributes["dns.question.name"] == "wrong.test"]


@pytest.fixture
def silent() -> Iterator[int]:
    """A port at which the kernel accepts connections, but nobody answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_answers_do_not_need_a_collector(program: Program, trust: Trust, silent: int) -> None:
    """With a collector that is down or silent, no query waits for it, and all are counted.

    Of 20,000 records, 8,192 may wait; the others are dropped in batches of 512, each after 5 s. A waiting query
    would time out.
    """
    program.send({})
    for settings in ({}, trust.settings(free_port()), trust.settings(silent)):
        program.send(settings)
        before = _counted(program)
        assert len(program.resolver.ask_all(["a.test", "b.test"] * 10_000)) == 20_000
        if settings:  # a query is counted after its answer; 8192 records may wait, and 512 be under way
            until(lambda: _counted(program) >= before + 20_000 - 8192 - 512)  # noqa: B023 - asked at once
    program.send({})


def test_records_flow_again(program: Program, collector: Collector, trust: Trust, port: int) -> None:
    """A collector that returns gets records again."""
    program.send(trust.settings(port))
    _asks(program, 10, "before.test")
    collector.stop()
    try:
        _asks(program, 10, "during.test")
    finally:
        collector.start()
    sent = program.telemetry_status["sent"]
    until(lambda: program.ask("after.test") and program.telemetry_status["sent"] > sent)
