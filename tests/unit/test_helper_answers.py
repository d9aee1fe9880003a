"""Other answers of fwctl than probes are read strictly: what is in an unknown form is an error, never empty."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from clawker_fw.errors import EngineError
from clawker_fw.fwctl.answers import read_lookup, read_suppressed, read_trial
from clawker_fw.model import Trial, TrialStep

STEP = {"step": "connect", "source": "10.1.0.2:40000", "seconds": 0.5, "ok": True, "status": 0, "outcome": "x"}


def test_an_attempt_has_its_steps_in_order() -> None:
    """The last one is how far it came."""
    last = {**STEP, "step": "request", "ok": False, "status": 403}
    assert read_trial({"steps": [STEP, last]}) == Trial(
        (
            TrialStep("connect", "10.1.0.2:40000", 0.5, ok=True, status=0, outcome="x"),
            TrialStep("request", "10.1.0.2:40000", 0.5, ok=False, status=403, outcome="x"),
        )
    )


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        (read_trial, {}),
        (read_trial, {"steps": []}),
        (read_trial, {"steps": [{}]}),
        (read_trial, {"steps": [{**STEP, "status": "none"}]}),
        (read_lookup, {"addresses": [], "errors": ""}),
        (read_lookup, {"addresses": [{"address": "10.0.0.1"}], "error": ""}),
        (read_suppressed, {}),
        (read_suppressed, {"refusals": "many"}),
    ],
)
def test_another_form_is_an_error(read: Callable[[Mapping[str, Any]], object], answer: Mapping[str, Any]) -> None:
    """It says which answer was not understood."""
    with pytest.raises(EngineError) as caught:
        read(answer)
    assert caught.value.code == "probe-unreadable"
    assert "in an unknown form" in caught.value.message
