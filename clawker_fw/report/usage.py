"""The answers about rules' usage, as text."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.filesize import decimal

from clawker_fw.denials.usage import Period, RuleUsage, removing, unused
from clawker_fw.model.usage import Usage
from clawker_fw.report.spans import counted, remaining

_INDENT = " " * 2
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def rows(usages: Sequence[RuleUsage], now: float) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings and the rows of the table of allow rules, with their usage."""
    headings = ("rule", "last used", "connections", "from agents", "to agents", "written in")
    return headings, [
        (
            str(rule_usage.rule),
            _ago(rule_usage.last, now),
            f"{rule_usage.connections:,}",
            decimal(rule_usage.received),
            decimal(rule_usage.sent),
            rule_usage.rule.place,
        )
        for rule_usage in usages
    ]


def used_lines(usages: Sequence[RuleUsage], usage: Usage) -> Iterator[str]:
    """Yield the number of used rules, the known period, and its gaps."""
    used = sum(rule_usage.last is not None for rule_usage in usages)
    since = f"{_time(usage.since)}, {_span(usage.now - usage.since)} ago"
    verb = "has" if used == 1 else "have"
    yield f"{used:,} of {counted(len(usages), 'rule')} that allow something {verb} been used since {since}."
    yield from _lost(usage)


def unused_lines(usages: Sequence[RuleUsage], period: Period, usage: Usage, file: Path | None) -> Iterator[str]:
    """Yield the number of unused rules, the gaps, and how to remove each rule."""
    idle = unused(usages, period)
    verb, time = "is" if len(idle) == 1 else "are", _span(period.now - period.begin)
    yield f"{len(idle):,} of {counted(len(usages), 'rule')} that allow something {verb} unused in the last {time}."
    if not period.whole:
        known, asked = _span(period.now - period.known), _span(period.now - period.asked)
        yield f"Known only since {_time(period.known)}, {known} ago, and not for the whole {asked}."
    yield from _lost(usage)
    for rule_usage in idle:
        last = f"last used {_ago(rule_usage.last, usage.now)}" if rule_usage.last else "no use is known"
        may_be_open = f", {counted(rule_usage.open, 'connection')} open on its port" if rule_usage.open else ""
        yield f"unused  {rule_usage.rule}{rule_usage.rule.located}: {last}{may_be_open}"
        yield f"{_INDENT}{removing(rule_usage.rule, file)}"
    if any(rule_usage.open for rule_usage in idle):
        yield "A connection over https or http counts when it ends. One that is open may be by an unused rule."


def _lost(usage: Usage) -> Iterator[str]:
    if usage.lost:
        yield f"{counted(usage.lost, 'line')} of Envoy's could not be read, so uses may be missing."


def _ago(moment: float | None, now: float) -> str:
    return "-" if moment is None else f"{_span(now - moment)} ago"


def _span(seconds: float) -> str:
    """Return a time span, days to the hour and hours to the minute."""
    return remaining(seconds - seconds % (_HOUR if seconds >= _DAY else _MINUTE if seconds >= _HOUR else 1))


def _time(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC).astimezone():%Y-%m-%d %H:%M}"
