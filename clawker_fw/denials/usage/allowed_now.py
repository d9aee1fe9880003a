"""What was refused to agents, and rules would allow now. Pure."""

from collections.abc import Collection, Iterator

from clawker_fw.denials.advice import BY_DECISION, PROTOCOLS
from clawker_fw.denials.refusal import Counted, Refusals
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.ruleset import RuleSet


def newly_allowed(rules: RuleSet, now: float, refusals: Refusals, own: Collection[str]) -> Iterator[Counted]:
    """Yield what rules refused and other rules would allow. What comes from our `own` addresses is left out.

    A question to the resolver does not say what for, so it counts when anything is allowed of the name.
    """
    policy = Policy(rules.at(now))
    for each in refusals.counted:
        refusal = each.refusal
        if refusal.reason in BY_DECISION and refusal.agent.partition(":")[0] not in own and _allowed(policy, each):
            yield each


def _allowed(policy: Policy, counted: Counted) -> bool:
    refusal = counted.refusal
    if not refusal.name:
        return False
    if refusal.protocol == "dns":
        return policy.resolves(refusal.name)
    protocol = PROTOCOLS.get(refusal.protocol)
    if protocol is None or not refusal.port:
        return False
    method, _, path = counted.request.partition(" ")
    websocket = refusal.reason == Reason.NO_WEBSOCKET
    return policy.decide(
        refusal.name, protocol, refusal.port, method or None, path or None, websocket=websocket
    ).allowed
