"""Performs the attempts as an agent, in a temporary container of ours."""

import json
from contextlib import suppress
from dataclasses import dataclass, replace

from clawker_fw.agents.attachment import attachment
from clawker_fw.agents.trusted_roots import roots_of
from clawker_fw.diagnose.conformance.requests import attempts_in_tls, inspected_host
from clawker_fw.diagnose.conformance.table import Case, attempts
from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError
from clawker_fw.model.containers import ContainerSpec
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.desired_state import addressing
from clawker_fw.reconcile.one_shot import one_shot
from clawker_fw.reconcile.pipeline import Comparison
from clawker_fw.stack import labels
from clawker_fw.stack.container import ATTEMPTS, HELPER, HELPER_PATH, trial_name
from clawker_fw.stack.files import public

_WITHIN = 60.0
"""The time limit for all attempts in seconds. They run in parallel, so 10 are usual."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """An attack, which must be stopped, or a control, which must get through."""

    id: str
    what: str
    """What was tried, in words."""
    control: bool
    """Whether it is allowed, and must succeed."""
    outcome: str
    expected: list[str]
    """The outcomes with which it counts as held."""
    held: bool

    @classmethod
    def of(cls, tried: Case, outcome: str) -> "CaseResult":
        """Return the result of an attempt."""
        return cls(tried.id, tried.what, tried.control, outcome, sorted(tried.holds), outcome in tried.holds)


def perform(engine: EngineWriter, comparison: Comparison) -> list[CaseResult]:
    """Make all attempts against a stack, in a container like an agent's that runs the helper.

    Raises:
        RefusedError: when another container already has the name.
        EngineError: when the attempts could not be made.
    """
    where, policy = addressing(comparison.blueprint, comparison.observed), comparison.blueprint.policy
    inspected, envoy = inspected_host(policy), str(where.envoy(comparison.slots.envoy))
    tried = (
        *attempts(where, comparison.slots, policy),
        *(attempts_in_tls(envoy, inspected, roots_of(comparison.observed).decode()) if inspected else ()),
    )
    outcomes = _outcomes(engine, comparison, tried)
    return [CaseResult.of(case, outcomes.get(case.id, "not tried")) for case in tried]


def _outcomes(engine: EngineWriter, comparison: Comparison, tried: tuple[Case, ...]) -> dict[str, str]:
    project, address = comparison.desired.project, str(addressing(comparison.blueprint, comparison.observed).trial)
    content = json.dumps([case.instruction() for case in tried]).encode()
    shape = attachment(comparison.desired).shape([HELPER_PATH], ["attempts"])
    spec = ContainerSpec(
        name=trial_name(project),
        image=comparison.observed.siblings[Sibling.COREDNS].container.image,
        labels=labels.ownership_labels(project),
        shape=replace(shape, networks=dict.fromkeys(shape.networks, address)),
        files={HELPER: comparison.blueprint.helper, ATTEMPTS: public(content)},
    )
    with one_shot(engine, project, spec, _WITHIN) as lines:
        return _answers(lines)


def _answers(lines: tuple[str, ...] | None) -> dict[str, str]:
    if lines is None:
        raise EngineError(
            "conformance-silent",
            f"The attempts did not end within {_WITHIN:g} s.",
            hint="The Docker host is overloaded: try again later.",
        )
    answers: dict[str, str] = {}
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            answer = json.loads(line)
            answers[str(answer["id"])] = str(answer["outcome"])
    if not answers:
        raise EngineError(
            "conformance-failed",
            "The attempts could not be made.",
            context=list(lines[-3:] or ["no output"]),
            hint="`clawker-fw doctor` looks for the cause.",
        )
    return answers
