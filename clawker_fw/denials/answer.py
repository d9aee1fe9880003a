"""The answer of `denials`: the selected refusals, with agents' names and advice."""

from dataclasses import dataclass, replace

from pydantic import PositiveInt

from clawker_fw.agents.names import AgentNames
from clawker_fw.denials.advice import Adviser, RuleAdvice
from clawker_fw.denials.refusal import Counted, Gap, Refusals
from clawker_fw.diagnose.explanation import Explainer
from clawker_fw.diagnose.remedies import Remedy
from clawker_fw.reconcile.handed_over import UNKNOWN_AGENT
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
    """The wanted refusals: of an agent (name or address), for these reasons, and only the most frequent `top`.

    The attempts of `conformance` are left out unless an agent is named.
    """

    agent: str = ""
    reasons: frozenset[Reason] = frozenset()
    top: int | None = None

    def takes(self, counted: Counted, name: str) -> bool:
        """Whether a refusal is wanted. `name` is its agent's."""
        refusal = counted.refusal
        return (not self.agent or self.agent in {name, refusal.agent}) and (
            not self.reasons or refusal.reason in self.reasons
        )

    def leaves_out(self, address: str, agents: AgentNames) -> bool:
        """Whether to leave out an address, because it belongs to `conformance`."""
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
    """The selected refusals, the latest last; with `top`, the most frequent first.

    `left_out` counts different refusals beyond `top`, `more` those that could only be counted. `suppressed` are
    refusals missing in the logs, by address, and `unattributed` those without a known address. `tried` counts the
    attempts of `conformance` that were left out, and `trial` is its container's name. `gaps` are missing log
    lines.
    """

    denials: tuple[Denial, ...]
    left_out: int = 0
    more: int = 0
    suppressed: tuple[Suppressed, ...] = ()
    unattributed: int = 0
    tried: int = 0
    gaps: tuple[Gap, ...] = ()
    trial: str = ""


def answer(
    refusals: Refusals, agents: AgentNames, selection: Selection, explainer: Explainer | None, now: str
) -> DenialsAnswer:
    """Select refusals and give advice on them. `now` is a time (RFC 3339)."""
    adviser = Adviser(explainer, refusals.counted)
    names = [(refusal, agents.of(refusal.refusal.agent, refusal.last)) for refusal in refusals.counted]
    asked = [(refusal, name) for refusal, name in names if selection.takes(refusal, name)]
    addresses = {*(refusal.refusal.agent for refusal in refusals.counted), *refusals.suppressed}
    without = {address for address in addresses if selection.leaves_out(address, agents)}
    chosen = [(refusal, name) for refusal, name in asked if refusal.refusal.agent not in without]
    tried = sum(refusal.times for refusal, _ in asked if refusal.refusal.agent in without)
    tried += sum(times for address, times in refusals.suppressed.items() if address in without)
    total = len(chosen)
    if selection.top is not None:
        chosen = sorted(chosen, key=lambda pair: -pair[0].times)[: selection.top]
    suppressed = []
    # Suppressed refusals have no time.
    latest = {refusal.refusal.agent: refusal.last for refusal in refusals.counted}
    for address, times in sorted(refusals.suppressed.items()):
        name = agents.of(address, latest.get(address, now))
        if address not in {UNKNOWN_AGENT, *without} and selection.agent in {"", address, name}:
            suppressed.append(Suppressed(name or None, address, times))
    return DenialsAnswer(
        tuple(denial(refusal, name, agents, adviser) for refusal, name in chosen),
        total - len(chosen),
        refusals.more,
        tuple(suppressed),
        0 if selection.agent else refusals.suppressed.get(UNKNOWN_AGENT, 0),
        tried,
        refusals.gaps,
        agents.trial,
    )


def denial(counted: Counted, name: str, agents: AgentNames, adviser: Adviser) -> Denial:
    """Return a refusal with advice. `name` is its agent's. Refusals of our own attempts need no rule."""
    advice = adviser.advise(counted)
    if agents.is_own(counted.refusal.agent):
        advice = replace(advice, remedy=Remedy(_OURS))
    return Denial(counted, name, advice)
