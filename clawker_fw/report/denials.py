"""The answer of `denials` for people."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.denials.answer import Denial, DenialsAnswer
from clawker_fw.denials.refusal import Gap, Refusal
from clawker_fw.report.spans import counted, remaining
from clawker_fw.report.terminal import visible
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Rule
from clawker_fw.settings.edit.edits import Addition
from clawker_fw.settings.edit.splice import pair

_INDENT = " " * 2
_FAILURES = {each for each in Reason if each.failed}


def denials_report(answer: DenialsAnswer, since: float | None) -> RenderableType:
    """Return how much was refused, and two lines for each refusal: what it was, and why with what to do.

    `since` is the time that was asked for, in seconds.
    """
    lines = [line for each in answer.denials for line in denial_lines(each)]
    head = Text(_verdict(answer, within(since)), style="bold")
    return Group(head, *lines, *(Text(visible(each), style="dim") for each in _notes(answer)))


def _verdict(answer: DenialsAnswer, when: str) -> str:
    if answer.denials:
        times = sum(each.counted.times for each in answer.denials)
        hosts = {each.counted.refusal.name or each.counted.refusal.tried for each in answer.denials}
        advice = to_do(each.advice.remedy.command for each in answer.denials)
        return f"{counted(times, 'refusal')} for {counted(len(hosts), 'host')}{when}{advice}."
    if answer.more or answer.suppressed or answer.unattributed:
        return f"No refusal{when} can be told apart from others."
    return f"No refusal{when} is on record." if answer.gaps else f"Nothing was refused{when}."


def within(since: float | None) -> str:
    """Return a time that was asked for in words, or "" if none was."""
    return "" if since is None else f" in the last {remaining(since)}"


def to_do(commands: Iterable[str | None]) -> str:
    """Return what to do about refusals of which some have a command that would allow them."""
    return ": allow what agents need with the commands below" if any(commands) else ""


def _notes(answer: DenialsAnswer) -> Iterator[str]:
    if answer.left_out:
        yield f"{answer.left_out:,} more different refusals; leave out --top for all."
    if answer.more:
        yield f"{answer.more:,} more refusals: too many different ones to show."
    by_name: Counter[str] = Counter()
    for each in answer.suppressed:
        by_name[each.agent or each.address] += each.times
    for agent, times in by_name.items():
        yield f"{times:,} more refusals of {agent}, which came too fast to be written down one by one."
    if answer.unattributed:
        yield f"{answer.unattributed:,} more refusals, which came too fast, of agents that Envoy can't tell apart."
    yield from map(_gap, answer.gaps)
    if answer.tried:
        yield f"{answer.tried:,} refusals to `clawker-fw conformance` are left out; --conformance shows them."


def told_report(told: Denial | Gap) -> RenderableType:
    """Return the lines for a refusal that has just happened, or about lines that are missing."""
    if isinstance(told, Gap):
        return Text(_gap(told), style="dim")
    return Group(*denial_lines(told))


def denial_lines(denial: Denial) -> Iterator[Text]:
    """Yield the lines for one refusal."""
    refused, refusal = denial.counted, denial.counted.refusal
    moment = datetime.fromisoformat(refused.last).astimezone()
    yield Text.assemble(
        (f"{moment:%m-%d %H:%M:%S}", "dim"),
        visible(f"  {denial.agent or refusal.agent}  "),
        (visible(_request(denial)), "bold"),
        (f"  {refused.times:,} times" if refused.times > 1 else "", "dim"),
    )
    rule = denial.advice.rule if refusal.reason == Reason.DENIED else None
    decided = f" by `{rule}`{rule.located}" if rule else ""
    why = f"{refusal.sibling}: {denial.advice.message}{decided} ({refusal.reason})"
    yield Text.assemble(_INDENT, (visible(why), "yellow" if is_failure(refusal) else "red"))
    if denial.advice.remedy.text:
        yield Text.assemble(_INDENT, visible(denial.advice.remedy.text))


def _request(denial: Denial) -> str:
    refused, refusal = denial.counted, denial.counted.refusal
    name = refusal.name or refusal.tried or "no name"
    if refusal.protocol == "dns":
        return f"dns {name} {'/'.join(sorted(refused.types))}"
    return f"{refusal.protocol} {name}:{refusal.port} {refused.request}".strip()


def is_failure(refusal: Refusal) -> bool:
    """Whether a rule allows what was refused, and it failed elsewhere: this is no denial."""
    return refusal.reason in _FAILURES


def _gap(gap: Gap) -> str:
    """Return a sentence about lines that are missing in a sibling's log."""
    since, until = (
        f"{datetime.fromisoformat(each).astimezone():%m-%d %H:%M:%S}" if each else ""
        for each in (gap.since, gap.until)
    )
    when = f"Between {since} and {until}" if until else f"Since {since}"
    lost = f"refusals of {gap.sibling} may be missing: the engine could not write its whole log (a full disk?)."
    return f"{when}, {lost}"


def rules_text(rules: Sequence[Rule]) -> str:
    """Return the rules that would allow what was refused, as they are written in the settings."""
    lines = ["# What agents were refused, as rules. Take only those that you mean to allow."]
    lines.append("rules:" if rules else "rules: []")
    for rule in rules:
        if rule.place:
            lines.append(f"  # In place of the rule in {visible(rule.place)}:")
        first, *others = Addition(rule, rule.note).fields.items()
        lines += [f"  - {pair(*first)}", *(f"    {pair(*each)}" for each in others)]
    return "\n".join(lines)
