"""The client of `fwctl`, checked against the protocol description (`go/cmd/fwctl/protocol.json`)."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.errors import EngineError
from clawker_fw.fwctl import (
    PROTOCOL,
    Committed,
    Helper,
    Suppressed,
)
from clawker_fw.model.probes import NO_RECORDS, Probe
from clawker_fw.model.secrets import HeldSecret, HeldSecrets
from clawker_fw.model.usage import Usage, Use
from devkit.memory.engine import MemoryEngine

DESCRIBED = json.loads((Path(__file__).resolve().parents[2] / "go/cmd/fwctl/protocol.json").read_text())
VERBS = DESCRIBED["verbs"]
RUN_BY_CONTAINERS = {"requirements", "attempts"}


class Described(MemoryEngine):
    """An engine whose helpers give the described answers, or `instead`."""

    def __init__(self, *instead: object) -> None:
        super().__init__()
        self._instead = instead
        self.asked: list[list[str]] = []
        self.sent = b""

    def ask_helper(self, container: str, arguments: Sequence[str], silence: float, *, sent: bytes = b"") -> object:
        answers: list[object] = []
        self.run_helper(container, arguments, answers.append, silence, sent=sent)
        (answer,) = answers
        return answer

    def run_helper(
        self,
        container: str,
        arguments: Sequence[str],
        on_line: Callable[[Any], None],
        silence: float,
        *,
        sent: bytes = b"",
    ) -> None:
        self.sent = sent
        assert container == "a"
        assert silence > 0
        self.asked.append(list(arguments))
        for answer in self._instead or VERBS[arguments[0]]["answers"]:
            on_line(answer)


def test_every_verb_is_asked_as_it_is_described() -> None:
    """Each verb has one method that passes its arguments; there are no other verbs."""
    engine = Described()
    helper = Helper(engine, "a")
    helper.probe(envoy=False, starting=True)
    helper.suppressed()
    helper.usage()
    helper.lookup("a.test")
    helper.agents_see("{}")
    helper.relayed(["10.0.0.2/24", "10.0.1.2/24", "-", "10.0.0.3", "80"])
    helper.trial("a.test", "https", 443, "GET", "/v1")
    helper.try_proxy({"requests": ["CONNECT"]})
    assert json.loads(engine.sent) == {"requests": ["CONNECT"]}
    helper.commit({}, lambda: None)
    helper.secrets(bytes(32))
    assert json.loads(engine.sent) == {"key": "A" * 43 + "=", "give": None, "keep": [], "rest": []}
    helper.give_secrets(bytes(32), {"github": "Bearer a"}, ["x"], ["github"])
    assert json.loads(engine.sent) == {
        "key": "A" * 43 + "=",
        "give": {"github": "Bearer a"},
        "keep": ["x"],
        "rest": ["github"],
    }
    helper.claim(1)
    helper.release()
    helper.drain(2, lambda _: None)
    verbs = {verb for verb, *_ in engine.asked}
    assert verbs == VERBS.keys() - RUN_BY_CONTAINERS
    for verb, *arguments in engine.asked:
        described = VERBS[verb]["arguments"]
        if verb == "probe":  # the engine's client adds evidence, if any
            described = [each for each in described if "=" not in each]
            assert arguments == described
        assert len(arguments) == len(described), verb


def test_each_value_of_a_probe_is_read() -> None:
    """Every field of a probe is read from the answer."""
    probe, empty = Helper(Described(), "a").probe(), Probe()
    assert [each.name for each in fields(Probe) if getattr(probe, each.name) == getattr(empty, each.name)] == []


def test_each_value_of_the_other_answers_is_read() -> None:
    """Every described field reaches the caller."""
    helper = Helper(Described(), "a")
    (looked,) = VERBS["lookup"]["answers"]
    found = helper.lookup("a.test")
    assert ([each.address for each in found.addresses], found.error) == (["192.0.2.1"], looked["error"])
    assert found.addresses[0].closed == ("egress",)
    (step,) = helper.trial("a.test", "https", 443, "GET", "/v1").steps
    (described,) = VERBS["try"]["answers"][0]["steps"]
    assert (step.name, step.source, step.seconds) == (described["step"], described["source"], described["seconds"])
    assert (step.ok, step.status, step.outcome) == (described["ok"], described["status"], described["outcome"])
    (proxied,) = helper.try_proxy({})
    assert [asdict(proxied)] == VERBS["proxy"]["answers"][0]["answers"]
    counted = VERBS["suppressed"]["answers"][0]["counted"]
    assert helper.suppressed() == Suppressed(7, 12, {"10.213.0.2": 3}, tuple(counted))
    used = helper.usage()
    use = Use("https", "a.test", 443, 1, 2, 3, 4, 5)
    assert used == Usage("one", 1, 6, (use,), 7, {"443": 9})
    assert helper.agents_see("{}") == ("connection refused",)
    taken: list[bool] = []
    assert helper.commit({}, lambda: taken.append(True)) == Committed(
        committed=True, refused=("names",), reason="it could not be read", hung=True
    )
    assert taken == [True]
    assert helper.secrets(bytes(32)) == HeldSecrets(
        {"github#bearer": HeldSecret("d1", 1801418400, at_rest=True)}, frozenset({"api#raw"})
    )
    left: list[int] = []
    helper.drain(1, left.append)
    assert left == [1]


def test_a_later_protocol_is_refused() -> None:
    """An unknown protocol is one error with a remedy."""
    assert DESCRIBED["protocol"] == PROTOCOL
    later = {**VERBS["probe"]["answers"][0], "protocol": PROTOCOL + 1}
    with pytest.raises(EngineError) as caught:
        Helper(Described(later), "a").probe()
    assert caught.value.code == "helper-newer"
    assert "clawker-fw run" in (caught.value.hint or "")


OLDEST = {
    "build": "b",
    "connections": 3,
    "addresses": ["10.0.0.1"],
    "claimed": False,
    "network": [],
    "error": "",
}
"""What the probe of every release prints."""

SHOWN = {"subject": "CN=c", "names": ["c"], "begins": 1, "ends": 2, "sha256": "c0ffee"}
STEP = {"step": "connect", "source": "10.1.0.2:40000", "seconds": 0.5, "ok": True, "status": 0, "outcome": "x"}
USAGE = {"id": "a", "since": 1, "now": 2, "lost": 0, "uses": []}
USED = {"protocol": "https", "name": "a.test", "port": 443, "first": 1, "last": 2}
WHOLE = {**USED, "connections": 1, "received": 2, "sent": 3}


READING: dict[str, Callable[[Helper], object]] = {
    "probe": Helper.probe,
    "suppressed": Helper.suppressed,
    "usage": Helper.usage,
    "lookup": lambda helper: helper.lookup("a.test"),
    "try": lambda helper: helper.trial("a.test", "https", 443),
    "see": lambda helper: helper.agents_see("{}"),
    "secrets": lambda helper: helper.secrets(bytes(32)),
}
"""A call of each verb that changes nothing."""


@pytest.mark.parametrize("read", READING.values(), ids=READING)
@pytest.mark.parametrize("answer", [None, [], "words", 1])
def test_what_is_no_answer(read: Callable[[Helper], object], answer: object) -> None:
    """A line that is not a JSON object is an error for every reading verb, never an empty answer."""
    with pytest.raises(EngineError) as caught:
        read(Helper(Described(answer), "a"))
    assert caught.value.code == "probe-unreadable"


def test_fewer_fields_are_enough() -> None:
    """Fields missing in an earlier helper's answer are empty; its health is unknown."""
    probe = Helper(Described({**OLDEST, "others": None}), "a").probe()
    assert (probe.build, probe.addresses) == ("b", ("10.0.0.1",))
    assert (probe.records, probe.collector, probe.restarts) == (NO_RECORDS, None, ())
    assert probe.failed_checks is None
    assert probe.unhealthy == "it can't tell"


