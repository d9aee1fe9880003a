"""The answer of `rules suggest`, and its text form."""

from collections.abc import Iterator
from dataclasses import dataclass

from clawker_fw.denials.suggesting import Need, PresetUse, SubtreeOffer, Suggestions
from clawker_fw.report.documents import Document
from clawker_fw.report.spans import counted, remaining
from clawker_fw.settings.edit.splice import scalar


@dataclass(frozen=True, slots=True)
class SuggestedRule:
    """A rule that allows what agents wanted of one host, and nothing else but what `need` says."""

    need: Need
    fields: dict[str, object]
    """The rule as in the settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestDocument(Document):
    """The answer of `rules suggest`."""

    presets: tuple[PresetUse, ...]
    """Presets of which agents wanted all hosts. Their hosts need no rules."""
    rules: list[SuggestedRule]
    """The narrowest rules for everything else."""
    subtrees: tuple[SubtreeOffer, ...]
    """Rules that would replace several of `rules`, and allow more."""
    left_out: tuple[Need, ...]
    """What is not suggested, and why."""

    @classmethod
    def of(cls, suggestions: Suggestions, now: float) -> "SuggestDocument":
        """Return the answer. `now` is in seconds since 1970."""
        return cls(
            presets=suggestions.presets,
            rules=[SuggestedRule(need, dict(need.addition(now).fields)) for need in suggestions.rules],
            subtrees=suggestions.subtrees,
            left_out=suggestions.left_out,
        )


def lines(suggestions: Suggestions, since: float, now: float) -> Iterator[str]:
    """Yield the verdict, what to write into the settings, and what is not suggested. `now` is in seconds."""
    parts = [counted(len(suggestions.presets), "preset"), counted(len(suggestions.rules), "rule")]
    yield f"{' and '.join(parts)} would allow what agents wanted in the last {remaining(since)}, and nothing else."
    if suggestions.presets:
        yield "presets:"
    for use in suggestions.presets:
        yield f"  - {use.name}  # {len(use.wanted)} of {counted(len(use.wanted), 'host')}"
    if suggestions.rules:
        yield "rules:"
    for need in suggestions.rules:
        yield f"  - {scalar(need.addition(now).fields)}" + (f"  # {need.text}" if need.text else "")
    for offer in suggestions.subtrees:
        dst = scalar({"dst": offer.dst})
        yield f"`{dst}` would replace {counted(len(offer.replaces), 'rule')}. {offer.text}"
    for need in suggestions.left_out:
        yield f"not suggested: {need.url}, {need.note}: {need.text}"
