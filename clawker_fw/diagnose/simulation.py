"""Simulates commands on the rules in memory to see what each would allow. Pure.

Commands run through the real code (`settings/edit`). Then every probe that they could affect is decided: all known
names, ports and protocols nearby, and with TLS inspection a table of requests.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from clawker_fw.errors import RefusedError
from clawker_fw.rules.destination import Destination
from clawker_fw.rules.path_words import require_decisive
from clawker_fw.rules.paths import Paths
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.promises import Promise, PromiseKind, broken
from clawker_fw.rules.rule import HIGHEST_PORT, Protocol, Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.target import Request, Target
from clawker_fw.settings.edit import edits
from clawker_fw.settings.edit.edits import Written
from clawker_fw.settings.edit.rules_file import Editable
from clawker_fw.settings.edit.words import AllowCommand

_ANOTHER = "another-name"
"""A label, and a path segment, that no rule has."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
_MOST_PATHS = 20
"""The number of a rule's paths that are tried, besides those of the command."""


class Opened(StrEnum):
    """What a command allows besides what was refused."""

    TRANSPORT = "whatever else is sent over TCP on this port"
    BELOW = "everything below this path"
    REQUESTS = "other requests to this host"
    NAMES = "the same for every other name in {name}"
    OTHERS = "other ports or protocols of this host"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was refused. `request` matters with TLS inspection; None means all requests.

    `base` is the rule that nearly allows the connection; then only what its paths allow is wanted. With `private`,
    the name leads to private addresses.
    """

    target: Target
    request: Request | None = None
    base: Rule | None = None
    private: bool = False

    def includes(self, probe: "Probe") -> bool:
        """Whether a probe belongs to what was refused."""
        target, asked = self.target, probe.request
        if (probe.name, probe.port) != (target.name, target.port) or not self._spoken(probe.protocol):
            return False
        if asked is None:
            return True
        if self.request:
            same = (asked.method, asked.path) == (self.request.method, self.request.path)
            return same and (self.request.websocket or not asked.websocket)
        paths = self.base.paths if self.base else None
        decided = paths.decide(asked.method, asked.target, websocket=asked.websocket) if paths else None
        return decided is None or decided.reason is None

    def is_met_by(self, probe: "Probe") -> bool:
        """Whether an included probe covers all of what was refused, not only a part."""
        if probe.protocol is not self.target.protocol:
            return False
        if self.request is None or probe.request is None:
            return self.request is probe.request
        return self.request.websocket == probe.request.websocket

    def _spoken(self, protocol: Protocol) -> bool:
        own = self.target.protocol
        return protocol is own or (own.opaque and protocol.opaque and protocol.transport is own.transport)


class Probe(NamedTuple):
    """A connection, or a request in one, to decide before and after a command."""

    name: str
    protocol: Protocol
    port: int
    request: Request | None = None


class Access(NamedTuple):
    """Properties of an allowance: private addresses, fixed address, unverified host, and injected secret."""

    private: bool
    host: str
    unverified: bool
    secret: str

    def widens(self, before: "Access | None") -> bool:
        """Whether it allows more than before."""
        return before is None or (
            self.private > before.private or self.host != before.host or self.unverified > before.unverified
        )

    def narrows(self, before: "Access") -> bool:
        """Whether it allows less than before."""
        return before.private > self.private or (self.host, self.secret) != (before.host, before.secret)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command's effect. `allows` is whether it allows what was refused without narrowing any rule.

    `opens` is what else it allows. `elsewhere` is a rule that it should change but can't, and `by_hand` a file
    that it can't extend. `secret` would go with the request.
    """

    command: AllowCommand
    allows: bool = False
    opens: tuple[Opened, ...] = ()
    elsewhere: Rule | None = None
    by_hand: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class _Change:
    """A command's rule, and all rules nearby before and after it. The others are as in `Outcome`."""

    rule: Rule
    before: tuple[Rule, ...]
    after: tuple[Rule, ...]
    elsewhere: Rule | None = None
    by_hand: str = ""


