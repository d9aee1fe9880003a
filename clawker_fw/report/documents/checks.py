"""The answers about what is tried and examined: `doctor` and `conformance`."""

from collections.abc import Sequence
from dataclasses import dataclass

from clawker_fw.diagnose.conformance.run import CaseResult
from clawker_fw.diagnose.diagnosis import Check, CheckHealth
from clawker_fw.report.checks import held
from clawker_fw.report.documents import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorDocument(Document):
    """The answer of `doctor`."""

    healthy: bool
    """Whether no check has failed."""
    checks: list[Check]

    @classmethod
    def of(cls, checks: Sequence[Check]) -> "DoctorDocument":
        """Return the answer."""
        healthy = not any(each.health is CheckHealth.FAILED for each in checks)
        return cls(healthy=healthy, checks=list(checks))


@dataclass(frozen=True, slots=True)
class AttemptDocument:
    """Something that was tried."""

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
    def of(cls, result: CaseResult) -> "AttemptDocument":
        """Return an attempt and what came of it."""
        tried = result.attempt
        return cls(tried.id, tried.what, tried.control, result.outcome, sorted(tried.holds), result.held)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformanceDocument(Document):
    """The answer of `conformance`."""

    project: str
    held: bool
    """Whether everything ended as it must."""
    attempts: list[AttemptDocument]

    @classmethod
    def of(cls, project: str, results: Sequence[CaseResult]) -> "ConformanceDocument":
        """Return the answer."""
        return cls(project=project, held=held(results), attempts=[AttemptDocument.of(each) for each in results])
