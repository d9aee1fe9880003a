"""Turns a refusal into a question to a person, or decides not to ask. Pure.

An agent chooses the names and may hope for a careless yes. So a question is about one host by its exact name, and
never about risky names: for these, a person edits the rules. Nothing is resolved for a question, because a name
that an agent made up may carry data to its name server.
"""

import shlex
from dataclasses import dataclass, replace

from clawker_fw.denials.advice import NOT_ALLOWED, Adviser
from clawker_fw.denials.refusal import Counted
from clawker_fw.diagnose.explanation import Difference, Explainer, Explanation, Near
from clawker_fw.diagnose.remedies import remedy_of
from clawker_fw.diagnose.simulation import Opened
from clawker_fw.rules.destination import Destination, objection, parse_destination
from clawker_fw.rules.observing import PRIVATE_DOMAINS
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.suffixes import is_shared
from clawker_fw.rules.target import Target
from clawker_fw.settings.edit.words import AllowCommand


@dataclass(frozen=True, slots=True)
class Question:
    """Whether agents may reach a host.

    `asked` is the record's protocol; for a DNS query (`dns`), protocol and port are guesses. `near` is the rule
    that nearly allows it, and `renewed` an expired rule for exactly this. With `known`, the host has other
    allowances, so a deny covers only this port. `allow` is the command that allows it.
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
        """Whether the protocol and the port are guesses."""
        return self.asked == "dns"

    def allow_until(self, time: str = "") -> AllowCommand:
        """Return the command that allows it for a time, such as `30m`, or always."""
        return replace(self.allow, until=time or ("never" if self.renewed else ""))

    def allow_command(self, time: str = "") -> str:
        """Return that command as text, safe to paste into a shell."""
        return shlex.join(("clawker-fw", *self.allow_until(time).words))


def host_of(counted: Counted) -> str:
    """Return the host to ask about, or "" if no person should be asked.

    Nobody is asked about denied names. The name must be exactly as requested: `a.test/x` or `a.test@b.test` are
    not cut to a host.
    """
    refusal = counted.refusal
    name = refusal.name.removesuffix(".")
    return name if refusal.reason in NOT_ALLOWED and not unfit(name) else ""


def unfit(name: str) -> str:
    """Return why a name is unfit for a question, as a sentence; "" if it is fit."""
    try:
        destination = parse_destination(name)
    except ValueError:
        return "It is not a host name."
    labels = name.split(".")
    reasons = {
        "It is not a host name.": destination != Destination(name, subtree=False),
        "It is a public suffix, below which anybody can register.": objection(destination) or is_shared(name),
        "It is a private name.": len(labels) == 1 or labels[-1] in PRIVATE_DOMAINS,
        "It is an international name, which may look like another one.": any(
            label.startswith("xn--") for label in labels
        ),
    }
    return next((sentence for sentence, applies in reasons.items() if applies), "")


def question(explainer: Explainer, rules: RuleSet, counted: Counted, agents: tuple[str, ...]) -> Question | None:
    """Return the question about a refusal by the current rules, or None if nobody should be asked.

    Nobody is asked if the rules now allow it, if a rule denies the name or gives it a fixed address, if an expired
    rule led to private addresses, or if one more rule for exactly this is not enough.
    """
    explanation = Adviser(explainer).explained(counted)
    name = host_of(counted)
    if (
        explanation is None
        or explanation.target.name != name
        or explanation.allowed
        or explanation.reason not in NOT_ALLOWED
    ):
        return None
    resolved = counted.refusal.protocol == "dns" and explainer.resolves(name)
    if resolved or any((rule.denies or rule.host) and rule.covers(name) for rule in rules.rules):
        return None
    if explanation.claimed_by not in {None, explanation.own} or _restricted(explanation):
        return None
    remedy = remedy_of(explanation)
    if remedy is None or not (remedy.allow and remedy.command) or not {*remedy.opens} <= {Opened.TRANSPORT}:
        return None
    near = next(iter(explainer.explain(explanation.target).near), None)
    if explanation.rule and explanation.reason is Reason.EXPIRED:
        near = Near(explanation.rule, Difference.ENDED)
    return Question(
        explanation.target,
        remedy.allow,
        agents,
        counted.times,
        counted.refusal.protocol,
        explanation.reason,
        explanation.sentence,
        near,
        explanation.own if explanation.own_ended else None,
        known=explainer.resolves(name),
    )


def _restricted(explanation: Explanation) -> bool:
    """Whether a rule for the name, current or expired, has restrictions that a new rule would lose."""
    return any(
        rule.allow_private or rule.host or (rule.paths is not None and rule != explanation.own)
        for rule in (explanation.rule, explanation.own)
        if rule and not rule.denies
    )
