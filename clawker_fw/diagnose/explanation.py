"""Explains how the rules decide on one connection: the deciding rule, and near misses.

`Policy.decide` decides, as it does for Envoy and CoreDNS. The rest only explains its decision.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from enum import StrEnum
from functools import cached_property
from itertools import count

from clawker_fw.diagnose.simulation import Simulator
from clawker_fw.model.trials import Lookup
from clawker_fw.rules.destination import Destination
from clawker_fw.rules.own_page import PAGE, PAGE_PORT, is_ours
from clawker_fw.rules.paths import Injection, PathRule, Repository
from clawker_fw.rules.policy import Policy, PolicyDecision
from clawker_fw.rules.promises import Promise
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.ruleset import RuleSet, about_ports
from clawker_fw.rules.target import Request, Target
from clawker_fw.settings.edit.edits import Written
from clawker_fw.settings.edit.rules_file import Editable

_OWN_PAGE = f"http://{PAGE}/, where agents read what was refused to them"
_MOST_NEAR = 5
_LABELS_ALIKE = 0.6
"""The similarity of two labels (`difflib`) above which one is probably mistyped."""


class Difference(StrEnum):
    """Why a rule does not decide, the nearest miss first."""

    ENDED = "ended"
    OVERRULED = "overruled"
    OTHER_PORT = "other-port"
    OTHER_PROTOCOL = "other-protocol"
    NAME_ALONE = "name-alone"
    OTHER_NAME = "other-name"
    BELOW = "below"


_UNNAMED = {Reason.NO_RULE, Reason.OBSERVED}


@dataclass(frozen=True, slots=True)
class Near:
    """A rule that does not decide, and why."""

    rule: Rule
    difference: Difference


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision on a connection and its reason. `rule` decides, or would if it had not expired.

    `claimed_by` is a rule that occupies the port, so that no rule can be added. `own` is an existing rule for
    exactly this connection, which commands change, and `own_ended` whether it has expired. `variable` names the
    environment variable with the rules, which no command can edit. `forbidden` is a promise against the
    connection. `request` is set if the request matters, and `path` is the deciding part of the rule. `simulator`
    tries commands. `way` says how an allowed host is reached if there is an upstream proxy; Envoy looks up its
    name only with `looks_up`.
    """

    target: Target
    rule: Rule | None
    reason: Reason | None
    near: tuple[Near, ...] = ()
    lookup: Lookup | None = None
    claimed_by: Rule | None = None
    own: Rule | None = None
    own_ended: bool = False
    variable: str = ""
    request: Request | None = None
    path: PathRule | Repository | None = None
    forbidden: Promise | None = None
    way: str = ""
    looks_up: bool = True
    simulator: Simulator | None = field(default=None, repr=False, compare=False)

    @property
    def allowed(self) -> bool:
        """Whether the connection passes: a rule allows it, or it is observed."""
        return self.reason is None or self.reason.passes

    @property
    def is_own_page(self) -> bool:
        """Whether it is for the page with an agent's own refusals, which needs no rule."""
        target = self.target
        return (target.name, target.protocol, target.port) == (PAGE, Protocol.HTTP, PAGE_PORT)

    @property
    def secret(self) -> Injection | None:
        """The secret that Envoy injects into the request, if any."""
        return (
            self.rule.paths.injection if self.allowed and self.request and self.rule and self.rule.paths else None
        )

    @property
    def sentence(self) -> str:
        """The reason in words; "" if a rule allows it."""
        if self.reason and is_ours(self.target.name):
            return f"this name is kept for {_OWN_PAGE}"
        if self.reason is Reason.BAD_REQUEST:
            return "a rule allows this host, but hosts disagree about what such a path means"
        return self.target.mistake or (self.reason.sentence if self.reason else "")

    @property
    def kind(self) -> str:
        """The kind of its rule: `exempt` if it allows private addresses, otherwise `guarded`."""
        return "exempt" if self.rule and self.rule.allow_private else "guarded"

    def leads_to(self, machine: str) -> str:
        """Return the name to resolve, or its fixed address. `machine` is the Docker host's address."""
        return self.rule.leads_to(self.target.name, machine) if self.rule else self.target.name

    def with_addresses(self, lookup: Lookup) -> "Explanation":
        """Return the explanation with the name's addresses, which may be missing or closed."""
        reason = self.reason
        if self.allowed and not lookup.addresses:
            reason = Reason.NO_ADDRESS
        elif self.allowed and not lookup.open_to(self.kind):
            reason = Reason.PRIVATE_ADDRESS
        return replace(self, lookup=lookup, reason=reason)


