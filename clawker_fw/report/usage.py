"""The answers about what rules are worth, for people."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from clawker_fw.denials.refusal import Counted
from clawker_fw.denials.usage.comparing import Compared
from clawker_fw.denials.usage.worth import Editing, Narrowed, Period, Worth, allowing, removing, unused
from clawker_fw.model import Usage, Use
from clawker_fw.report.spans import remaining
from clawker_fw.report.terminal import visible
from clawker_fw.report.text import counted

_INDENT = " " * 2
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_MOST_IN_A_COMMAND = 50
"""Names: a longer command is better made of the JSON answer."""


def rows(found: Sequence[Worth], now: float) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings and the rows of the table of rules that allow something, with what was used."""
    headings = ("rule", "last used", "connections", "from agents", "to agents", "names", "written in")
    return headings, [
        (
            str(each.rule),
            _ago(each.last, now),
            f"{each.connections:,}",
            amount(each.received),
            amount(each.sent),
            f"{each.names:,}",
            each.rule.place,
        )
        for each in found
    ]


def since(usage: Usage) -> str:
    """Return since when it is known what was used."""
    lost = f" {counted(usage.lost, 'line')} of Envoy's could not be read." if usage.lost else ""
    return f"Known since {_time(usage.since)}, {_span(usage.now - usage.since)} ago.{lost}"


def unused_lines(found: Sequence[Worth], period: Period, usage: Usage, editing: Editing) -> Iterator[str]:
    """Yield the rules that were not used, each with how to remove it."""
    there = unused(found, period)
    for each in there:
        last = f"last used {_ago(each.last, usage.now)}" if each.last else "no use is known"
        may_be_open = f", {counted(each.open, 'connection')} open on its port" if each.open else ""
        yield f"unused  {each.rule}{each.rule.located}: {last}{may_be_open}"
        yield f"{_INDENT}{removing(each.rule, editing)}"
    yield f"{len(there):,} of {counted(len(found), 'rule')} that allow something: unused{_within(period)}."
    yield from _limits(period, usage)
    if any(each.open for each in there):
        yield "A connection over https or http counts when it ends. One that is open may be by an unused rule."


def narrow_lines(found: Sequence[Narrowed], period: Period, usage: Usage, editing: Editing) -> Iterator[str]:
    """Yield the names below each rule that were used, and the commands that would allow only these."""
    for each in found:
        yield f"{each.rule}{each.rule.located}: {counted(len(each.rules), 'name')} used{_within(period)}"
        yield from (f"{_INDENT}{line}" for line in _used(each.uses, usage.now))
        yield from _replacing(each, editing)
    yield from _limits(period, usage)


def _used(uses: Sequence[Use], now: float) -> Iterator[str]:
    for use in uses:
        amounts = f"{amount(use.received)} from agents, {amount(use.sent)} to agents"
        connections = counted(use.connections, "connection")
        yield f"{_place(use)}  {connections}, {amounts}, last {_ago(use.last, now)}"


def _replacing(each: Narrowed, editing: Editing) -> Iterator[str]:
    if each.others:
        yield f"At most {counted(each.others, 'more name')} not told apart any more: they would be refused."
    if not each.rules:
        yield f"Remove it: {removing(each.rule, editing)}"
        return
    command = allowing(each.rules, editing) if len(each.rules) <= _MOST_IN_A_COMMAND else None
    yield "In its place, without a gap:"
    if command:
        yield f"{_INDENT}{command}"
    elif each.rule.paths:
        yield f"{_INDENT}a rule with the same paths for each of these names"
    else:
        yield f"{_INDENT}a rule for each of these names; `--format json` has them"
    yield f"{_INDENT}{removing(each.rule, editing)}"


def against_lines(compared: Compared) -> Iterator[str]:
    """Yield what rules would change of what happened."""
    found, period = compared.uses, compared.uses.period
    for each in found.refused:
        why = each.decision.reason.sentence if each.decision.reason else ""
        rule = f": {each.decision.rule}{each.decision.rule.located}" if each.decision.rule else ""
        use = each.use
        more = f" and {use.names - 1:,} names like it" if use.names > 1 else ""
        connections = counted(use.connections, "connection")
        yield f"refused  {_place(use)}{more}  {connections}, last {_ago(use.last, period.now)}"
        yield f"{_INDENT}{why}{rule}"
    for refusal in compared.allowed:
        times = counted(refusal.times, "time")
        # An agent has chosen the name.
        yield f"allowed  {visible(_refused(refusal))}  refused {times}, last {_moment(refusal.last)}"
    yield (
        f"{counted(found.checked, 'use')}{_within(period)}: {len(found.refused):,} would be refused. "
        f"Of what was refused, {len(compared.allowed):,} would be allowed."
    )
    if not period.whole:
        yield _known_since(period)
    if found.others:
        yield f"At most {counted(found.others, 'more name')} not told apart any more: not all were checked."
    if found.inspected:
        yield f"{counted(found.inspected, 'use')} by rules for paths: which paths were used is not known."
    if compared.more:
        yield f"{counted(compared.more, 'refusal')} could only be counted: what was refused is not known."


def _refused(each: Counted) -> str:
    refusal = each.refusal
    port = f":{refusal.port}" if refusal.port else ""
    request = f" {each.request}" if refusal.protocol == "https" and each.request else ""
    return f"{refusal.protocol} {refusal.name}{port}{request}"


def _limits(period: Period, usage: Usage) -> Iterator[str]:
    """Yield what is not known."""
    if not period.whole:
        yield _known_since(period)
    if usage.lost:
        yield f"{counted(usage.lost, 'line')} of Envoy's could not be read, so uses may be missing."


def _known_since(period: Period) -> str:
    return (
        f"Known only since {_time(period.known)}, {_span(period.now - period.known)} ago, "
        f"and not for all of the {_span(period.now - period.asked)} asked for."
    )


def _within(period: Period) -> str:
    return f" in the last {_span(period.now - period.begin)}"


def _place(use: Use) -> str:
    return f"{use.protocol} {use.name}:{use.port}"


def _ago(moment: float | None, now: float) -> str:
    return "-" if moment is None else f"{_span(now - moment)} ago"


def _span(seconds: float) -> str:
    """Return a time span: to the hour if it is days, to the minute if it is hours."""
    return remaining(seconds - seconds % (_HOUR if seconds >= _DAY else _MINUTE if seconds >= _HOUR else 1))


def _time(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC).astimezone():%Y-%m-%d %H:%M}"


def _moment(written: str) -> str:
    return f"{datetime.fromisoformat(written).astimezone():%Y-%m-%d %H:%M}"


_NEXT_UNIT = 1000


def amount(octets: float) -> str:
    """Return a number of octets as people read it: `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if octets < _NEXT_UNIT:
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= _NEXT_UNIT
    return f"{octets:.1f} TB"
