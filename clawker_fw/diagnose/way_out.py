"""Whether agents get out of the engine's machine, judged by one name of the rules. For `doctor` and `run`.

The engine says some of what can keep packets in, and the rest shows only when something is sent. A host that does
not answer proves nothing by itself. So `run` warns only if this machine, on which the engine is, reaches the host.
"""

import socket
from collections.abc import Iterator
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import suppress

from clawker_fw.background import in_background
from clawker_fw.diagnose.trial import Attempted, attempt
from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import EngineError
from clawker_fw.model import Observed, Role
from clawker_fw.reconcile.advice import Advice
from clawker_fw.reconcile.pipeline import Comparison
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.target import Target

_WITHIN = 2.0
"""Seconds in which this machine has to reach a host, its lookup included."""


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


def warning(reader: EngineReader, seen: Comparison) -> Iterator[Advice]:
    """Yield a warning if an agent does not reach a host of the rules, and this machine does.

    Nothing is tried if the engine is on another machine, or has said that it forwards nothing. A warning says what
    was measured; an attempt that can't be made is none.
    """
    observed, chosen = seen.observed, tried_rule(seen.blueprint.rules)
    if chosen is None or not observed.machine.forwards or not _is_here(observed):
        return
    rule, target = chosen
    if not reaches(rule.host or target.name, target.port):
        return
    with suppress(EngineError):
        tried = attempt(reader, observed, target, *(request_for(rule) or ()))
        if not tried.passed and not tried.unclear and (tried.reason is None or tried.reason.failed):
            yield Advice(
                "no-way-out",
                f"Agents don't reach {target.name}:{target.port} ({why_not(tried)}), but this machine does. "
                + may_keep_in(observed),
            )


def reaches(name: str, port: int) -> bool:
    """Whether this machine can connect to a name over IPv4 in time. Nothing is sent."""

    def connect() -> None:
        with socket.socket(socket.AF_INET) as probe:
            probe.settimeout(_WITHIN)
            probe.connect((name, port))

    try:
        in_background(connect).result(_WITHIN)
    except (OSError, UnicodeError, TookTooLong):
        return False
    return True


def _is_here(observed: Observed) -> bool:
    network = observed.networks.get(Role.EGRESS)
    return network is not None and network.sources_checked is not None
