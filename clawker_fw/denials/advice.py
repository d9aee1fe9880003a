"""Advice on a refusal: the command that allows it, or why no rule would."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from clawker_fw.denials.refusal import OF_REQUESTS, Counted, Refusal
from clawker_fw.diagnose.explanation import Explainer, Explanation
from clawker_fw.diagnose.remedies import Remedy, also, remedy_of
from clawker_fw.model.trials import FoundAddress, Lookup
from clawker_fw.rules.ranges import is_special
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.target import Request, Target, meant_by, parse_target

PROTOCOLS = {
    "dns": Protocol.HTTPS,
    "tls": Protocol.HTTPS,
    "https": Protocol.HTTPS,
    "http": Protocol.HTTP,
    "tcp": Protocol.TCP,
    "udp": Protocol.UDP,
}
"""The protocol that the agent probably meant. A DNS query does not say what the name is for."""

NOT_ALLOWED = {Reason.NO_RULE, Reason.OBSERVED, Reason.WRONG_PORT, Reason.EXPIRED}
"""Reasons that no rule allows it. The rules distinguish them better than the container that refused it."""

_BY_RULES = NOT_ALLOWED | OF_REQUESTS | {Reason.DENIED, Reason.PRIVATE_ADDRESS}

_NO_RULE_WOULD = {
    Reason.NO_SERVER_NAME: "No https rule can: the client sent no server name (SNI). A tcp rule for the name and "
    "port {port} forwards everything.",
    Reason.BAD_NAME: "No rule can: rules are for host names.",
    Reason.BAD_REQUEST: "No https or http rule can. A tcp rule for the name and port {port} forwards everything.",
    Reason.TIMEOUT: "No rule would: the agent has to say sooner what it wants.",
    Reason.LIMIT: "No rule would: see `limits` and `resources` in the settings.",
    Reason.NOT_TRUSTED: "Create the agent again with `clawker-fw agent run`, or the flags of `agent flags`, so "
    "that it trusts the root. A client that pins the host's key needs a rule with `inspect: false`.",
    Reason.HOST_NOT_TRUSTED: "No rule would: the host's certificate is for another name, has ended, or comes from "
    "a CA that Envoy does not know. Name yours in `inspection.ca_file`.",
    Reason.NO_ADDRESS: "No rule would: the name does not exist, or its name servers did not answer.",
    Reason.NO_SECRET: "No rule would: `clawker-fw secrets check` says why the secret can't be obtained, and "
    "`clawker-fw reload` sends it to Envoy.",
    Reason.SECRET_REFUSED: "No rule would: renew the secret where it comes from, then send it with "
    "`clawker-fw reload`.",
    Reason.UNREACHABLE: "No rule would: its host did not answer, or ended the connection.",
    Reason.PROXY_REFUSED: "No rule would: ask the proxy's administrator to allow it, or name the host in "
    "`upstream.no_proxy` if it is reached directly.",
    Reason.PROXY_AUTH: "No rule would: renew the secret of `upstream.auth`, then run `clawker-fw reload`.",
    Reason.PROXY_FAILED: "No rule would: the proxy could not look the name up, or not connect to it.",
    Reason.PROXY_UNREACHABLE: "No rule would: `clawker-fw doctor` tries the proxy.",
    Reason.PROXY_NO_ADDRESS: "No rule would: check the host in `upstream.proxy`, and the name servers of the "
    "Docker host.",
}
_OF_RESOLVER = "No rule would: the resolver only answers questions for addresses."
_NAMELESS = "Nothing names a host here. A rule for its name on port {port} would allow it: {protocols}."
_LONGEST_PATH = 255
"""Envoy records at most this much of a path (`stack/envoy/refusals.py`)."""
_CUT = "The path is longer than what is on record: change the paths of the rule{place}."


@dataclass(frozen=True, slots=True)
class RuleAdvice:
    """The reason in words, the deciding rule, if any, and what to do. `allowed`: the rules now allow it."""

    message: str
    remedy: Remedy
    rule: Rule | None = None
    allowed: bool = False


class Adviser:
    """Gives advice by the rules in the settings. Without rules, it only gives reasons."""

    def __init__(self, explainer: Explainer | None, refusals: Iterable[Counted] = ()) -> None:
        """Advise by these rules. Addresses of names come only from `refusals`; none is resolved."""
        self._explainer = explainer
        private = (refusal for refusal in refusals if refusal.refusal.reason == Reason.PRIVATE_ADDRESS)
        self._private = {counted.refusal.name: counted.upstream for counted in private}

    def advise(self, counted: Counted) -> RuleAdvice:
        """Return advice on a refusal."""
        refusal = counted.refusal
        try:
            reason = Reason(refusal.reason)
        except ValueError:  # from another release
            return RuleAdvice(refusal.reason, Remedy(""))
        if reason in _BY_RULES:
            return self._by_rules(counted, reason)
        sentence = _OF_RESOLVER if refusal.protocol == "dns" and reason is Reason.BAD_REQUEST else ""
        sentence = sentence or _NO_RULE_WOULD[reason].format(port=refusal.port)
        return RuleAdvice(reason.sentence, Remedy(sentence))

    def _by_rules(self, counted: Counted, reason: Reason) -> RuleAdvice:
        refusal = counted.refusal
        if not refusal.name:
            usual, *others = _spoken(refusal) or (Protocol.TCP,)
            protocols = " ".join(
                [f"over {usual}", *(f"or {other} if it does not speak {usual}" for other in others)]
            )
            sentence = _NAMELESS.format(port=refusal.port, protocols=protocols)
            return RuleAdvice("no rule is for this port", Remedy(sentence))
        explained = self.explained(counted)
        if explained is None or self._explainer is None:
            return RuleAdvice(reason.sentence, Remedy(""))
        private = explained.reason is Reason.PRIVATE_ADDRESS
        resolves = refusal.protocol == "dns" and self._explainer.resolves(explained.target.name)
        if explained.allowed or (resolves and not private):
            return RuleAdvice(reason.sentence, Remedy("The rules allow it now."), explained.rule, allowed=True)
        path = counted.request.partition(" ")[2]
        cut = explained.reason in OF_REQUESTS and len(path) >= _LONGEST_PATH
        place = explained.rule.located if explained.rule else ""
        remedy = Remedy(_CUT.format(place=place)) if cut else remedy_of(explained) or Remedy("")
        if explained.reason is reason or {explained.reason, reason} <= NOT_ALLOWED:
            sentence = reason.sentence if reason.passes else explained.sentence
            return RuleAdvice(sentence, self._with_other(counted, explained, remedy), explained.rule)
        # The rules have changed since. The message is the reason at that time.
        now = f"{explained.sentence[:1].upper()}{explained.sentence[1:]} now. "
        remedy = replace(remedy, text=f"{now}{remedy.text}".strip())
        changed = reason is not Reason.DENIED and Reason.PRIVATE_ADDRESS in {reason, explained.reason}
        return RuleAdvice(reason.sentence, remedy, explained.rule if changed else None)

    def _with_other(self, counted: Counted, explained: Explanation, remedy: Remedy) -> Remedy:
        """Add the command for the other likely protocol, if nothing shows which one the agent meant."""
        others = [target for target in _targets(counted.refusal) if target != explained.target]
        if not (others and self._explainer and remedy.command) or explained.reason is Reason.EXPIRED:
            return remedy
        other = remedy_of(self._decided(self._explainer, others[0], counted))
        if other is None or not other.command:
            return remedy
        first, _, rest = remedy.text.partition(". ")
        more = f"or with `{other.command}` if it does not speak {explained.target.protocol}"
        sentences = [f"{first.removesuffix('.')}, {more}.", rest, also(other, f"The {others[0].protocol} rule")]
        return replace(remedy, text=" ".join(filter(None, sentences)))

    def explained(self, counted: Counted) -> Explanation | None:
        """Return how the rules decide on a refused target, if it is known.

        Of several likely targets, return the first that the rules know, otherwise the first.
        """
        if self._explainer is None:
            return None
        request, reason = None, counted.refusal.reason
        method, _, path = counted.request.partition(" ")  # its query is not recorded
        if path and reason in OF_REQUESTS:
            request = Request(method, path, reason == Reason.NO_WEBSOCKET)
        explanations = [
            self._decided(self._explainer, target, counted, request) for target in _targets(counted.refusal)
        ]
        unnamed = {Reason.NO_RULE, Reason.WRONG_PORT}
        named = [explanation for explanation in explanations if explanation.reason not in unnamed]
        for explanation in named:
            if explanation.rule and explanation.rule.protocol is explanation.target.protocol:
                return explanation
        return next(iter((*named, *explanations)), None)

    def _decided(
        self, explainer: Explainer, target: Target, counted: Counted, request: Request | None = None
    ) -> Explanation:
        """Return how the rules decide on a target, with the private address of its name if it is known."""
        explained = explainer.decide(target, request)
        private = self._private.get(counted.refusal.name)
        if counted.refusal.reason == Reason.PRIVATE_ADDRESS:
            private = counted.upstream
        return explained if private is None else explained.with_addresses(_looked_up(private))


def _spoken(refusal: Refusal) -> Sequence[Protocol]:
    """Return the protocols that the agent may have meant, the likeliest first. Over TCP it sent nothing."""
    protocol = PROTOCOLS.get(refusal.protocol)
    if protocol is None:
        return ()
    return meant_by(refusal.port) if protocol is Protocol.TCP else (protocol,)


def _targets(refusal: Refusal) -> Iterator[Target]:
    """Yield the likely targets, the likeliest first; none if the agent named no host."""
    port = Protocol.HTTPS.default_port if refusal.protocol == "dns" else refusal.port
    for protocol in _spoken(refusal) if refusal.name else ():
        with suppress(ValueError):
            target = parse_target(f"{protocol}://{refusal.name}:{port}")
            if not target.mistake:
                yield target


def _looked_up(upstream: str) -> Lookup:
    """Return the address that Envoy found, closed to the rule, or to all rules."""
    try:
        closed = ("guarded", "exempt") if is_special(IPv4Address(upstream)) else ("guarded",)
    except ValueError:
        closed = ("guarded",)
    return Lookup((FoundAddress(upstream, closed),))
