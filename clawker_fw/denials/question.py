"""A refusal as a question to a person: whether it is asked at all, and what it says. Pure.

An agent chooses the names that it asks for, and may hope that a person allows one without looking. So a question
is only ever about one host by its exact name, and never about what nobody should allow without thinking: for that,
a person edits the rules. Nothing is looked up for a question, because a name that an agent made up may carry data
to whoever answers for it.
"""

import shlex
from dataclasses import dataclass, replace

from clawker_fw.denials.advice import NOT_ALLOWED, Adviser
from clawker_fw.denials.refusal import Counted
from clawker_fw.diagnose.explanation import Difference, Explainer, Explanation, Near
from clawker_fw.diagnose.remedies import remedy_of
from clawker_fw.diagnose.simulation import Opened
from clawker_fw.rules.destination import Destination, objection, parse_destination
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.suffixes import is_shared
from clawker_fw.rules.target import Target
from clawker_fw.settings.edit.words import AllowCommand

_PRIVATE_DOMAINS = frozenset({"alt", "arpa", "internal", "invalid", "local", "localhost", "onion"})
"""Top-level domains of which no name leads to the internet, such as that of `metadata.google.internal` (RFC 6761,
RFC 6762, RFC 8375, RFC 7686, RFC 9476; `internal` is reserved by ICANN)."""


@dataclass(frozen=True, slots=True)
class Question:
    """Whether agents may reach a host.

    `asked` is the protocol of the record: after a question to the resolver (`dns`), the protocol and the port are
    only assumed. `near` is the rule that nearly allows it, and `renewed` one that is for just this and has ended.
    `known` says that something else is allowed of the host, so that a deny is for just this. `allow` is the
    command that allows it.
    """

    target: Target
    allow: AllowCommand
    agents: tuple[str, ...]
    times: int
    asked: str
    reason: Reason
    message: str
    near: Near | None = None
    renewed: Rule | None = None
    known: bool = False

    @property
    def guessed(self) -> bool:
        """Whether nothing has said over what protocol and on which port the host is wanted."""
        return self.asked == "dns"

    def allow_until(self, time: str = "") -> AllowCommand:
        """Return what allows it for a time, such as `30m`, or always."""
        return replace(self.allow, until=time or ("never" if self.renewed else ""))

    def allow_command(self, time: str = "") -> str:
        """Return the command that allows it, safe to paste into a shell."""
        return shlex.join(("clawker-fw", *self.allow_until(time).words))


def host_of(counted: Counted) -> str:
    """Return the host that may be asked about, or "" if no person should be asked about this refusal.

    What a rule denies was meant to be denied.
    A name is taken as it was asked for or not at all: of `a.test/x` or `a.test@b.test`, one part is not meant.
    """
    refusal = counted.refusal
    name = refusal.name.removesuffix(".")
    return name if refusal.reason in NOT_ALLOWED and not _unfit(name) else ""


def _unfit(name: str) -> bool:
    """Whether nobody is asked about a name: it is none, only of a private network, anybody's, or international.

    The letters of an international name may look like those of another one.
    """
    try:
        destination = parse_destination(name)
    except ValueError:
        return True
    if destination != Destination(name, subtree=False) or objection(destination) or is_shared(name):
        return True
    labels = name.split(".")
    return len(labels) == 1 or labels[-1] in _PRIVATE_DOMAINS or any(each.startswith("xn--") for each in labels)


def question(explainer: Explainer, rules: RuleSet, counted: Counted, agents: tuple[str, ...]) -> Question | None:
    """Return what to ask about a refusal by the rules in force, or None if it is not asked about.

    It is not where the rules allow it by now, where any rule denies the name or has it stand for an address, and
    where an ended rule led to private addresses, or one rule more for exactly this would not be enough.
    """
    found = Adviser(explainer).explained(counted)
    name = host_of(counted)
    if found is None or found.target.name != name or found.allowed or found.reason not in NOT_ALLOWED:
        return None
    resolved = counted.refusal.protocol == "dns" and explainer.resolves(name)
    if resolved or any((rule.denies or rule.host) and rule.covers(name) for rule in rules.rules):
        return None
    if found.claimed_by not in {None, found.own} or _restricted(found):
        return None
    remedy = remedy_of(found)
    if remedy is None or not (remedy.allow and remedy.command) or not {*remedy.opens} <= {Opened.TRANSPORT}:
        return None
    return Question(
        found.target,
        remedy.allow,
        agents,
        counted.times,
        counted.refusal.protocol,
        found.reason,
        found.sentence,
        _nearest(explainer, found),
        found.own if found.own_ended else None,
        known=explainer.resolves(name),
    )


def _nearest(explainer: Explainer, found: Explanation) -> Near | None:
    if found.rule and found.reason is Reason.EXPIRED:
        return Near(found.rule, Difference.ENDED)
    return next(iter(explainer.explain(found.target).near), None)


def _restricted(found: Explanation) -> bool:
    """Whether a rule that is, or was, for the name says more of it than a rule of its own would keep."""
    return any(
        rule.allow_private or rule.host or (rule.paths is not None and rule != found.own)
        for rule in (found.rule, found.own)
        if rule and not rule.denies
    )
