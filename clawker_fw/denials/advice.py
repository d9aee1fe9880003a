"""What would change a refusal: the command that allows it, or why no rule would."""

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Network

from clawker_fw.denials.refusal import Counted, Refusal
from clawker_fw.model import Address, Lookup
from clawker_fw.rules.explanation import Explainer, Explanation, Remedy
from clawker_fw.rules.ranges import is_special
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.schema import Protocol, Rule
from clawker_fw.rules.target import Target, parse_target

_PROTOCOLS = {
    "dns": Protocol.HTTPS,
    "tls": Protocol.HTTPS,
    "http": Protocol.HTTP,
    "tcp": Protocol.TCP,
    "udp": Protocol.UDP,
}
"""What is probably meant. A question to the resolver does not say what the name is wanted for."""

_BY_RULES = {Reason.NO_RULE, Reason.WRONG_PORT, Reason.DENIED, Reason.EXPIRED, Reason.PRIVATE_ADDRESS}
"""Reasons that rules can change."""

_NO_RULE_WOULD = {
    Reason.NO_SERVER_NAME: "No https rule can: nothing says which name is meant. A tcp rule forwards everything: "
    "`clawker-fw rules allow tcp://NAME:{port}`.",
    Reason.BAD_NAME: "No rule can: rules are for host names.",
    Reason.BAD_REQUEST: "No https or http rule can. A tcp rule forwards everything: "
    "`clawker-fw rules allow tcp://NAME:{port}`.",
    Reason.TIMEOUT: "No rule would: the agent has to say sooner what it wants.",
    Reason.LIMIT: "No rule would: see `limits` and `resources` in the settings.",
    Reason.NO_ADDRESS: "No rule would: its name servers know no such name, or did not answer.",
    Reason.UNREACHABLE: "No rule would: its host did not answer, or ended the connection.",
}
_OF_RESOLVER = "No rule would: the resolver only answers questions for addresses."
_NAMELESS = (
    "Nothing names a host here. Allow one on this port with `clawker-fw rules allow {protocol}://NAME:{port}`."
)


@dataclass(frozen=True, slots=True)
class Advice:
    """The reason in words, the rule that decides if one does, and what to do, or why no rule would help.

    `allowed` says that the rules in the settings allow it by now.
    """

    message: str
    remedy: Remedy
    rule: Rule | None = None
    allowed: bool = False


class Adviser:
    """Gives advice by the rules in the settings. Without rules, it can only tell why."""

    def __init__(self, explainer: Explainer | None) -> None:
        """Use rules that are compiled once."""
        self._explainer = explainer

    def advise(self, counted: Counted) -> Advice:
        """Return what would change a refusal."""
        refusal = counted.refusal
        try:
            reason = Reason(refusal.reason)
        except ValueError:  # of another release
            return Advice(refusal.reason, Remedy(""))
        if reason in _BY_RULES:
            return self._by_rules(refusal, reason, counted.upstream)
        if reason is Reason.NO_ADDRESS and (explained := self._explained(refusal)) and explained.too_long:
            return Advice(explained.sentence, explained.remedy or Remedy(""), explained.rule)
        sentence = _OF_RESOLVER if refusal.protocol == "dns" and reason is Reason.BAD_REQUEST else ""
        sentence = sentence or _NO_RULE_WOULD[reason].format(port=refusal.port)
        return Advice(reason.sentence, Remedy(sentence))

    def _by_rules(self, refusal: Refusal, reason: Reason, upstream: str) -> Advice:
        if not refusal.name:
            return Advice(
                "no rule is for this port",
                Remedy(_NAMELESS.format(protocol=_PROTOCOLS.get(refusal.protocol, "tcp"), port=refusal.port)),
            )
        explained = self._explained(refusal)
        if explained is None or self._explainer is None:
            return Advice(reason.sentence, Remedy(""))
        if reason is Reason.PRIVATE_ADDRESS:
            explained = explained.with_addresses(_looked_up(upstream))
        resolves = refusal.protocol == "dns" and self._explainer.resolves(explained.target.name)
        if explained.allowed or resolves:
            return Advice(reason.sentence, Remedy("The rules allow it by now."), explained.rule, allowed=True)
        return Advice(explained.sentence, explained.remedy or Remedy(""), explained.rule)

    def _explained(self, refusal: Refusal) -> Explanation | None:
        """Return what the rules say about what was refused, if that can be told."""
        target = target_of(refusal)
        return self._explainer.decide(target) if target and self._explainer else None


def target_of(refusal: Refusal) -> Target | None:
    """Return what an agent has probably wanted, or None if it named no host."""
    protocol = _PROTOCOLS.get(refusal.protocol)
    if protocol is None or not refusal.name:
        return None
    port = 443 if refusal.protocol == "dns" else refusal.port
    try:
        target = parse_target(f"{refusal.name}:{port}", protocol)
    except ValueError:
        return None
    return None if target.mistake else target


def _looked_up(upstream: str) -> Lookup:
    """Return what Envoy found: an address that the rule may not reach, and perhaps none may."""
    try:
        closed = ("guarded", "exempt") if is_special(IPv4Network(upstream)) else ("guarded",)
    except (AddressValueError, ValueError):
        closed = ("guarded",)
    return Lookup((Address(upstream, closed),))
