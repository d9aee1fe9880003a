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
    before = _rules_of_stack(observed)
    if before is None:
        return None
    in_common = {*before} & {*rules.lines}
    added = tuple(line for line in rules.lines if line not in in_common)
    removed = tuple(line for line in before if line not in in_common)
    presets = preset_changes(observed, desired, {*added, *removed}) if added or removed else ()
    return RuleChanges(added, removed, presets)


def preset_changes(observed: Observed, desired: Desired, changed: AbstractSet[str]) -> tuple[PresetChange, ...]:
    """Return the presets that changed some rules. `changed` are the added and removed rules."""
    before = {preset.name: preset for preset in _presets_of_stack(observed)}
    changes: list[PresetChange] = []
    for preset in _desired_presets(desired):
        former = before.get(preset.name)
        rules = ({*preset.rules} ^ {*former.rules}) & changed if former else ()
        if former and rules:
            changes.append(PresetChange(preset.name, former.version, preset.version, tuple(sorted(rules))))
    return tuple(changes)


def rules_only_by_upgrade(observed: Observed, desired: Desired) -> bool:
    """Whether rules change, and only because this release has other presets."""
    if not set(_desired_presets(desired)) - set(_presets_of_stack(observed)):
        return False  # the usual case, without reading all rules
    before, after = _rules_of_stack(observed), recorded(desired.siblings[Sibling.COREDNS].hot)
    if before is None or after is None:
        return False
    changed = {*before} ^ {*after}
    explained = {rule for change in preset_changes(observed, desired, changed) for rule in change.rules}
    return bool(changed) and changed == explained


def _rules_of_stack(observed: Observed) -> tuple[str, ...] | None:
    coredns = observed.siblings.get(Sibling.COREDNS)
    return recorded(coredns.files) if coredns else None


def _presets_of_stack(observed: Observed) -> tuple[ShippedPreset, ...]:
    """Return the presets of the running stack; none if its siblings disagree after an interrupted run."""
    origins = {recorded_origin(sibling.files) for sibling in observed.siblings.values()}
    (one,) = origins if len(origins) == 1 else (None,)
    return one.presets if one else ()


def _desired_presets(desired: Desired) -> tuple[ShippedPreset, ...]:
    origin = recorded_origin(desired.siblings[Sibling.COREDNS].kept)
    return origin.presets if origin else ()
