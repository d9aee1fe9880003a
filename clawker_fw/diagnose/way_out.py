"""Whether agents get out of the engine's machine, judged by one name of the rules. For `doctor`."""

from clawker_fw.diagnose.trial import Attempted
from clawker_fw.model import Observed
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.target import Target


def plain(rules: RuleSet) -> list[Rule]:
    """Return the rules that allow a single name over TLS or HTTP."""
    usual = {Protocol.HTTPS, Protocol.HTTP}
    return [
        each
        for each in rules.rules
        if not each.denies and not each.destination.subtree and each.protocol in usual and not each.opaque
    ]


def tried_rule(rules: RuleSet) -> tuple[Rule, Target] | None:
    """Return the rule by which the way out is judged, and what an agent may want of it; None if there is none."""
    known = plain(rules)
    rule = next((each for each in known if request_for(each) is not None), known[0] if known else None)
    if rule is None or rule.port is None:
        return None
    protocol = Protocol.HTTP if rule.protocol is Protocol.HTTP else Protocol.HTTPS
    return rule, Target(rule.destination.name, protocol, rule.port)


def request_for(rule: Rule) -> tuple[str, ...] | None:
    """Return the method and path by which a host is tried: none where TLS is not looked into.

    None means that TLS is looked into, and no request is known that the rule allows.
    """
    return rule.paths.allowed_request() if rule.paths else ()


def why_not(tried: Attempted) -> str:
    """Return why an attempt has failed: the reason on record, or what the agent has seen."""
    return tried.reason or tried.trial.steps[-1].outcome


def may_keep_in(observed: Observed) -> str:
    """Return what may keep Envoy's packets on the engine's machine."""
    if not observed.machine.forwards:
        return "The engine's machine forwards no packets: `sysctl -w net.ipv4.ip_forward=1` there."
    return (
        "If the engine's machine itself gets there, look for `iptables: false`, `ip-masq: false` and `ip-forward: "
        "false` in its daemon.json, and for rules that drop: `iptables -S DOCKER-USER`, `iptables -S FORWARD`."
    )
