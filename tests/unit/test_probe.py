"""Reading what `fwctl` prints: by helpers of earlier releases too, and whatever a sibling makes of it."""

from typing import Any

import pytest

from clawker_fw.errors import EngineError
from clawker_fw.fwctl.answers import read_probe
from clawker_fw.model import NO_RECORDS, Records, Restart, ServerCertificate

OLDEST = {
    "build": "b",
    "connections": 3,
    "addresses": ["10.0.0.1"],
    "claimed": False,
    "network": [],
    "error": "",
}
"""What the helper of every release prints."""

SHOWN = {"subject": "CN=c", "names": ["c"], "begins": 1, "ends": 2, "sha256": "c0ffee"}


def test_fewer_fields_are_enough() -> None:
    """What the helper of an earlier release does not report is empty, but it can't tell whether it is healthy."""
    probe = read_probe(OLDEST)
    assert (probe.build, probe.addresses) == ("b", ("10.0.0.1",))
    assert (probe.records, probe.collector, probe.restarts) == (NO_RECORDS, None, ())
    assert probe.unhealthy == "it can't tell"


def test_what_beside_the_program_has_happened() -> None:
    """The collector's certificate and the helpers that have ended are read as they are printed."""
    restart = {"helper": "h", "count": 2, "last": "2026-01-01T00:00:00Z", "reason": "r", "recent": []}
    probe = read_probe({**OLDEST, "telemetry": {"sent": 7, "lost": 1, "collector": SHOWN}, "restarts": [restart]})
    assert probe.records == Records(7, 1)
    assert probe.collector == ServerCertificate("CN=c", ("c",), 1, 2, "c0ffee")
    assert probe.collector.document() == SHOWN
    assert probe.restarts == (Restart("h", 2, "2026-01-01T00:00:00Z", "r"),)


@pytest.mark.parametrize(
    "change",
    [
        {"build": ...},
        {"telemetry": [1]},
        {"telemetry": {"collector": {}}},
        {"telemetry": {"collector": {**SHOWN, "ends": 1e30}}},
        {"telemetry": {"collector": {**SHOWN, "begins": float("nan")}}},
        {"restarts": [{"helper": "h"}]},
    ],
)
def test_another_form_is_an_error(change: dict[str, Any]) -> None:
    """Then the sibling counts as not answering; nothing later fails because of it."""
    answer = {name: value for name, value in {**OLDEST, **change}.items() if value is not ...}
    with pytest.raises(EngineError):
        read_probe(answer)
