"""diff: the rules that a change adds and removes, also through changed presets, which replace nothing. Pure."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from clawker_fw.model.desired import Desired
from clawker_fw.model.observed import Observed
from clawker_fw.model.origin import ShippedPreset
from clawker_fw.model.stacks import Sibling
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.container import recorded_origin
from clawker_fw.stack.name_list import recorded


@dataclass(frozen=True, slots=True)
class PresetChange:
    """A preset that this release has changed: version `before` in the running stack, `after` in this release."""

    preset: str
    before: int
    after: int
    rules: tuple[str, ...]
    """The rules that this adds and removes, one line of text each."""


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """The added and removed rules, one line of text each, in canonical order. A changed rule is in both."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    presets: tuple[PresetChange, ...] = ()

    def __bool__(self) -> bool:
        """Whether any rule changes."""
        return bool(self.added or self.removed)


def rule_changes(observed: Observed, rules: RuleSet, desired: Desired) -> RuleChanges | None:
    """Return the changes since the rules were last committed, or None if those are unknown."""
    seen = observed.siblings.get(Sibling.COREDNS)
    before = recorded(seen.files) if seen else None
    if before is None:
        return None
    known, wanted = set(before), set(rules.lines)
    added = tuple(line for line in rules.lines if line not in known)
    removed = tuple(line for line in before if line not in wanted)
    presets = preset_changes(observed, desired, {*added, *removed}) if added or removed else ()
    return RuleChanges(added, removed, presets)


def preset_changes(observed: Observed, desired: Desired, changed: AbstractSet[str]) -> tuple[PresetChange, ...]:
    """Return the presets that changed some rules. `changed` are the added and removed rules."""
    before = {preset.name: preset for preset in _presets_of_stack(observed)}
    changes = (
        PresetChange(
            preset.name, known.version, preset.version, tuple(sorted(({*preset.rules} ^ {*known.rules}) & changed))
        )
        for preset in _desired_presets(desired)
        if (known := before.get(preset.name))
    )
    return tuple(change for change in changes if change.rules)


def rules_only_by_upgrade(observed: Observed, desired: Desired) -> bool:
    """Whether rules change, and only because this release has other presets."""
    if not set(_desired_presets(desired)) - set(_presets_of_stack(observed)):
        return False  # the usual case, without reading all rules
    seen = observed.siblings.get(Sibling.COREDNS)
    running = recorded(seen.files) if seen else None
    wanted = recorded(desired.siblings[Sibling.COREDNS].hot)
    if running is None or wanted is None:
        return False
    changed = {*running} ^ {*wanted}
    explained = {rule for change in preset_changes(observed, desired, changed) for rule in change.rules}
    return bool(changed) and changed == explained


def _presets_of_stack(observed: Observed) -> tuple[ShippedPreset, ...]:
    """Return the presets of the running stack; none if its siblings disagree after an interrupted run."""
    origins = {recorded_origin(seen.files) for seen in observed.siblings.values()}
    (one,) = origins if len(origins) == 1 else (None,)
    return one.presets if one else ()


def _desired_presets(desired: Desired) -> tuple[ShippedPreset, ...]:
    origin = recorded_origin(desired.siblings[Sibling.COREDNS].kept)
    return origin.presets if origin else ()
