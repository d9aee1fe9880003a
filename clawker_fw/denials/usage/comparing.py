"""Other rules against what happened: what was used and would be refused, what was refused and would be allowed."""

from collections.abc import Sequence
from dataclasses import dataclass

from clawker_fw.denials.reading import Reading, sources
from clawker_fw.denials.refusal import Counted
from clawker_fw.denials.usage.allowed_now import newly_allowed
from clawker_fw.denials.usage.reading import read
from clawker_fw.denials.usage.worth import Against, Period, against
from clawker_fw.engine.port import EngineReader
from clawker_fw.rules.ruleset import RuleSet


@dataclass(frozen=True, slots=True)
class Compared:
    """What rules would change.

    `more` is how many refusals could only be counted, and `lost` how many lines about uses could not be read: so
    nobody knows what these were.
    """

    uses: Against
    allowed: Sequence[Counted]
    more: int
    lost: int

    @property
    def differs(self) -> bool:
        """Whether anything would change."""
        return bool(self.uses.refused or self.allowed)


def compare(reader: EngineReader, project: str, rules: RuleSet, seconds: float) -> Compared:
    """Compare rules with what happened in the last so many seconds.

    Raises:
        RefusedError: when the stack is not up.
        EngineError: when what happened can't be read.
    """
    found = sources(reader, project)
    begun = Reading(reader, found, reader.clock() - seconds)
    usage = read(reader, project)
    refusals = begun.refusals()
    return Compared(
        against(rules, usage, Period.of(usage, seconds)),
        tuple(newly_allowed(rules, usage.now, refusals, found.own)),
        refusals.more + sum(refusals.suppressed.values()),
        usage.lost,
    )
