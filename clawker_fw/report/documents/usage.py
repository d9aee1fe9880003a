"""The answers about what rules are worth."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import NonNegativeInt

from clawker_fw.denials.usage.worth import Period, Worth, unused
from clawker_fw.model import Usage
from clawker_fw.report.documents import Document, Moment
from clawker_fw.report.documents.parts import SettingsNamed
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

    @classmethod
    def of(cls, worth: Worth) -> "RuleUse":
        """Return it."""
        last = None if worth.last is None else _moment(worth.last)
        return cls(last, worth.connections, worth.received, worth.sent)


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


def _moment(seconds: float) -> str:
    return rfc3339(int(seconds))


def _named(loaded: Loaded, named_by: str) -> SettingsNamed:
    return SettingsNamed(str(loaded.source.absolute()) if loaded.source else None, named_by)
