"""Reads and validates settings from files and the environment, and reports all errors at once.

Precedence: command line, environment (`CLAWKER_FW_OTEL__INFRA_PORT`), file, default. An unreadable file is an
error and never means "no rules".
"""

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from clawker_fw.errors import SettingsError
from clawker_fw.model.origin import ShippedPreset
from clawker_fw.rules.observing import Observing
from clawker_fw.rules.promise_words import AlwaysEntry, NeverEntry
from clawker_fw.rules.promises import Promise, PromiseKind, broken
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.ruleset import ConflictsError, RuleSet, TooManyError
from clawker_fw.rules.upstream import objections
from clawker_fw.settings import invalid_settings
from clawker_fw.settings.document import SettingsDocument
from clawker_fw.settings.environment import (
    ENVIRONMENT_PREFIX,
    IGNORED_VARIABLES,
    OPTION_VARIABLES,
    Variables,
    variables,
)
from clawker_fw.settings.find import FILE_NAME, find, users_file
from clawker_fw.settings.groups import GROUPS, require_group
from clawker_fw.settings.loaded import Loaded
from clawker_fw.settings.model import MOST_GROUPS, Settings, setting_keys
from clawker_fw.settings.preset import preset
from clawker_fw.settings.sources import KEY, Source, joined, sources

_MOST_OBSERVED = 300_000
"""The most rules times ports with which a stack can be observed, by Envoy's memory."""

_MAY_STAND_ALONE = frozenset({KEY, "presets"})
"""Settings that bring rules, so that `rules` may be missing."""


def load_settings(named: Path | None, environment: Mapping[str, str], group: str | None = None) -> Loaded:
    """Read a stack's settings from the file named by option or `CLAWKER_FW_CONFIG`, or else from the search path.

    Raises:
        SettingsError: when they are missing, unreadable or invalid, or the file has no such group.
    """
    source, located = find(named)
    return validated(sources(source) if source else (), located, environment, group)


def validated(
    read: tuple[Source, ...], located: str, environment: Mapping[str, str], group: str | None = None
) -> Loaded:
    """Validate settings from files and the environment. `found` is as in `Loaded`.

    The settings above the groups must be valid, too. Unchanged settings return the same object as last time.

    Raises:
        SettingsError: when they are invalid, or the file has no such group.
    """
    given = variables(environment)
    above = _validated(read, located, given, None)
    if group is None:
        return above
    require_group(group, tuple(above.settings.groups), str(above.source or "the environment"))
    return _validated(read, located, given, group)


@functools.lru_cache(maxsize=1 + MOST_GROUPS)  # the stacks of a file are compared side by side
def _validated(read: tuple[Source, ...], located: str, given: Variables, group: str | None) -> Loaded:
    """Return the validated settings of a stack. The cache holds only the last ones."""
    nothing = SettingsDocument({}, {}, "the environment")
    merged = _with_variables(joined(read, group) if read else nothing, dict(given))
    if not read and not merged.values:
        raise SettingsError(
            "settings-not-found",
            "There is no settings file, so the allowed destinations are unknown.",
            context=[f"looked for {path}" for path in (Path(FILE_NAME), users_file())],
            hint="Write one with `clawker-fw init`, or name one with `--config`.",
        )
    try:
        values = merged.values if _MAY_STAND_ALONE.isdisjoint(merged.values) else {"rules": [], **merged.values}
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise invalid_settings.invalid(error, merged, Settings) from error
    try:
        rules = RuleSet.of(tuple(_rules(settings, merged)))
    except ConflictsError as error:
        raise invalid_settings.contradicting(error) from error
    except TooManyError as error:
        raise SettingsError(
            "rules-too-many",
            f"{merged.source}: {error}.",
            hint="A subtree (`.example.com`) stands for a name and all that is below it.",
        ) from error
    promised: dict[str, Sequence[NeverEntry | AlwaysEntry]] = {"never": settings.never, "always": settings.always}
    promises = tuple(
        entry.promise(merged.place((kind, position)))
        for kind, entries in promised.items()
        for position, entry in enumerate(entries)
    )
    if violated := broken(promises, rules):
        raise invalid_settings.promises_broken(violated)
    if proxy := settings.upstream.through():
        rules = rules.through(proxy)
        if sentences := tuple(objections(proxy, rules.rules)):
            raise invalid_settings.not_through_proxy(sentences)
    if settings.observe:
        rules = _observed(rules, settings.observe.until, promises)
    chosen = [preset(name) for name in dict.fromkeys(settings.presets)]
    keys = (*setting_keys(), GROUPS)
    places = {key: place for key in keys if (place := merged.given_at(tuple(key.split("."))))}
    return Loaded(
        settings,
        rules,
        tuple(source.path for source in read),
        located,
        hashlib.sha256(settings.model_dump_json(exclude={"drain_timeout", GROUPS}).encode()).hexdigest(),
        places,
        promises,
        tuple(ShippedPreset(preset.name, preset.version, preset.lines) for preset in chosen),
        read,
        group,
    )


def _observed(rules: RuleSet, until: datetime, promises: Sequence[Promise]) -> RuleSet:
    """Return the rules with observing. Each observed port has all names of rules in Envoy."""
    never = (promise.rule for promise in promises if promise.kind is PromiseKind.NEVER)
    direct = rules.proxy.closed() if rules.proxy else ()
    observing = Observing(int(until.timestamp()), (*never, *direct), proxied=rules.proxy is not None)
    if len(rules.rules) * len(observing.keys(rules.rules)) > _MOST_OBSERVED:
        raise SettingsError(
            "observe-too-much",
            "There are too many rules and ports to observe.",
            hint="Remove `observe`, or use subtrees (`.example.com`) and fewer ports in the rules.",
        )
    return replace(rules, observing=observing)


def _rules(settings: Settings, document: SettingsDocument) -> Iterator[Rule]:
    for position, entry in enumerate(settings.rules):
        yield entry.rule(document.place(("rules", position)))
    for position, name in enumerate(settings.presets):
        place = f"{document.place(('presets', position))}, preset {name}"
        yield from (replace(rule, place=place) for rule in preset(name).rules)


def _with_variables(document: SettingsDocument, environment: Mapping[str, str]) -> SettingsDocument:
    """Return a document with the settings from the environment. `__` separates the parts of a key."""
    keys = {key.upper().replace(".", "__"): key for key in setting_keys() if key != KEY}
    for variable, text in sorted(environment.items()):
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == variable or name in IGNORED_VARIABLES:
            continue
        if name not in keys:
            raise SettingsError(
                "variable-unknown",
                f"The environment variable {variable} does not belong to a setting.",
                hint=invalid_settings.did_you_mean(name, sorted({*keys, *OPTION_VARIABLES}), ENVIRONMENT_PREFIX),
            )
        document = document.with_text(tuple(keys[name].split(".")), text, variable)
    return document
