"""The differences between the observed and the desired state, and the verdict."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from clawker_fw.model.vocabulary import Action, Cause, Layer, Sibling, Value, Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference.

    If the values are digests of files, `contents` are the running and the desired content. If they are image ids,
    `versions` are the running and the desired program's versions, or None if unknown.
    """

    sibling: Sibling
    layer: Layer
    field: str
    running: Value
    desired: Value
    cause: Cause
    action: Action
    contents: tuple[bytes, bytes] | None = dataclasses.field(default=None, repr=False)
    versions: tuple[str | None, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Diff:
    """All findings, and the verdict on each sibling."""

    findings: tuple[Finding, ...]
    verdicts: Mapping[Sibling, Verdict]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of both siblings. `drifted` is worse than `unknown`."""
        found = set(self.verdicts.values())
        return next(v for v in (Verdict.DRIFTED, Verdict.UNKNOWN, Verdict.CURRENT) if v in found)

    def of(self, sibling: Sibling) -> tuple[Finding, ...]:
        """Return the findings of one sibling."""
        return tuple(finding for finding in self.findings if finding.sibling is sibling)
