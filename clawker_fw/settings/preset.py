"""Presets: the rules for a tool or a service, shipped with a release. `presets` in the settings names them.

Each is a file in the folder `presets` beside this module, in YAML that a person can read. It says whether the
project's tests prove that its rules are sufficient and that each is needed, or on which pages of the vendor they
rest. It gets a new version whenever its rules change.
"""

import difflib
import functools
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    model_validator,
)

from clawker_fw.rules.destination import parse_destination
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.settings.document import document_of
from clawker_fw.settings.files import read_text

FOLDER = Path(__file__).with_name("presets")


class Proof(StrEnum):
    """On what the rules of a preset rest."""

    TESTED = "tested"
    """The real client does its job with these rules, and does not with any one of them taken away."""

    CITED = "cited"
    """The vendor's pages: nobody can stand in for the service."""


class Preset(BaseModel):
    """A preset, as its file has it.

    `proven_by` is what the tests do with it, and `left_out` what it does not allow, and why.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)  # most settings name no preset

    name: str
    version: Annotated[StrictInt, Field(ge=1)]
    purpose: StrictStr
    proof: Proof
    proven_by: StrictStr = ""
    pages: Annotated[tuple[StrictStr, ...], Field(min_length=1)]
    left_out: StrictStr = ""
    entries: Annotated[tuple[RuleEntry, ...], Field(min_length=1, alias="rules")]

    @functools.cached_property
    def rules(self) -> tuple[Rule, ...]:
        """Its rules."""
        return tuple(replace(each.rule(), preset=self.name) for each in self.entries)

    @property
    def lines(self) -> tuple[str, ...]:
        """Each rule as a line of text."""
        return tuple(map(str, self.rules))


def names() -> tuple[str, ...]:
    """Return the names of all presets of this release."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@functools.cache
def preset(name: str) -> Preset:
    """Return a preset.

    Raises:
        ValueError: when there is none with this name: a sentence.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        meant = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"there is no preset {name!r}; {meant}")
    path = FOLDER / f"{name}.yaml"
    return Preset.model_validate({"name": name, **document_of(read_text(path), path).values})


class PresetEntry(BaseModel):
    """An entry of `presets`, as a user writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    preset: Annotated[StrictStr, AfterValidator(lambda name: preset(name).name)] = Field(
        description="The name of a preset. `clawker-fw rules presets` lists them."
    )
    without: tuple[Annotated[StrictStr, AfterValidator(lambda text: str(parse_destination(text)))], ...] = Field(
        default=(), description="Names of the preset that it does not allow here."
    )

    @model_validator(mode="after")
    def _takes_away_what_is_there(self) -> Self:
        chosen = preset(self.preset)
        there = {str(each.destination) for each in chosen.rules}
        if other := next((each for each in self.without if each not in there), ""):
            raise ValueError(
                f"the preset {chosen.name} (version {chosen.version}) has no rule for `{other}` to take away; "
                f"it has {', '.join(sorted(there))}"
            )
        return self

    @property
    def as_written(self) -> str | dict[str, Any]:
        """The shortest form in which it can be written."""
        return {"preset": self.preset, "without": list(self.without)} if self.without else self.preset

    def rules(self, place: str) -> Iterator[Rule]:
        """Yield the rules that it stands for. `place` is where it was written."""
        for rule in preset(self.preset).rules:
            if str(rule.destination) not in self.without:
                yield replace(rule, place=f"{place}, preset {self.preset}")


def named_once(entries: tuple[PresetEntry, ...]) -> tuple[PresetEntry, ...]:
    """Return the entries of `presets`.

    Raises:
        ValueError: when two are for the same preset: one may take away what the other allows.
    """
    seen: set[str] = set()
    for each in entries:
        if each.preset in seen:
            raise ValueError(f"`presets` names {each.preset} twice")
        seen.add(each.preset)
    return entries
