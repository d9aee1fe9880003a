"""The answers about what rules are worth."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import NonNegativeInt

from clawker_fw.denials.refusal import Counted
from clawker_fw.denials.usage.comparing import Compared
from clawker_fw.denials.usage.worth import Editing, Narrowed, Period, Refusing, Worth, allowing, removing, unused
from clawker_fw.model import Usage, Use
from clawker_fw.report.documents import Document, Moment
from clawker_fw.report.documents.parts import SettingsNamed
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.until import rfc3339
from clawker_fw.settings.loaded import Loaded


@dataclass(frozen=True, slots=True)
class KnownPeriod:
    """The time that was asked about, and how much of it is known."""

    asked: Moment
    """When it begins."""
    known: Moment
    """Since when it is known what agents have used."""
    whole: bool
    """Whether all of the time that was asked about is known."""
    lost: NonNegativeInt
    """Lines about uses that could not be read."""

    @classmethod
    def of(cls, period: Period, lost: int) -> "KnownPeriod":
        """Return it."""
        return cls(_moment(period.asked), _moment(period.known), period.whole, lost)


@dataclass(frozen=True, slots=True)
class RuleUse:
    """What was used of a rule."""

    last: Moment | None
    """When it was used last; null if no use is known."""
    connections: NonNegativeInt
    """Connections that have ended."""
    received: NonNegativeInt
    """Bytes from agents in these."""
    sent: NonNegativeInt
    """Bytes to agents in these."""
    names: NonNegativeInt
    """How many names were used, at most."""

    @classmethod
    def of(cls, worth: Worth) -> "RuleUse":
        """Return it."""
        last = None if worth.last is None else _moment(worth.last)
        return cls(last, worth.connections, worth.received, worth.sent, worth.names)


@dataclass(frozen=True, slots=True)
class UnusedRule:
    """A rule that allows something of which no use is known in this time."""

    rule: str
    """The rule in one line."""
    place: str
    """Where it is written: the file and the line, or the environment variable, and the preset."""
    preset: str | None
    """The preset that it is of; null for a rule of the settings themselves."""
    used: RuleUse
    """What was used of it before."""
    open: NonNegativeInt
    """Connections that are open on its ports and may be by this rule. They count when they end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesUnusedDocument(Document):
    """The answer of `rules unused`."""

    settings: SettingsNamed
    period: KnownPeriod
    rules: NonNegativeInt
    """How many rules allow something."""
    unused: list[UnusedRule]

    @classmethod
    def of(
        cls, loaded: Loaded, named_by: str, found: Sequence[Worth], period: Period, usage: Usage
    ) -> "RulesUnusedDocument":
        """Return the answer. `named_by` is what chose the settings."""
        return cls(
            settings=_named(loaded, named_by),
            period=KnownPeriod.of(period, usage.lost),
            rules=len(found),
            unused=[
                UnusedRule(str(each.rule), each.rule.place, each.rule.preset or None, RuleUse.of(each), each.open)
                for each in unused(found, period)
            ],
        )


@dataclass(frozen=True, slots=True)
class UsedName:
    """A name, protocol and port that was used."""

    protocol: str
    name: str
    port: int
    first: Moment
    last: Moment
    connections: NonNegativeInt
    """Connections that have ended."""
    received: NonNegativeInt
    """Bytes from agents in these."""
    sent: NonNegativeInt
    """Bytes to agents in these."""
    names: NonNegativeInt
    """How many names this is about: with more than one, `name` is the one that was used last."""

    @classmethod
    def of(cls, use: Use) -> "UsedName":
        """Return it."""
        when = _moment(use.first), _moment(use.last)
        amounts = use.connections, use.received, use.sent
        return cls(use.protocol, use.name, use.port, *when, *amounts, use.names)


