"""What the rules say about one connection, and why: the rule that decides, and those that nearly do.

`Policy.decide` decides, as it does for the siblings. Everything else here only explains its decision.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from enum import StrEnum
from functools import cached_property

from clawker_fw.diagnose.simulation import Simulator
from clawker_fw.model.trials import Lookup
from clawker_fw.rules.destination import Destination
from clawker_fw.rules.own_page import PAGE, PAGE_PORT, is_ours
from clawker_fw.rules.paths import Injection, PathRule, Repository
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.promises import Promise
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.ruleset import RuleSet, about_ports
from clawker_fw.rules.target import Request, Target
from clawker_fw.settings.edit.edits import Written
from clawker_fw.settings.edit.rules_file import Editable

__all__ = ["Difference", "Explainer", "Explanation", "Near"]

_OWN_PAGE = f"http://{PAGE}/, where agents read what was refused to them"
_MOST_NEAR = 5
_LABELS_ALIKE = 0.6
"""How alike two labels are (`difflib`) of which one is probably mistyped."""


class Difference(StrEnum):
    """Why a rule does not decide, the nearest first."""

    ENDED = "ended"
    OVERRULED = "overruled"
    OTHER_PORT = "other-port"
    OTHER_PROTOCOL = "other-protocol"
    NAME_ALONE = "name-alone"
    OTHER_NAME = "other-name"
    BELOW = "below"


_ORDER = list(Difference)


@dataclass(frozen=True, slots=True)
class Near:
    """A rule that does not decide, and why."""

    rule: Rule
    difference: Difference


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happens to a connection. `rule` decides it, or would, if it had not `expired`.

    `claimed_by` is a rule that has the port, so that none can be added that allows it. `own` is the rule that
    exactly this connection has, if there is one: a command changes it, and adds none. `own_ended` says that it has
    ended. `variable` is the environment variable that the rules come from, if it is one: no command can edit it.
    `forbidden` is a promise of the settings that no rule allows it, if there is one.
    `request` is what is asked of the host, if that is known and decides, and `path` what of the rule decides it.
    `simulator` tries commands.
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
    simulator: Simulator | None = field(default=None, repr=False, compare=False)

    @property
    def allowed(self) -> bool:
        """Whether the connection is allowed."""
        return self.reason is None

    @property
    def is_own_page(self) -> bool:
        """Whether it is for the page on which agents read what was refused to them, which needs no rule."""
        target = self.target
        return (target.name, target.protocol, target.port) == (PAGE, Protocol.HTTP, PAGE_PORT)

    @property
    def secret(self) -> Injection | None:
        """The secret that Envoy puts into the request, if it is allowed and its rule says so."""
        return (
            self.rule.paths.injection if self.allowed and self.request and self.rule and self.rule.paths else None
        )

    @property
    def sentence(self) -> str:
        """Why it is refused, in words; "" if it is allowed."""
        if self.reason and is_ours(self.target.name):
            return f"this name is kept for {_OWN_PAGE}"
        if self.reason is Reason.BAD_REQUEST:
            return "a rule allows this host, but hosts disagree about what such a path means"
        return self.target.mistake or (self.reason.sentence if self.reason else "")

    @property
    def kind(self) -> str:
        """The kind of its rule: `exempt` if it allows private addresses, else `guarded`."""
        return "exempt" if self.rule and self.rule.allow_private else "guarded"

    def leads_to(self, machine: str) -> str:
        """Return the name that is looked up, or the address for which it stands. `machine` is the engine's."""
        return self.rule.leads_to(self.target.name, machine) if self.rule else self.target.name

    def with_addresses(self, found: Lookup) -> "Explanation":
        """Return the explanation that considers the name's addresses: what is allowed may lead nowhere."""
        reason = self.reason
        if self.allowed and not found.addresses:
            reason = Reason.NO_ADDRESS
        elif self.allowed and not found.open_to(self.kind):
            reason = Reason.PRIVATE_ADDRESS
        return replace(self, lookup=found, reason=reason)


