"""The answer of `denials`: which refusals were asked for, whose they are, and what would change them."""

from dataclasses import dataclass, replace

from pydantic import PositiveInt

from clawker_fw.agents.names import AgentNames
from clawker_fw.denials.advice import Adviser, RuleAdvice
from clawker_fw.denials.refusal import Counted, Gap, Refusals
from clawker_fw.diagnose.remedies import Remedy
from clawker_fw.reconcile.carried import UNKNOWN_AGENT
from clawker_fw.rules.reasons import Reason

_OURS = "Nothing has to be allowed: clawker-fw has tried this itself."


@dataclass(frozen=True, slots=True)
class Denial:
    """A refusal, the agent's name if it is known, and advice."""

    counted: Counted
    agent: str
    advice: RuleAdvice


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for: refusals of an agent, by its name or address, for some reasons, and at most how many.

    What `conformance` has tried is taken only if an agent was asked for.
    """

    agent: str = ""
    reasons: frozenset[Reason] = frozenset()
    top: int | None = None

    def takes(self, counted: Counted, name: str) -> bool:
        """Whether a refusal was asked for. `name` is the agent's."""
        refusal = counted.refusal
        return (not self.agent or self.agent in {name, refusal.agent}) and (
            not self.reasons or refusal.reason in self.reasons
        )

    def leaves_out(self, address: str, agents: AgentNames) -> bool:
        """Whether what was refused to an address is left out, because `conformance` has tried it."""
        return agents.is_trial(address) and not self.agent


@dataclass(frozen=True, slots=True)
class Suppressed:
    """Refusals that were never written down."""

    agent: str | None
    """The agent's name; null if nobody knows who had the address."""
    address: str
    """The address to which it was refused."""
    times: PositiveInt


@dataclass(frozen=True, slots=True)
class DenialsAnswer:
    """The refusals that were asked for, the latest last, or with `top` those that happened most often, most first.

    `left_out` is how many different ones `top` left out, `more` how many refusals could only be counted, and
    `suppressed` are those that were never written down, by the address. `unattributed` were not either, and nobody
    knows whose they are. `tried` is how often something was refused to `conformance` that is left out. In `gaps`,
    lines of a sibling's log are missing. `trial` is the name of the container of `conformance`.
    """

    denials: tuple[Denial, ...]
    left_out: int = 0
    more: int = 0
    suppressed: tuple[Suppressed, ...] = ()
    unattributed: int = 0
    tried: int = 0
    gaps: tuple[Gap, ...] = ()
    trial: str = ""


def answer(refusals: Refusals, agents: AgentNames, wanted: Selection, adviser: Adviser, now: str) -> DenialsAnswer:
    """Select refusals and give advice on them. `now` is a time (RFC 3339)."""
    adviser = adviser.knowing(refusals.counted)
    names = [(each, agents.of(each.refusal.agent, each.last)) for each in refusals.counted]
    asked = [(each, name) for each, name in names if wanted.takes(each, name)]
    addresses = {*(each.refusal.agent for each in refusals.counted), *refusals.suppressed}
    without = {address for address in addresses if wanted.leaves_out(address, agents)}
    chosen = [(each, name) for each, name in asked if each.refusal.agent not in without]
    tried = sum(each.times for each, _ in asked if each.refusal.agent in without)
    tried += sum(times for address, times in refusals.suppressed.items() if address in without)
    found = len(chosen)
    if wanted.top is not None:
        chosen = sorted(chosen, key=lambda pair: -pair[0].times)[: wanted.top]
    suppressed = []
    latest = {each.refusal.agent: each.last for each in refusals.counted}  # what is suppressed has no time
    for address, times in sorted(refusals.suppressed.items()):
        name = agents.of(address, latest.get(address, now))
        if address not in {UNKNOWN_AGENT, *without} and wanted.agent in {"", address, name}:
            suppressed.append(Suppressed(name or None, address, times))
    return DenialsAnswer(
        tuple(denial(each, name, agents, adviser) for each, name in chosen),
        found - len(chosen),
        refusals.more,
        tuple(suppressed),
        0 if wanted.agent else refusals.suppressed.get(UNKNOWN_AGENT, 0),
        tried,
        refusals.gaps,
        agents.trial,
    )


def denial(counted: Counted, name: str, agents: AgentNames, adviser: Adviser) -> Denial:
    """Return a refusal with advice. `name` is the agent's. What was refused to us is never to be allowed."""
    advice = adviser.advise(counted)
    if agents.is_own(counted.refusal.agent):
        advice = replace(advice, remedy=Remedy(_OURS))
    return Denial(counted, name, advice)