class Simulator:
    """Tries commands on the rules of a settings file."""

    def __init__(
        self, entries: Sequence[Written], promises: Iterable[Promise], now: float, editable: Editable | None
    ) -> None:
        """Take all rules with their places, and the file with them. `now` is in seconds since 1970."""
        self._editable = editable
        self._entries = entries
        self._never = tuple(promise for promise in promises if promise.kind is PromiseKind.NEVER)
        self._now = now
        self._by_name: dict[str, list[Written]] = {}
        for one in entries:
            self._by_name.setdefault(one.rule.destination.name, []).append(one)

    def outcome(self, command: AllowCommand, refused: Wanted) -> Outcome:
        """Return the effect of a command."""
        nothing = Outcome(command)
        change = self._change(command)
        if change is None:
            return nothing
        before, after = (Policy(RuleSet(rules).at(self._now)) for rules in (change.before, change.after))
        opened: set[Opened] = set()
        met, secret = False, ""
        for probe in _probes(change, refused):
            was, now = _access(before, probe), _access(after, probe)
            if was and (now is None or now.narrows(was)):
                return nothing
            if not refused.includes(probe):
                if now and now.widens(was):
                    opened.add(_kind(probe, refused, change.rule))
            elif refused.is_met_by(probe):
                if now is None or (refused.private and not now.private):
                    return nothing
                met, secret = True, now.secret
        in_order = tuple(kind for kind in Opened if kind in opened)
        return Outcome(command, met, in_order, change.elsewhere, change.by_hand, secret)

    def _change(self, command: AllowCommand) -> "_Change | None":
        """Return the rules that a command could affect, before and after it; None if it is refused."""
        try:
            addition = command.addition(self._now)
            near = self._near(addition.rule.destination)
            # Simulate as if all rules were in the file; rules elsewhere are reported afterwards.
            entries = [Written(one.rule, place) for place, one in enumerate(near)]
            edit, _ = edits.add(entries, [addition], self._now)
            after = edits.resulting((one.rule for one in near), addition)
            for rule in after:
                if rule.paths:
                    require_decisive(rule.paths)
            changed = RuleSet.of(after).rules
        except (RefusedError, ValueError):  # from the command line, paths, or contradicting rules
            return None
        if broken(self._never, RuleSet(changed)):
            return None
        elsewhere = next((near[place].rule for place in edit.changed if not self._is_editable(near[place])), None)
        by_hand = ""
        if self._editable and edit.added and not self._editable.fits(None):
            by_hand = str(self._editable.path)
        return _Change(addition.rule, tuple(one.rule for one in near), changed, elsewhere, by_hand)

    def _is_editable(self, one: Written) -> bool:
        if one.position is None:
            return False
        return self._editable is None or self._editable.fits(one.position)

    def _near(self, destination: Destination) -> list[Written]:
        """Return the rules that may overlap with a rule for the destination."""
        parts = destination.name.split(".")
        above = (".".join(parts[start:]) for start in range(len(parts)))
        covering = (one for name in above for one in self._by_name.get(name, ()))
        by_id = {id(one): one for one in covering if one.rule.covers(destination.name)}
        if destination.subtree:
            below = f".{destination.name}"
            by_id |= {id(one): one for one in self._entries if one.rule.destination.name.endswith(below)}
        return list(by_id.values())

    def base(self, target: Target) -> Rule | None:
        """Return the rule that allows a connection, or would if nothing had expired or denied it."""
        allowing = [one.rule for one in self._near(Destination(target.name, subtree=False)) if not one.rule.denies]
        for rules in (RuleSet(tuple(allowing)).at(self._now), RuleSet(tuple(allowing))):
            decided = Policy(rules).decide(target.name, target.protocol, target.port)
            if decided.allowed:
                return decided.rule
        return None