class Explainer:
    """Explains what happens to connections. The rules are compiled once, for many of them."""

    def __init__(
        self,
        rules: RuleSet,
        now: float,
        variable: str = "",
        promises: Sequence[Promise] = (),
        *,
        editable: Editable | None = None,
    ) -> None:
        """Compile all rules, also those that have ended. `now` is in seconds since 1970.

        `variable` is the environment variable that the rules come from, if it is one, or where else to write what
        no command can. `promises` are those of the settings. `editable` is what commands can edit; without it,
        they can edit all rules.
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
        """What tries commands on the rules as they are written."""
        if self._editable:
            return Simulator(self._editable.there, self._promises, self._now, self._editable)
        written = [Written(rule, place) for place, rule in enumerate(self._rules.rules)]
        return Simulator(written, self._promises, self._now)

    @cached_property
    def _everything(self) -> Policy:
        return Policy(self._rules) if self._ended else self._policy

    @cached_property
    def _lasting(self) -> Policy:
        allowing = (each for each in self._ended if not each.denies)
        return Policy(RuleSet((*self._current.rules, *allowing)))

    def explain(self, target: Target, request: Request | None = None) -> Explanation:
        """Explain what happens to a connection, or a request in it, with the rules that nearly decide it."""
        if target.mistake:
            return Explanation(target, None, Reason.BAD_NAME)
        explained = self.decide(target, request)
        if is_ours(target.name):
            return explained
        rules, ended, reason = self._rules, self._ended, explained.reason
        related = _related(rules, ended, target) if reason is Reason.NO_RULE else _covering(rules, ended, target)
        near = [each for each in related if each.rule != explained.rule]
        if reason is None:
            near = [each for each in near if each.difference is Difference.OVERRULED]
        near.sort(key=lambda each: (_ORDER.index(each.difference), -len(each.rule.destination.name)))
        return replace(explained, near=tuple(near[:_MOST_NEAR]))

    def decide(self, target: Target, request: Request | None = None) -> Explanation:
        """Return what happens to a connection, or a request in it, without the rules that nearly decide it."""
        if target.mistake:
            return Explanation(target, None, Reason.BAD_NAME)
        if is_ours(target.name):
            page = Explanation(target, None, None)
            decided = self._policy.decide(target.name, target.protocol, target.port)
            return page if page.is_own_page else replace(page, reason=decided.reason)
        asked = (request.method, request.target) if request else (None, None)
        websocket = request is not None and request.websocket
        decision = self._policy.decide(target.name, target.protocol, target.port, *asked, websocket=websocket)
        rule, reason = decision.rule, decision.reason
        if self._ended and reason in {Reason.NO_RULE, Reason.WRONG_PORT}:
            before = self._lasting.decide(target.name, target.protocol, target.port)
            if before.allowed:
                rule, reason = before.rule, Reason.EXPIRED
        wanted = Rule(Destination(target.name, subtree=False), target.protocol, target.port)
        covering = self._everything.covering(target.name)
        # What a command can change of a rule does not tell it from others.
        plain = ((each, replace(each, allow_private=False, until=None, paths=None)) for each in covering)
        own = next((each for each, same in plain if same == wanted), None)
        pairs = [{each.first, each.second} for each in about_ports([*covering, wanted])]
        return Explanation(
            target,
            rule,
            reason,
            claimed_by=next((rule for pair in pairs if wanted in pair for rule in pair - {wanted}), None),
            own=own,
            own_ended=own in self._ended,
            variable=self._variable,
            request=request if rule and rule.paths else None,
            path=decision.path,
            forbidden=next(
                (each for each in self._promises if each.forbids(target.name, target.protocol, target.port)), None
            ),
            simulator=self.simulator,
        )

    def resolves(self, name: str) -> bool:
        """Whether the resolver answers a name by these rules."""
        return self._policy.resolves(name)


def _covering(rules: RuleSet, ended: set[Rule], target: Target) -> Iterator[Near]:
    """Yield the rules whose names include the target's, of the denying ones only those that match."""
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
    """Whether a name, or what a subtree can cover of it, is spelled like a rule's: each label like another."""
    labels, others = name.split("."), destination.name.split(".")
    own = labels[-len(others) :] if destination.subtree else labels
    pairs = zip(own, others, strict=False)
    return len(own) == len(others) and all(SequenceMatcher(None, *pair).ratio() >= _LABELS_ALIKE for pair in pairs)
