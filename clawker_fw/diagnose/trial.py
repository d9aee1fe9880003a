"""Tries a connection as an agent, from the agent network, and finds our own record of a refusal.

Envoy answers refused requests itself, so a response alone does not prove that a host was reached.
"""

import json
import time
from contextlib import suppress
from dataclasses import dataclass

from clawker_fw.engine.port import EngineReader
from clawker_fw.fwctl import HelperReader
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Sibling
from clawker_fw.model.trials import Trial, TrialStep
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.target import Target

_RECORD_WITHIN = 2.0
"""Seconds until a refusal is logged; usually less than one."""
_LOOK_EVERY = 0.1
_LAST_LINES = 200
_FIRST_ERROR = 400
"""The lowest status with which Envoy refuses."""


@dataclass(frozen=True, slots=True)
class Attempted:
    """An attempt from the agent network. `reason` comes from our own records, if any."""

    trial: Trial
    reason: Reason | None

    @property
    def passed(self) -> bool:
        """Whether the host answered, as far as is known."""
        return (self.reason is None or self.reason.passes) and self.trial.steps[-1].ok


def attempt(reader: EngineReader, observed: Observed, target: Target, *request: str) -> Attempted:
    """Use a name as an agent would, or send a request (method and path), and find the record of a refusal.

    Raises:
        EngineError: when the attempt could not be made.
    """
    resolver = observed.siblings[Sibling.COREDNS].container.id
    trial = HelperReader(reader, resolver).trial(target.name, target.protocol.transport, target.port, *request)
    last = trial.steps[-1]
    # A refused datagram gets no answer at all.
    if last.ok and last.status < _FIRST_ERROR and last.name != "datagram":
        return Attempted(trial, None)
    recorder = observed.siblings.get(Sibling.COREDNS if last.name == "resolve" else Sibling.ENVOY)
    return Attempted(trial, _recorded(reader, recorder.container.id, last) if recorder else None)


def _recorded(reader: EngineReader, container: str, step: TrialStep) -> Reason | None:
    """Wait for the record of a refused step, and return its reason; None if it was not refused."""
    end = time.monotonic() + _RECORD_WITHIN
    while True:
        for line in reversed(reader.last_words(container, _LAST_LINES)):
            with suppress(ValueError):  # not a record, or a reason of another release
                record = json.loads(line)
                if isinstance(record, dict) and step.source and record.get("source") == step.source:
                    return Reason(str(record.get("reason")))
        if time.monotonic() > end:
            return None
        time.sleep(_LOOK_EVERY)
