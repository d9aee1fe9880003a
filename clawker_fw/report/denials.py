"""The answer of `denials`, the lines of `--follow`, and their text form."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime

from pydantic import NonNegativeInt
from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.denials.answer import Denial, DenialsAnswer, Suppressed
from clawker_fw.denials.refusal import Gap, Refusal
from clawker_fw.diagnose.remedies import Remedy
from clawker_fw.report.documents import Document
from clawker_fw.report.documents.parts import RefusalDocument, refused
from clawker_fw.report.spans import counted, remaining
from clawker_fw.report.terminal import visible
from clawker_fw.rules.reasons import Reason

_INDENT = " " * 2
_FAILURES = {reason for reason in Reason if reason.failed}


@dataclass(frozen=True, slots=True)
class DecidingRule:
    """A rule that decides."""

    text: str
    """The rule in one line."""
    place: str
    """The file and line where it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenialDocument(RefusalDocument):
    """One refusal, or equal ones, and what the rules in the settings say about it."""

    tried: str | None
    """The address that the agent has connected to, where no host was named and the kernel refused."""
    failed: bool
    """Whether a rule allows it and it failed elsewhere, so it is not a denial."""
    message: str
    """The reason in words."""
    allowed: bool
    """Whether the rules in the settings allow it now."""
    agent: str | None
    """The name of the container that had this address at the time, if it is known."""
    address: str
    """The agent's address."""
    types: list[str]
    """The types of records that were asked for, over DNS."""
    method: str | None
    """The method of the last request, over HTTP."""
    path: str | None
    """The path of the last request, without its query."""
    upstream: str | None
    """The address to which Envoy was about to connect."""
    proxy: str | None
    """What the upstream proxy said: Squid's error, and the credentials that it demands."""
    rule: DecidingRule | None
    """The rule that decides, if one does."""
    remedy: Remedy

    @classmethod
    def of(cls, denial: Denial) -> "DenialDocument":
        counted, refusal, advice = denial.counted, denial.counted.refusal, denial.advice
        method, _, path = counted.request.partition(" ")
        return cls(
            **refused(denial.counted),
            tried=refusal.tried or None,
            failed=is_failure(refusal),
            message=advice.message,
            allowed=advice.allowed,
            agent=denial.agent or None,
            address=refusal.agent,
            types=sorted(counted.types),
            method=method or None,
            path=path or None,
            upstream=counted.upstream or None,
            proxy=counted.proxy or None,
            rule=DecidingRule(str(advice.rule), advice.rule.place) if advice.rule else None,
            remedy=advice.remedy,
        )


@dataclass(frozen=True, slots=True)
class GapLine:
    """A line of `denials --follow`."""

    gap: Gap


Line = DenialDocument | GapLine


def line(item: Denial | Gap) -> Line:
    """Return a line of `denials --follow`."""
    return GapLine(item) if isinstance(item, Gap) else DenialDocument.of(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenialsDocument(Document):
    """With `--follow`, each line is one object of `denials`, or has one of `gaps` as its `gap`."""

    denials: list[DenialDocument]
    """Different refusals, the latest last; with `--top`, the most frequent first."""
    left_out: NonNegativeInt
    """Different refusals that `--top` has left out."""
    more: NonNegativeInt
    """Refusals that were too different to be told apart."""
    suppressed: tuple[Suppressed, ...]
    """Refusals that came too fast to be told apart, by the address."""
    unattributed: NonNegativeInt
    """Refusals that Envoy has only counted, because they came too fast: since it started and by whatever agent. 0
    with `--agent`."""
    tried: NonNegativeInt
    """How often something was refused to `conformance` that is left out here; 0 with `--agent`."""
    gaps: tuple[Gap, ...]
    """Where lines of a sibling's log are missing: the disk was full, or the recorder that writes them failed."""

    @classmethod
    def of(cls, answer: DenialsAnswer) -> "DenialsDocument":
        return cls(
            **{field.name: getattr(answer, field.name) for field in fields(answer) if field.name != "trial"}
            | {"denials": [DenialDocument.of(denial) for denial in answer.denials]}
        )


def denials_report(answer: DenialsAnswer, since: float | None) -> RenderableType:
    """Return the number of refusals of the last `since` seconds, and two lines for each."""
    lines = [line for denial in answer.denials for line in denial_lines(denial)]
    period = "" if since is None else f" in the last {remaining(since)}"
    head = Text(_verdict(answer, period), style="bold")
    return Group(head, *lines, *(Text(visible(note), style="dim") for note in _notes(answer)))


def _verdict(answer: DenialsAnswer, when: str) -> str:
    if answer.denials:
        times = sum(denial.counted.times for denial in answer.denials)
        hosts = {denial.counted.refusal.name or denial.counted.refusal.tried for denial in answer.denials}
        advisable = any(denial.advice.remedy.command for denial in answer.denials)
        advice = ": allow what agents need with the commands below" if advisable else ""
        return f"{counted(times, 'refusal')} for {counted(len(hosts), 'host')}{when}{advice}."
    if answer.more or answer.suppressed or answer.unattributed:
        return f"No refusal{when} can be told apart from others."
    return f"No refusal{when} is on record." if answer.gaps else f"Nothing was refused{when}."


def _notes(answer: DenialsAnswer) -> Iterator[str]:
    if answer.left_out:
        yield f"{answer.left_out:,} more different refusals; leave out --top for all."
    if answer.more:
        yield f"{answer.more:,} more refusals: too many different ones to show."
    by_name: Counter[str] = Counter()
    for suppressed in answer.suppressed:
        by_name[suppressed.agent or suppressed.address] += suppressed.times
    for agent, times in by_name.items():
        yield f"{times:,} more refusals of {agent}, which came too fast to be written down one by one."
    if answer.unattributed:
        yield f"{answer.unattributed:,} more refusals, which came too fast, of agents that Envoy can't tell apart."
    yield from map(_gap, answer.gaps)
    if answer.tried:
        left_out = f"{answer.tried:,} refusals to `clawker-fw conformance` are left out"
        yield f"{left_out}; `clawker-fw denials --agent {answer.trial}` shows them."


def denials_line(project: str, answer: DenialsAnswer, since: float | None) -> RenderableType:
    """Return the number of refusals in one of several stacks as a line."""
    return Text(
        visible(f"{project}: {_verdict(answer, '' if since is None else f' in the last {remaining(since)}')}")
    )


def item_report(item: Denial | Gap, stack: str = "") -> RenderableType:
    """Return the lines about a new refusal, or about missing lines. `stack` names it if there are several."""
    name = [Text(visible(stack), style="bold")] if stack else []
    if isinstance(item, Gap):
        return Group(*name, Text(_gap(item), style="dim"))
    return Group(*name, *denial_lines(item))


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
    answer = f", it says {refused.proxy}" if refused.proxy else ""
    why = f"{refusal.sibling}: {denial.advice.message}{decided}{answer} ({refusal.reason})"
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
    """Whether a rule allows it and it failed elsewhere, so that it is not a denial."""
    return refusal.reason in _FAILURES


def _gap(gap: Gap) -> str:
    since, until = (
        f"{datetime.fromisoformat(moment).astimezone():%m-%d %H:%M:%S}" if moment else ""
        for moment in (gap.since, gap.until)
    )
    when = f"Between {since} and {until}" if until else f"Since {since}"
    lost = (
        f"refusals of {gap.sibling} may be missing: its log lacks lines (a full disk, or a recorder that failed?)."
    )
    return f"{when}, {lost}"
