"""Reading the settings from their sources, and checking them.

Precedence: command line, environment (`CLAWKER_FW_OTEL__INFRA_PORT`), file, default. An unreadable file is an
error and never means "no rules".
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from clawker_fw.errors import SettingsError
from clawker_fw.rules.promises import Promise, broken
from clawker_fw.rules.ruleset import ConflictsError, RuleSet, TooManyError
from clawker_fw.rules.schema import Rule
from clawker_fw.settings import errors
from clawker_fw.settings.document import SettingsDocument
from clawker_fw.settings.find import FILE_NAME, find, users_file
from clawker_fw.settings.include import KEY as INCLUDE
from clawker_fw.settings.include import Source, joined, sources
from clawker_fw.settings.model import Settings, setting_keys
from clawker_fw.settings.preset import Preset, preset

ENVIRONMENT_PREFIX = "CLAWKER_FW_"
OPTION_VARIABLES = frozenset({"CONFIG", "PROJECT", "HOST", "CONTEXT", "SECRETS", "LOG_FORMAT", "DEBUG", "FORMAT"})
"""Variables with our prefix that belong to command line options, not to settings."""

_MAY_STAND_ALONE = frozenset({INCLUDE, "presets"})
"""Settings that bring rules by themselves, so that `rules` may be left out."""

RULES_VARIABLE = f"{ENVIRONMENT_PREFIX}RULES"

IGNORED_VARIABLES = OPTION_VARIABLES | {"VERSION"}
"""Variables with our prefix that are no settings and no mistakes. Scripts pin a release with the last one."""


@dataclass(frozen=True)
class Loaded:
    """Settings that have been read and checked.

    `rules` are all rules, with those of presets, also those that have ended. `paths` are those of the settings
    file, if any, and of the files that it includes. `found` describes where it was found; it is empty if the user
    named it.
    """

    settings: Settings
    rules: RuleSet
    paths: tuple[Path, ...]
    found: str
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Where each setting that is not the default was given: the file and line, or the environment variable."""

    promises: tuple[Promise, ...] = ()
    """What the settings promise of all rules, which holds."""

    @property
    def source(self) -> Path | None:
        """The settings file."""
        return self.paths[0] if self.paths else None

    @property
    def files(self) -> tuple[Path, ...]:
        """The settings file and the files that it includes."""
        return tuple(path.absolute() for path in self.paths)

    @property
    def rules_variable(self) -> str:
        """The environment variable that the rules come from, or an empty string: then they come from files."""
        place = self.places.get("rules", "")
        return place if place == RULES_VARIABLE else ""

    @property
    def presets(self) -> tuple[Preset, ...]:
        """The presets that the settings name, as this release has them."""
        return tuple(preset(each.preset) for each in self.settings.presets)

    @functools.cached_property
    def digest(self) -> str:
        """A digest of the settings, independent of how they are written."""
        return hashlib.sha256(self.settings.model_dump_json().encode()).hexdigest()


def search_paths() -> tuple[Path, ...]:
    """Return the paths at which a settings file is searched if none is named, in order."""
    return Path(FILE_NAME), users_file()


def load_settings(named: Path | None, environment: Mapping[str, str]) -> Loaded:
    """Read the settings. If they are the same as the last time, the same object is returned.

    `named` is the file that the user named by option or `CLAWKER_FW_CONFIG`. Without it, the search path is used.

    Raises:
        SettingsError: when there is neither a file nor a variable, or when something in them is wrong.
    """
    source, found = find(named)
    return validated(sources(source) if source else (), found, environment)


def validated(read: tuple[Source, ...], found: str, environment: Mapping[str, str]) -> Loaded:
    """Check settings that have been read from files, and the environment. `found` is as in `Loaded`.

    Raises:
        SettingsError: when something in them is wrong.
    """
    variables = tuple(sorted(each for each in environment.items() if each[0].startswith(ENVIRONMENT_PREFIX)))
    return _loaded(read, found, variables)


@functools.lru_cache(maxsize=1)
def _loaded(read: tuple[Source, ...], found: str, variables: tuple[tuple[str, str], ...]) -> Loaded:
    """Return the settings from the text of files and the environment. Cached, because checking may take long."""
    overlay = _environment_document(dict(variables))
    if not read and not overlay.values:
        raise SettingsError(
            "settings-not-found",
            "There is no settings file, so the allowed destinations are unknown.",
            context=[f"looked for {path}" for path in search_paths()],
            hint="Write one with `clawker-fw init`, or name one with `--config`.",
        )
    document = joined(read) if read else SettingsDocument({}, {}, "the environment")
    merged = document.overlaid(overlay)
    try:
        values = merged.values if _MAY_STAND_ALONE.isdisjoint(merged.values) else {"rules": [], **merged.values}
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise errors.invalid(error, merged, Settings) from error
    try:
        rules = RuleSet.of(_rules(settings, merged))
    except ConflictsError as error:
        raise errors.contradicting(error) from error
    except TooManyError as error:
        raise SettingsError(
            "rules-too-many",
            f"{merged.source}: {error}.",
            hint="A subtree (`.example.com`) stands for a name and all that is below it.",
        ) from error
    promises = tuple(_promises(settings, merged))
    if found_broken := broken(promises, rules):
        raise errors.promises_broken(found_broken)
    places = {key: place for key in setting_keys() if (place := merged.given_at(tuple(key.split("."))))}
    return Loaded(settings, rules, tuple(source.path for source in read), found, places, promises)


def _rules(settings: Settings, document: SettingsDocument) -> Iterator[Rule]:
    """Yield the rules that the settings have, and then those of the presets that they name."""
    for position, entry in enumerate(settings.rules):
        yield entry.rule(document.place(("rules", position)))
    for position, chosen in enumerate(settings.presets):
        yield from chosen.rules(document.place(("presets", position)))


def _promises(settings: Settings, document: SettingsDocument) -> Iterator[Promise]:
    """Yield what the settings promise of all rules."""
    for position, never in enumerate(settings.never):
        yield never.promise(document.place(("never", position)))
    for position, always in enumerate(settings.always):
        yield always.promise(document.place(("always", position)))


def _environment_document(environment: Mapping[str, str]) -> SettingsDocument:
    """Return the settings in the environment. `__` separates the parts of a key."""
    document = SettingsDocument({}, {}, "the environment")
    known = {key.upper().replace(".", "__"): key for key in setting_keys() if key != INCLUDE}
    for variable, text in sorted(environment.items()):
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == variable or name in IGNORED_VARIABLES:
            continue
        if name not in known:
            raise SettingsError(
                "variable-unknown",
                f"The environment variable {variable} does not belong to a setting.",
                hint=errors.did_you_mean(name, sorted({*known, *OPTION_VARIABLES}), ENVIRONMENT_PREFIX),
            )
        document = document.with_text(tuple(known[name].split(".")), text, variable)
    return document