def test_more_fields_are_ignored() -> None:
    """Unknown fields are ignored."""
    told = {**USAGE, "uses": [{**WHOLE, "more": 1}], "further": 1}
    assert Helper(Described(told), "a").usage().uses == (Use("https", "a.test", 443, 1, 2, 1, 2, 3),)


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        (Helper.probe, {name: value for name, value in OLDEST.items() if name != "build"}),
        (Helper.probe, {**OLDEST, "addresses": None}),
        (Helper.probe, {**OLDEST, "telemetry": {"collector": {}}}),
        (Helper.probe, {**OLDEST, "telemetry": {"collector": {**SHOWN, "ends": 1e30}}}),
        (Helper.probe, {**OLDEST, "restarts": [{"helper": "h"}]}),
        (READING["try"], {"steps": []}),
        (READING["try"], {"steps": [{**STEP, "status": "none"}]}),
        (READING["lookup"], {"addresses": [], "errors": ""}),
        (Helper.suppressed, {}),
        (Helper.suppressed, {"refusals": "many"}),
        (Helper.usage, {**USAGE, "uses": None}),
        (Helper.usage, {**USAGE, "uses": [{**WHOLE, "protocol": "gopher"}]}),
        (Helper.usage, {**USAGE, "since": None}),
        (READING["see"], {"agents_see": None}),
        (lambda helper: helper.drain(1, print), {}),
        (READING["secrets"], {"secrets": {"a": {"digest": "d", "given": 7}}}),
        (READING["secrets"], {"secrets": {"a" * 1000: {}}}),
    ],
)
def test_another_form_is_an_error(read: Callable[[Helper], object], answer: Mapping[str, Any]) -> None:
    """The error names the answer that was not understood."""
    with pytest.raises(EngineError) as caught:
        read(Helper(Described(answer), "a"))
    assert caught.value.code == "probe-unreadable"
    assert "in an unknown form" in caught.value.message
    assert len(caught.value.message) < 300


def test_an_error_does_not_show_a_digest() -> None:
    """Digests stay hidden: with one and the key, values could be guessed."""
    with pytest.raises(EngineError) as caught:
        READING["secrets"](
            Helper(Described({"secrets": {"a": {"digest": ["hidden"], "given": "2027-01-31T18:00:00Z"}}}), "a")
        )
    assert "hidden" not in caught.value.message
    assert caught.value.__cause__ is None
