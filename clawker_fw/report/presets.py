"""The answer of `clawker-fw rules presets`, and its text form."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, PositiveInt

from clawker_fw.report.documents import Document
from clawker_fw.rules.rule import HIGHEST_PORT, Protocol, Rule
from clawker_fw.settings.preset import Preset, Proof

_PROOFS = {
    Proof.TESTED: "tested, and each name is needed",
    Proof.CITED: "from the vendor's pages, not tested",
}


@dataclass(frozen=True, slots=True)
class PresetRule:
    """A rule of a preset."""

    rule: str
    """The rule in one line."""
    dst: str
    """The name; with a leading dot, everything below it as well."""
    proto: Protocol | None
    port: Annotated[int, Field(ge=1, le=HIGHEST_PORT)] | str | None
    note: str
    """What it is for."""

    @classmethod
    def of(cls, rule: Rule) -> "PresetRule":
        return cls(str(rule), str(rule.destination), rule.protocol, rule.written_port, rule.note)


@dataclass(frozen=True, slots=True)
class ListedPreset:
    """A preset of this release."""

    name: str
    version: PositiveInt
    """Another one for other rules."""
    purpose: str
    """What it is for."""
    proof: Proof
    """`tested`: the real client does its job with these rules, and not without any one of them. `cited`: they are
    from the vendor's pages."""
    proven_by: str
    """What the tests do with it; empty if there are none."""
    pages: tuple[str, ...]
    """The vendor's pages."""
    left_out: str
    """What it does not allow, and why."""
    rules: list[PresetRule]

    @classmethod
    def of(cls, preset: Preset) -> "ListedPreset":
        return cls(**preset.model_dump(exclude={"entries"}), rules=[PresetRule.of(rule) for rule in preset.rules])


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetsAnswer(Document):
    """The answer of `rules presets`."""

    presets: list[ListedPreset]
    """The presets that were named, or all, by name."""

    @classmethod
    def of(cls, presets: Iterable[Preset]) -> "PresetsAnswer":
        return cls(presets=[ListedPreset.of(preset) for preset in presets])


def verdict(presets: Sequence[Preset]) -> str:
    """Return how many presets there are, and how to use one."""
    use = "name those that you want in `presets`; `clawker-fw rules presets NAME` shows all of one"
    return f"{len(presets)} presets: {use}."


def rows(presets: Sequence[Preset]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings and the rows of the table of presets."""
    headings = ("preset", "version", "for", "names", "proof")
    return headings, [
        (
            preset.name,
            str(preset.version),
            preset.purpose,
            " ".join(str(rule.destination) for rule in preset.rules),
            preset.proof.value,
        )
        for preset in presets
    ]


def lines(preset: Preset) -> Iterator[str]:
    """Yield the full description of a preset."""
    yield f"{preset.name}, version {preset.version}: {preset.purpose}"
    width = max(map(len, preset.lines))
    for rule in preset.rules:
        yield f"  {rule!s:<{width}}  {rule.note}".rstrip()
    by = f": {preset.proven_by}" if preset.proven_by else ""
    yield f"proof     {_PROOFS[preset.proof]}{by}"
    if preset.left_out:
        yield f"left out  {preset.left_out}"
    for page in preset.pages:
        yield f"see       {page}"
