"""Trying a connection as an agent would, from the agents' network, and finding our own record if it is refused.

Envoy answers refused requests itself, so a response alone does not say that a host was reached.
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
"""Seconds until a refusal is in the siblings' records; usually it takes less than one."""
_LOOK_EVERY = 0.1
_LAST_LINES = 200
_FIRST_ERROR = 400
"""The lowest status of a response that may be a refusal of Envoy."""


@dataclass(frozen=True, slots=True)
class Attempted:
    """An attempt from the agents' network. `reason` is the one in our own records, if there is one."""

    trial: Trial
    reason: Reason | None

    @property
    def passed(self) -> bool:
        """Whether the host answered, as far as can be told."""
        return self.reason is None and self.trial.steps[-1].ok


def attempt(reader: EngineReader, observed: Observed, target: Target, *request: str) -> Attempted:
    """Use a name as an agent would, or make a request (method and path), and find the record of a refusal.

    Raises:
        EngineError: when the attempt could not be made.
    """
    resolver = observed.siblings[Sibling.COREDNS].container.id
    trial = HelperReader(reader, resolver).trial(target.name, target.protocol.transport, target.port, *request)
    last = trial.steps[-1]
    # A datagram that leads nowhere is just not answered.
    if last.ok and last.status < _FIRST_ERROR and last.name != "datagram":
        return Attempted(trial, None)
    recorder = observed.siblings.get(Sibling.COREDNS if last.name == "resolve" else Sibling.ENVOY)
    reason = _recorded(reader, recorder.container.id, last) if recorder else None
    return Attempted(trial, reason)


def _recorded(reader: EngineReader, container: str, step: TrialStep) -> Reason | None:
    """Wait for the record of a refused step, and return its reason. What is not refused has no record."""
    end = time.monotonic() + _RECORD_WITHIN
    while True:
        for line in reversed(reader.last_words(container, _LAST_LINES)):
            with suppress(ValueError):  # no record, or a word of another release
                record = json.loads(line)
                if isinstance(record, dict) and step.source and record.get("source") == step.source:
                    return Reason(str(record.get("reason")))
        if time.monotonic() > end:
            return None
        time.sleep(_LOOK_EVERY)
