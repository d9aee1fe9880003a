"""Settings that have been read and validated."""

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
    """Settings that have been read and validated.

    `settings` are as written. `rules` include those of presets and expired ones. `paths` are the settings file, if
    any, and its included files. `located` says where the file was found ("" if the user named it). `digest` covers
    the stack's settings in any spelling, except `drain_timeout`, which may differ from run to run.
    """

    settings: Settings
    rules: RuleSet
    paths: tuple[Path, ...]
    located: str
    digest: str
    places: Mapping[str, str] = field(default_factory=dict)
    """The file and line, or the environment variable, of each setting that is not the default."""

    promises: tuple[Promise, ...] = ()
    """The promises about all rules, which the rules keep."""

    presets: tuple[ShippedPreset, ...] = ()
    """The presets that the settings name, as shipped with this release."""

    read: tuple[Source, ...] = field(default=(), compare=False, repr=False)
    """The files that were read, with their texts."""

    group: str | None = None
    """The group whose settings these are, or None for those of the top level."""

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
        """The environment variable with the rules, or "" if they come from files."""
        return RULES_VARIABLE if self.places.get("rules", "").startswith(RULES_VARIABLE) else ""

    def named_by(self, given: Mapping[str, str]) -> str:
        """Return what chose the settings file: an option, a variable, or the search path.

        `given` maps the options in use to their origins.
        """
        return self.located or given.get("config", "--config")