class Explainer:
    """Explains connections. It compiles the rules once."""

    def __init__(
        self,
        rules: RuleSet,
        now: float,
        variable: str = "",
        promises: Sequence[Promise] = (),
        *,
        editable: Editable | None = None,
    ) -> None:
        """Compile all rules, including expired ones. `now` is in seconds since 1970.

        `variable` is the environment variable with the rules, or the place for edits by hand, if commands can't
        edit them. `promises` come from the settings. Without `editable`, commands can edit all rules.
        """
        self._rules = rules
        self._promises = promises
        self._variable = variable
        self._now = now
        self._editable = editable
        self._current = rules.at(now)
        self._policy = Policy(self._current)
        self._ended = set() if self._current is rules else set(rules.rules) - set(self._current.rules)

    @cached_property
    def simulator(self) -> Simulator:
        """Tries commands on the rules as they are written."""
        entries = self._editable.entries if self._editable else tuple(map(Written, self._rules.rules, count()))
        return Simulator(entries, self._promises, self._now, self._editable)

    @cached_property
    def _everything(self) -> Policy:
        return Policy(self._rules) if self._ended else self._policy

    @cached_property
    def _lasting(self) -> Policy:
        return Policy(RuleSet((*self._current.rules, *(rule for rule in self._ended if not rule.denies))))

    def explain(self, target: Target, request: Request | None = None) -> Explanation:
        """Explain a connection, or a request in it, with near misses."""
        explained = self.decide(target, request)
        if target.mistake or is_ours(target.name):
            return explained
        rules, ended, reason = self._rules, self._ended, explained.reason
        related = _related(rules, ended, target) if reason in _UNNAMED else _covering(rules, ended, target)
        near = [near for near in related if near.rule != explained.rule]
        if reason is None:
            near = [near for near in near if near.difference is Difference.OVERRULED]
        near.sort(key=lambda near: (list(Difference).index(near.difference), -len(near.rule.destination.name)))
        return replace(explained, near=tuple(near[:_MOST_NEAR]))

    def decide(self, target: Target, request: Request | None = None) -> Explanation:
        """Explain a connection, or a request in it, without near misses."""
        if target.mistake:
            return Explanation(target, None, Reason.BAD_NAME)
        if is_ours(target.name):
            page = Explanation(target, None, None)
            decided = self._policy.decide(target.name, target.protocol, target.port)
            return page if page.is_own_page else replace(page, reason=decided.reason)
        connection = (target.name, target.protocol, target.port)
        asked = (request.method, request.target) if request else (None, None)
        websocket = request is not None and request.websocket
        decision = self._policy.decide(*connection, *asked, websocket=websocket)
        rule, reason = decision.rule, decision.reason
        if self._ended and reason in {Reason.NO_RULE, Reason.WRONG_PORT}:
            before = self._lasting.decide(*connection)
            if before.allowed:
                rule, reason = before.rule, Reason.EXPIRED
        exact = Rule(Destination(target.name, subtree=False), target.protocol, target.port)
        covering = self._everything.covering(target.name)
        # Commands can change these fields, so they don't identify a rule.
        plain = ((rule, replace(rule, allow_private=False, until=None, paths=None)) for rule in covering)
        own = next((rule for rule, same in plain if same == exact), None)
        forbidding = (promise for promise in self._promises if promise.forbids(*connection))
        pairs = [{conflict.first, conflict.second} for conflict in about_ports([*covering, exact])]
        return Explanation(
            target,
            rule,
            reason,
            claimed_by=next((rule for pair in pairs if exact in pair for rule in pair - {exact}), None),
            own=own,
            own_ended=own in self._ended,
            variable=self._variable,
            request=request if rule and rule.paths else None,
            path=decision.path,
            forbidden=next(forbidding, None),
            way=self._way(target, decision) if decision.allowed else "",
            looks_up=self._rules.proxy is None or bool(rule and not (rule.proxied or rule.denies)),
            simulator=self.simulator,
        )

    def _way(self, target: Target, decision: PolicyDecision) -> str:
        """Return how an allowed host is reached; "" without an upstream proxy."""
        rule, proxy = decision.rule, self._rules.proxy
        if proxy is None:
            return ""
        if rule and not rule.proxied:
            exemption = proxy.exemption(rule)
            return f"direct: no_proxy {exemption}" if exemption else "direct: the Docker host"
        place = f"{rule.leads_to(target.name, '') if rule else target.name}:{target.port}"
        transport = rule.transport if rule else target.protocol
        form = f"http://{place}" if transport is Protocol.HTTP else f"CONNECT {place}"
        return f"through {proxy} as {form}; the proxy looks the name up and may refuse it"

    def resolves(self, name: str) -> bool:
        """Whether the resolver answers a name by these rules."""
        return self._policy.resolves(name)


def _covering(rules: RuleSet, ended: set[Rule], target: Target) -> Iterator[Near]:
    """Yield the rules that cover the target's name; deny rules only if they match."""
    for rule in rules.rules:
        if not rule.covers(target.name):
            continue
        has_ended, datagrams = rule in ended, target.protocol is Protocol.UDP
        anything = rule.opaque and not datagrams and rule.matches(Protocol.TCP, target.port)
        matches = anything or rule.matches(target.protocol.transport, target.port)
        if rule.denies and (has_ended or not matches):
            continue
        if has_ended:
            yield Near(rule, Difference.ENDED)
        elif matches:
            yield Near(rule, Difference.OVERRULED)
        else:
            other_port = rule.protocol is not None and rule.protocol.transport is target.protocol.transport
            yield Near(rule, Difference.OTHER_PORT if other_port else Difference.OTHER_PROTOCOL)


def _related(rules: RuleSet, ended: set[Rule], target: Target) -> Iterator[Near]:
    yield from _covering(rules, ended, target)
    for rule in rules.rules:
        if rule.denies or rule in ended or rule.covers(target.name):
            continue
        if f".{target.name}".endswith(f".{rule.destination.name}"):
            yield Near(rule, Difference.NAME_ALONE)
        elif _is_alike(target.name, rule.destination):
            yield Near(rule, Difference.OTHER_NAME)
        elif rule.destination.name.endswith(f".{target.name}"):
            yield Near(rule, Difference.BELOW)


def _is_alike(name: str, destination: Destination) -> bool:
    """Whether a name, or its end for a subtree, resembles a rule's name label by label."""
    labels, others = name.split("."), destination.name.split(".")
    own = labels[-len(others) :] if destination.subtree else labels
    pairs = zip(own, others, strict=False)
    return len(own) == len(others) and all(SequenceMatcher(None, *pair).ratio() >= _LABELS_ALIKE for pair in pairs)
