"""Answers of fwctl are read strictly: what is in an unknown form is an error, never empty."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from clawker_fw.errors import EngineError
from clawker_fw.fwctl.answers import (
    read_inherited,
    read_lookup,
    read_probe,
    read_secrets,
    read_suppressed,
    read_trial,
    read_usage,
)
from clawker_fw.model import NO_RECORDS, Use

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
USAGE = {"id": "a", "inherited": [], "since": 1, "now": 2, "lost": 0, "uses": []}
USED = {"protocol": "https", "name": "a.test", "port": 443, "first": 1, "last": 2}
WHOLE = {**USED, "connections": 1, "received": 2, "sent": 3}


def test_fewer_fields_are_enough() -> None:
    """What the helper of an earlier release does not report is empty, but it can't tell whether it is healthy."""
    probe = read_probe({**OLDEST, "others": None})
    assert (probe.build, probe.addresses) == ("b", ("10.0.0.1",))
    assert (probe.records, probe.collector, probe.restarts) == (NO_RECORDS, None, ())
    assert probe.unhealthy == "it can't tell"


def test_more_fields_are_ignored() -> None:
    """A helper may say more than is known here."""
    told = {**USAGE, "uses": [{**WHOLE, "more": 1}], "further": 1}
    assert read_usage(told).uses == (Use("https", "a.test", 443, 1, 2, 1, 2, 3),)


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        (read_probe, {name: value for name, value in OLDEST.items() if name != "build"}),
        (read_probe, {**OLDEST, "addresses": None}),
        (read_probe, {**OLDEST, "telemetry": [1]}),
        (read_probe, {**OLDEST, "telemetry": {"collector": {}}}),
        (read_probe, {**OLDEST, "telemetry": {"collector": {**SHOWN, "ends": 1e30}}}),
        (read_probe, {**OLDEST, "telemetry": {"collector": {**SHOWN, "begins": float("nan")}}}),
        (read_probe, {**OLDEST, "restarts": [{"helper": "h"}]}),
        (read_trial, {}),
        (read_trial, {"steps": []}),
        (read_trial, {"steps": [{}]}),
        (read_trial, {"steps": [{**STEP, "status": "none"}]}),
        (read_lookup, {"addresses": [], "errors": ""}),
        (read_lookup, {"addresses": [{"address": "10.0.0.1"}], "error": ""}),
        (read_suppressed, {}),
        (read_suppressed, {"refusals": "many"}),
        (read_suppressed, {"refusals": 1, "dropped": [1]}),
        (read_usage, {}),
        (read_usage, {**USAGE, "uses": None}),
        (read_usage, {**USAGE, "uses": [USED]}),
        (read_usage, {**USAGE, "uses": [{**WHOLE, "protocol": "gopher"}]}),
        (read_usage, {**USAGE, "uses": [{**WHOLE, "port": "x"}]}),
        (read_usage, {**USAGE, "since": None}),
        (read_usage, {**USAGE, "open": [1]}),
        (read_inherited, {"added": "yes"}),
        (read_secrets, {"secrets": {"a": {"digest": 7, "given": "2027-01-31T18:00:00Z"}}}),
        (read_secrets, {"secrets": {"a": {"digest": "d", "given": 7}}}),
        (read_secrets, {"secrets": {"a" * 1000: {}}}),
    ],
)
def test_another_form_is_an_error(read: Callable[[Mapping[str, Any]], object], answer: Mapping[str, Any]) -> None:
    """It says in some words which answer was not understood."""
    with pytest.raises(EngineError) as caught:
        read(answer)
    assert caught.value.code == "probe-unreadable"
    assert "in an unknown form" in caught.value.message
    assert len(caught.value.message) < 300


def test_an_error_does_not_show_a_digest() -> None:
    """Whoever has it and the key could try values."""
    with pytest.raises(EngineError) as caught:
        read_secrets({"secrets": {"a": {"digest": ["hidden"], "given": "2027-01-31T18:00:00Z"}}})
    assert "hidden" not in caught.value.message
    assert caught.value.__cause__ is None
