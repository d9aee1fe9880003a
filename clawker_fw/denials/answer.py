"""The answer of `denials`: which refusals were asked for, whose they are, and what would change them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clawker_fw.denials.advice import Advice, Adviser
from clawker_fw.denials.agents import AgentNames
from clawker_fw.denials.refusal import Counted, Refusals
from clawker_fw.denials.tally import UNKNOWN_AGENT
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.target import Target

_SUGGESTED = {Reason.NO_RULE, Reason.WRONG_PORT, Reason.EXPIRED}
"""Reasons for which a rule is suggested. What a rule denies was meant to be denied."""


@dataclass(frozen=True, slots=True)
class Denial:
    """A refusal, the agent's name if it is known, and advice. What is `own`, we have tried ourselves."""

    counted: Counted
    agent: str
    advice: Advice
    own: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for: refusals of an agent, by its name or address, for some reasons, and at most how many."""

    agent: str = ""
    reasons: frozenset[Reason] = frozenset()
    top: int | None = None

    def takes(self, counted: Counted, name: str) -> bool:
        """Whether a refusal was asked for. `name` is the agent's."""
        refusal = counted.refusal
        return (not self.agent or self.agent in {name, refusal.agent}) and (
            not self.reasons or refusal.reason in self.reasons
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The refusals that were asked for, the latest last, or with `top` those that happened most often, most first.

    `left_out` is how many different ones `top` left out, `more` how many refusals could only be counted, and
    `suppressed` how many were never written down, by the agent. `unattributed` were not either, and nobody knows
    whose they are.
    """

    denials: tuple[Denial, ...]
    left_out: int = 0
    more: int = 0
    suppressed: Mapping[str, int] = field(default_factory=dict)
    unattributed: int = 0

    def targets(self) -> Iterable[Target]:
        """Yield what agents wanted and rules could allow."""
        for each in self.denials:
            advice = each.advice
            wanted = each.counted.refusal.reason in _SUGGESTED and not (each.own or advice.allowed)
            if wanted and advice.target:
                yield advice.target


def answer(refusals: Refusals, agents: AgentNames, wanted: Selection, adviser: Adviser, now: str) -> Answer:
    """Select refusals and give advice on them. `now` is a time (RFC 3339)."""
    names = [(each, agents.of(each.refusal.agent, each.last)) for each in refusals.counted]
    chosen = [(each, name) for each, name in names if wanted.takes(each, name)]
    found = len(chosen)
    if wanted.top is not None:
        chosen = sorted(chosen, key=lambda pair: -pair[0].times)[: wanted.top]
    suppressed: Counter[str] = Counter()
    latest = {each.refusal.agent: each.last for each in refusals.counted}  # what is suppressed has no time
    for address, times in sorted(refusals.suppressed.items()):
        name = agents.of(address, latest.get(address, now))
        if address != UNKNOWN_AGENT and wanted.agent in {"", address, name}:
            suppressed[name or address] += times
    return Answer(
        tuple(
            Denial(each, name, adviser.advise(each), agents.is_own(each.refusal.agent)) for each, name in chosen
        ),
        found - len(chosen),
        refusals.more,
        suppressed,
        0 if wanted.agent else refusals.suppressed.get(UNKNOWN_AGENT, 0),
    )
