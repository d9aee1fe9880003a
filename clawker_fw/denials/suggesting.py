"""Suggests rules for what agents were refused, and for what passed without a rule: no rule allows more. Pure.

Agents choose names. So what nobody should be asked about (`question`) is shown, and never suggested.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field, PositiveInt

from clawker_fw.denials.advice import NOT_ALLOWED, Adviser
from clawker_fw.denials.answer import Denial
from clawker_fw.denials.question import unfit
from clawker_fw.diagnose.explanation import Explainer
from clawker_fw.diagnose.remedies import Remedy, also
from clawker_fw.diagnose.simulation import Opened, Wanted
from clawker_fw.model.json_types import Moment
from clawker_fw.rules.destination import Destination, objection
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.target import Target
from clawker_fw.settings.edit.edits import Addition, EditOutcome, EditResult, Written, add
from clawker_fw.settings.edit.splice import Appended, Edit
from clawker_fw.settings.edit.words import AllowCommand
from clawker_fw.settings.preset import Preset

_MANY = 4
"""The number of names below one parent for which a rule for the parent is offered."""
_LONGEST_AGENTS = 100
_SHOWN = {*NOT_ALLOWED, Reason.DENIED, Reason.PRIVATE_ADDRESS}


@dataclass(frozen=True, slots=True)
class Need:
    """A host that agents wanted, over one protocol on one port."""

    url: str
    times: PositiveInt
    agents: tuple[str, ...]
    """Who wanted it, by name; by address where that is unknown."""
    last: Moment
    text: str
    """What else its rule allows, or why no rule is suggested."""
    target: Annotated[Target, Field(exclude=True)]
    allow: Annotated[AllowCommand | None, Field(exclude=True)] = None

    @property
    def note(self) -> str:
        """How often it was wanted, by whom, and when last."""
        agents = ", ".join(self.agents)[:_LONGEST_AGENTS]
        often = f"{self.times:,} times" if self.times > 1 else "once"
        return f"{often} by {agents}, last at {self.last[:19]}Z"

    def addition(self, now: float) -> Addition:
        """Return its rule. `now` is in seconds since 1970."""
        return (self.allow or AllowCommand(self.url)).addition(now, self.note)

    def and_(self, other: "Need") -> "Need":
        """Return both, for the same target."""
        agents = tuple(sorted({*self.agents, *other.agents}))
        return replace(self, times=self.times + other.times, agents=agents, last=max(self.last, other.last))


@dataclass(frozen=True, slots=True)
class PresetUse:
    """A preset of which agents wanted all hosts."""

    name: str
    wanted: tuple[str, ...]
    """The URLs of its hosts."""


@dataclass(frozen=True, slots=True)
class SubtreeOffer:
    """A rule that would replace those for several names."""

    dst: str
    replaces: tuple[str, ...]
    """The URLs of these names."""
    text: str
    """What else it allows."""


@dataclass(frozen=True, slots=True)
class Suggestions:
    """What to add to the settings, and what is not suggested."""

    presets: tuple[PresetUse, ...] = ()
    rules: tuple[Need, ...] = ()
    subtrees: tuple[SubtreeOffer, ...] = ()
    left_out: tuple[Need, ...] = ()
    """What agents wanted, and is not suggested."""

    def added_to(self, entries: Sequence[Written], now: float) -> tuple[Edit, Sequence[EditResult]]:
        """Return the edit that adds the presets and rules. Raise RefusedError as `edits.add` does."""
        edit, results = add(entries, [need.addition(now) for need in self.rules], now)
        names = [use.name for use in self.presets]
        sections = {"presets": Appended(tuple(names))} if names else {}
        added = [EditResult(EditOutcome.ADDED, f"preset {name}") for name in names]
        return replace(edit, sections=sections), [*results, *added]


def suggest(denials: Iterable[Denial], explainer: Explainer, presets: Iterable[Preset]) -> Suggestions:
    """Return suggestions for denials by the rules, which must not be observed."""
    adviser, needs, left_out = Adviser(explainer), dict[Target, Need](), dict[Target, Need]()
    unmet = [denial for denial in denials if denial.counted.refusal.reason in _SHOWN and not denial.advice.allowed]
    refusals = [denial.counted.refusal for denial in unmet]
    requested = {refusal.name for refusal in refusals if refusal.protocol != "dns"}
    for denial, refusal in zip(unmet, refusals, strict=True):
        explained = adviser.explained(denial.counted)
        if explained is None or (refusal.protocol == "dns" and refusal.name in requested):
            continue
        need = _need(denial, explained.target)
        into = needs if need.allow else left_out
        into[need.target] = into[need.target].and_(need) if need.target in into else need
    chosen = sorted(needs.values(), key=lambda need: (need.target.protocol.opaque, need.target.name))
    uses = tuple(filter(None, (_use(preset, chosen) for preset in presets)))
    covered = {url for use in uses for url in use.wanted}
    rules = tuple(need for need in chosen if need.url not in covered)
    return Suggestions(uses, rules, tuple(_subtrees(rules, explainer)), tuple(left_out.values()))


def _need(denial: Denial, target: Target) -> Need:
    counted, remedy = denial.counted, denial.advice.remedy
    refusal = counted.refusal
    text, allow = unfit(target.name), None
    if not text and refusal.protocol == "dns" and refusal.reason == Reason.OBSERVED:
        text = "It was only looked up: no request followed."
    elif not text and refusal.reason in NOT_ALLOWED - {Reason.EXPIRED} and {*remedy.opens} <= {Opened.TRANSPORT}:
        allow = remedy.allow if remedy.command else None
    who, text = denial.agent or refusal.agent, text or ("" if allow else remedy.text)
    return Need(target.url, counted.times, (who,), counted.last, text, target, allow)


def _use(preset: Preset, needs: Sequence[Need]) -> PresetUse | None:
    """Return the use of a preset if agents wanted all that it allows."""
    urls = {need.addition(0).rule: need.url for need in needs}
    rules = [replace(rule, preset="") for rule in preset.rules]
    if not all(rule in urls for rule in rules):
        return None
    return PresetUse(preset.name, tuple(urls[rule] for rule in rules))


def _subtrees(needs: Sequence[Need], explainer: Explainer) -> Iterator[SubtreeOffer]:
    below: dict[tuple[str, str, int], list[Need]] = {}
    for need in needs:
        parent = need.target.name.partition(".")[2]
        if "." in parent and not objection(Destination(parent, subtree=True)) and not need.target.protocol.opaque:
            below.setdefault((need.target.protocol, parent, need.target.port), []).append(need)
    for (_, parent, _), siblings in below.items():
        command = AllowCommand(replace(siblings[0].target, name=f".{parent}").url)
        outcome = explainer.simulator.outcome(command, Wanted(siblings[0].target))
        opened = Remedy("", allow=command, opens=outcome.opens)
        if len(siblings) >= _MANY and outcome.allows:
            yield SubtreeOffer(f".{parent}", tuple(need.url for need in siblings), also(opened))