@dataclass(frozen=True, slots=True)
class NarrowedRule:
    """A rule for a name and all below it, and what would allow only the names that were used."""

    rule: str
    """The rule in one line."""
    place: str
    """Where it is written."""
    used: list[UsedName]
    others: NonNegativeInt
    """How many further names were used, at most, that are not told apart: the narrowed rules would refuse them."""
    rules: list[str]
    """The rules for exactly the names that were used, each in one line."""
    commands: list[str]
    """The commands that put them in its place, or what else to do, in this order."""

    @classmethod
    def of(cls, each: Narrowed, editing: Editing) -> "NarrowedRule":
        """Return it, with commands that were simulated."""
        command = allowing(each.rules, editing)
        return cls(
            rule=str(each.rule),
            place=each.rule.place,
            used=[UsedName.of(use) for use in each.uses],
            others=each.others,
            rules=[str(rule) for rule in each.rules],
            commands=[*([command] if command else []), removing(each.rule, editing)],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesNarrowDocument(Document):
    """The answer of `rules narrow`."""

    settings: SettingsNamed
    period: KnownPeriod
    narrowed: list[NarrowedRule]

    @classmethod
    def of(
        cls,
        loaded: Loaded,
        named_by: str,
        found: Sequence[Narrowed],
        period: Period,
        usage: Usage,
        *,
        editing: Editing,
    ) -> "RulesNarrowDocument":
        """Return the answer. `named_by` is what chose the settings."""
        return cls(
            settings=_named(loaded, named_by),
            period=KnownPeriod.of(period, usage.lost),
            narrowed=[NarrowedRule.of(each, editing) for each in found],
        )


@dataclass(frozen=True, slots=True)
class RefusedUse:
    """What was used, and these rules would refuse."""

    used: UsedName
    reason: Reason
    """Why it would be refused."""
    rule: str | None
    """The rule that denies it; null if none does."""

    @classmethod
    def of(cls, each: Refusing) -> "RefusedUse":
        """Return it."""
        rule = each.decision.rule
        return cls(UsedName.of(each.use), each.decision.reason or Reason.NO_RULE, str(rule) if rule else None)


@dataclass(frozen=True, slots=True)
class AllowedRefusal:
    """What was refused, and these rules would allow."""

    protocol: str
    """That of the record: `dns`, `tls`, `https`, `http`, `tcp` or `udp`."""
    name: str
    port: int | None
    """Null for a question to the resolver."""
    request: str | None
    """The method and path of the last one; null where TLS was not looked into."""
    reason: str
    """Why it was refused."""
    times: NonNegativeInt
    last: Moment

    @classmethod
    def of(cls, each: Counted) -> "AllowedRefusal":
        """Return it."""
        refusal = each.refusal
        words = refusal.protocol, refusal.name, refusal.port or None, each.request or None, refusal.reason
        return cls(*words, each.times, each.last)


@dataclass(frozen=True, slots=True)
class RulesAgainst:
    """These rules against what happened in a time."""

    period: KnownPeriod
    checked: NonNegativeInt
    """How many different names, protocols and ports were used."""
    refused: list[RefusedUse]
    allowed: list[AllowedRefusal]
    others: NonNegativeInt
    """How many further names were used, at most, that are not told apart, so that not all could be checked."""
    inspected: NonNegativeInt
    """How many uses are by rules for paths: which paths were used is not known."""
    uncounted: NonNegativeInt
    """How many refusals could only be counted, so that what was refused is not known."""

    @classmethod
    def of(cls, compared: Compared) -> "RulesAgainst":
        """Return it."""
        found = compared.uses
        return cls(
            period=KnownPeriod.of(found.period, compared.lost),
            checked=found.checked,
            refused=[RefusedUse.of(each) for each in found.refused],
            allowed=[AllowedRefusal.of(each) for each in compared.allowed],
            others=found.others,
            inspected=found.inspected,
            uncounted=compared.more,
        )


def _moment(seconds: float) -> str:
    return rfc3339(int(seconds))


def _named(loaded: Loaded, named_by: str) -> SettingsNamed:
    return SettingsNamed(str(loaded.source.absolute()) if loaded.source else None, named_by)
