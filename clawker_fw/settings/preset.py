"""Presets: the rules for a tool or a service, shipped with a release. `presets` in the settings names them.

Each is a readable YAML file in the folder `presets`. It says whether tests prove that its rules are sufficient and
necessary, or which vendor pages they come from. Its version grows whenever its rules change.
"""

import difflib
import functools
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr

from clawker_fw.rules.rule import Rule
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.settings.document import document_of
from clawker_fw.settings.files import read_text

FOLDER = Path(__file__).with_name("presets")


class Proof(StrEnum):
    """The evidence for the rules of a preset."""

    TESTED = "tested"
    """The real client works with these rules, and fails without any one of them."""

    CITED = "cited"
    """The vendor's documentation: a test can't replace the service."""


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
        return tuple(replace(entry.rule(), preset=self.name) for entry in self.entries)

    @property
    def lines(self) -> tuple[str, ...]:
        """Each rule as a line of text."""
        return tuple(map(str, self.rules))


def names() -> tuple[str, ...]:
    """Return the names of this release's presets."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@functools.cache
def preset(name: str) -> Preset:
    """Return a preset. Raise ValueError with a sentence if the name is unknown."""
    presets = names()
    if name not in presets:
        near = difflib.get_close_matches(name, presets, n=1, cutoff=0.5)
        meant = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(presets)}"
        raise ValueError(f"there is no preset {name!r}; {meant}")
    path = FOLDER / f"{name}.yaml"
    return Preset.model_validate({"name": name, **document_of(read_text(path), path).values})


PresetName = Annotated[StrictStr, AfterValidator(lambda name: preset(name).name)]
"""The name of an existing preset."""
