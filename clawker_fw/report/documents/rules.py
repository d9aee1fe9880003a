"""The answers of `clawker-fw rules`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field, NonNegativeInt

from clawker_fw.denials.usage import Period, RuleUsage, unused, usage_of_rules
from clawker_fw.model.json_types import Moment
from clawker_fw.model.usage import Usage
from clawker_fw.report.documents import Document, ErrorPart
from clawker_fw.report.documents.parts import Lines, SettingsNamed
from clawker_fw.report.documents.run import RunDocument
from clawker_fw.report.rules import counts
from clawker_fw.rules.review import Remark, RemarkCode
from clawker_fw.rules.rule import HIGHEST_PORT, Protocol, Rule, RuleAction
from clawker_fw.rules.until import rfc3339
from clawker_fw.settings.edit.edits import EditResult
from clawker_fw.settings.edit.rules_file import Edited
from clawker_fw.settings.loaded import Loaded


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
    def of(cls, usage: RuleUsage) -> "RuleUse":
        last = None if usage.last is None else _moment(usage.last)
        return cls(last, usage.connections, usage.received, usage.sent)


@dataclass(frozen=True, slots=True)
class ListedRule:
    """A rule of the settings, or of a preset that they name."""

    dst: str
    """The name; with a leading dot, everything below it as well."""
    as_: Annotated[str | None, Field(serialization_alias="as")]
    """The name that stands for `dst`, if that is an address."""
    proto: Protocol | None
    """Null: every protocol."""
    port: Annotated[int, Field(ge=1, le=HIGHEST_PORT)] | str | None
    """The port, or several as text (`8000-8010`); null for every port."""
    action: RuleAction
    allow_private: bool
    paths: list[str] | None
    """What is allowed of the host, in the order in which it decides, if its TLS is inspected; else null."""
    until: Moment | None
    """When the rule ends; null: never."""
    ended: bool
    """Whether it has ended."""
    note: str
    """What it is for."""
    place: str
    """Where it is written: the file and the line, or the environment variable, and the preset."""
    preset: str | None
    """The preset that it is of; null for a rule of the settings themselves."""
    used: RuleUse | None
    """What agents have used of it; null without `--used`, and for rules that deny or have ended."""

    @classmethod
    def of(cls, rule: Rule, now: float, used: RuleUse | None = None) -> "ListedRule":
        """Return a rule. `now` is in seconds since 1970."""
        return cls(
            dst=rule.host or str(rule.destination),
            as_=rule.destination.name if rule.host else None,
            proto=rule.protocol,
            port=rule.written_port,
            action=rule.action,
            allow_private=rule.allow_private,
            paths=None if rule.paths is None else list(rule.paths.words),
            until=None if rule.until is None else rfc3339(rule.until),
            ended=rule.until is not None and rule.until <= now,
            note=rule.note,
            place=rule.place,
            preset=rule.preset or None,
            used=used,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesListDocument(Document):
    """The answer of `rules list`."""

    settings: SettingsNamed
    rules: list[ListedRule]
    """All rules, in canonical order, also those that have ended."""
    used_since: Moment | None
    """Since when it is known what agents have used; null without `--used`."""

    @classmethod
    def of(cls, loaded: Loaded, named_by: str, now: float, usage: Usage | None = None) -> "RulesListDocument":
        """Return the answer. `now` is in seconds since 1970; `named_by` chose the settings."""
        usages = (
            {rule_usage.rule: RuleUse.of(rule_usage) for rule_usage in usage_of_rules(loaded.rules, usage)}
            if usage
            else {}
        )
        return cls(
            settings=SettingsNamed.named(loaded, named_by),
            rules=[ListedRule.of(rule, now, usages.get(rule)) for rule in loaded.rules.rules],
            used_since=_moment(usage.since) if usage else None,
        )


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
        return cls(_moment(period.asked), _moment(period.known), period.whole, lost)


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
        cls, loaded: Loaded, named_by: str, usages: Sequence[RuleUsage], period: Period, usage: Usage
    ) -> "RulesUnusedDocument":
        return cls(
            settings=SettingsNamed.named(loaded, named_by),
            period=KnownPeriod.of(period, usage.lost),
            rules=len(usages),
            unused=[
                UnusedRule(
                    str(rule_usage.rule),
                    rule_usage.rule.place,
                    rule_usage.rule.preset or None,
                    RuleUse.of(rule_usage),
                    rule_usage.open,
                )
                for rule_usage in unused(usages, period)
            ],
        )


@dataclass(frozen=True, slots=True)
class RulesOfFile:
    """How many rules a file has."""

    path: str
    """The file, the environment variable, or `the preset NAME`."""
    rules: NonNegativeInt


@dataclass(frozen=True, slots=True)
class RuleWarning:
    """A rule that decides nothing, or less than it seems to, or whose secret can't be checked here."""

    code: RemarkCode
    """What is remarkable about the rule."""
    message: str
    """A sentence for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesCheckDocument(Document):
    """The answer of `rules check`."""

    settings: SettingsNamed
    rules: NonNegativeInt
    """How many rules there are."""
    files: list[RulesOfFile]
    """How many rules each file has."""
    warnings: list[RuleWarning]
    """Rules that decide nothing, or less than they seem to, or whose secrets can't be checked here."""

    @classmethod
    def of(cls, loaded: Loaded, named_by: str, remarks: Iterable[Remark]) -> "RulesCheckDocument":
        return cls(
            settings=SettingsNamed.named(loaded, named_by),
            rules=len(loaded.rules.rules),
            files=[RulesOfFile(path, count) for path, count in counts(loaded).items()],
            warnings=_warnings(remarks),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesEditDocument(Document):
    """The answer of the verbs that edit."""

    settings: SettingsNamed
    """The settings that were edited."""
    changed: bool = False
    """Whether the settings file was changed."""
    dry_run: bool = False
    """Whether only to show what would be done."""
    rules: Sequence[EditResult]
    """What becomes of each rule, in the order of the command line."""
    warnings: list[RuleWarning]
    """Rules that decide nothing since this edit."""
    reload: RunDocument | None = None
    """The answer of `reload`; null when nothing was applied."""
    error: ErrorPart | None = None
    """Why the saved rules could not be applied; null without such a failure."""
    summary: Lines = field(default_factory=list)
    """With `--dry-run`, what `reload` would do and why, in lines for people; empty if no stack is up."""

    @classmethod
    def of(
        cls,
        done: Edited,
        named_by: str,
        remarks: Sequence[Remark],
        reload: RunDocument | None = None,
        *,
        dry_run: bool,
    ) -> "RulesEditDocument":
        """Return the answer with the new `remarks`."""
        return cls(
            settings=SettingsNamed.named(done.after, named_by),
            changed=done.changed and not dry_run,
            dry_run=dry_run,
            rules=done.results,
            warnings=_warnings(remarks),
            reload=reload,
        )


def _moment(seconds: float) -> str:
    return rfc3339(int(seconds))


def _warnings(remarks: Iterable[Remark]) -> list[RuleWarning]:
    return [RuleWarning(remark.code, f"{remark}.") for remark in remarks]