def _probes(change: _Change, refused: Wanted) -> Iterator[Probe]:
    ports = {refused.target.port}
    for rule in (change.rule, *change.before):
        ports |= {end + step for end in (rule.port, rule.last_port) if end for step in (-1, 0, 1)}
    ports = {port for port in ports if 0 < port <= HIGHEST_PORT}
    inspecting = [rule.paths for rule in (*change.before, *change.after) if rule.paths]
    requests = list(_requests(change.rule, inspecting, refused)) if inspecting else []
    for name in _names(change, refused):
        yield from (Probe(name, protocol, port) for port in ports for protocol in Protocol)
        for port in {refused.target.port, *change.rule.ports[:1]}:
            yield from (Probe(name, Protocol.HTTPS, port, request) for request in requests)


def _names(change: _Change, refused: Wanted) -> set[str]:
    rule = change.rule
    names = {rule.destination.name}
    if rule.destination.subtree:
        below = f".{rule.destination.name}"
        below_it = {name for other in change.before if (name := other.destination.name).endswith(below)}
        names |= {f"{_ANOTHER}.{name}" for name in (*below_it, rule.destination.name)} | below_it
        names |= {refused.target.name} if rule.covers(refused.target.name) else set()
    return names


def _requests(rule: Rule, inspecting: Sequence[Paths], refused: Wanted) -> Iterator[Request]:
    """Yield requests: the rules' paths and nearby ones, with all relevant methods."""
    new = rule.paths.rules if rule.paths else ()
    literal = [rule.path for rule in new if not rule.expression]
    if refused.request:
        literal.append(refused.request.path)
    literals = [rule for paths in inspecting for rule in paths.rules if not rule.expression]
    folders = tuple(f"{path.rstrip('/')}/" for path in literal)
    below = [rule.path for rule in literals if rule.path.startswith(folders)]
    paths = {"/", *literal, *below[:_MOST_PATHS], *(rule.path for rule in literals[:_MOST_PATHS])}
    methods = {*_METHODS, *(method for rule in (*new, *literals[:_MOST_PATHS]) for method in rule.methods)}
    if refused.request:
        methods.add(refused.request.method)
    around = {near for path in paths for near in _around(path)}
    yield from (Request(method, path, socket) for path in around for method in methods for socket in (False, True))
    for repository in (one for inspected in inspecting for one in inspected.repositories[:_MOST_PATHS]):
        yield from (Request(sent.method, sent.target) for sent in repository.requests(lfs=True))


def _around(path: str) -> tuple[str, ...]:
    folder = path.rstrip("/")
    return path, f"{folder}/{_ANOTHER}", f"{path}{_ANOTHER}", path.rpartition("/")[0] or "/", f"{folder}/"


def _access(policy: Policy, probe: Probe) -> Access | None:
    request = probe.request
    asked = (request.method, request.target) if request else (None, None)
    websocket = request is not None and request.websocket
    decided = policy.decide(probe.name, probe.protocol, probe.port, *asked, websocket=websocket)
    rule = decided.rule
    if rule is None or not decided.allowed:
        return None
    injection = rule.paths.injection if rule.paths and request else None
    unverified = rule.paths is not None and not rule.paths.verify
    return Access(rule.allow_private, rule.host, unverified, injection.secret if injection else "")


def _kind(probe: Probe, refused: Wanted, rule: Rule) -> Opened:
    """Classify what a probe shows that a command allows beyond what was wanted."""
    target, asked = refused.target, probe.request
    if probe.name != target.name:
        return Opened.NAMES
    if probe.port != target.port or probe.protocol.transport is Protocol.UDP:
        return Opened.OTHERS
    if asked is None or probe.protocol is not target.protocol:
        return Opened.TRANSPORT if rule.opaque else Opened.OTHERS
    request = refused.request
    if request is None or rule.paths is None or request.method != asked.method:
        return Opened.REQUESTS
    return Opened.BELOW if asked.path.startswith(f"{request.path.rstrip('/')}/") else Opened.REQUESTS
