"""Settings that have been read and checked, as the rest of the program has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clawker_fw.model.origin import ShippedPreset
from clawker_fw.rules.promises import Promise
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.settings.environment import RULES_VARIABLE
from clawker_fw.settings.model import Settings
from clawker_fw.settings.sources import Source


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that have been read and checked.

    `settings` are as they are written. `rules` are all rules, with those of presets, also those that have ended.
    `paths` are those of the settings file, if any, and of the files that it includes. `found` describes where it
    was found; it is empty if the user named it. `digest` is one of the settings, however they are written, but for
    `drain_timeout`: a stack does not depend on it, and one run may have another.
    """

    settings: Settings
    rules: RuleSet
    paths: tuple[Path, ...]
    found: str
    digest: str
    places: Mapping[str, str] = field(default_factory=dict)
    """Where each setting that is not the default was given: the file and line, or the environment variable."""

    promises: tuple[Promise, ...] = ()
    """What the settings promise of all rules, which holds."""

    presets: tuple[ShippedPreset, ...] = ()
    """The presets that the settings name, as this release has them."""

    read: tuple[Source, ...] = field(default=(), compare=False, repr=False)
    """What the settings were read from, with the texts."""

    @property
    def source(self) -> Path | None:
        """The settings file."""
        return self.paths[0] if self.paths else None

    @property
    def files(self) -> tuple[Path, ...]:
        """The settings file, and the files that it includes."""
        return tuple(path.absolute() for path in self.paths)

    @property
    def rules_variable(self) -> str:
        """The environment variable that the rules come from, or an empty string: then they come from files."""
        return RULES_VARIABLE if self.places.get("rules", "").startswith(RULES_VARIABLE) else ""

    def named_by(self, given: Mapping[str, str]) -> str:
        """Return what chose the settings file: an option, a variable, or the place where it was found.

        `given` are the options that were given, each with its origin.
        """
        return self.found or given.get("config", "--config")
