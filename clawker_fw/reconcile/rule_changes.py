"""The plan of rules: which ones a change adds and removes. Pure."""

from dataclasses import dataclass

from clawker_fw.model import Desired, Observed, Sibling
from clawker_fw.reconcile.compare.presets import PresetChange, preset_changes
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.rule_record import recorded


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """The rules that are added and removed, each as one line of text, in canonical order."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    presets: tuple[PresetChange, ...] = ()
    """The presets that this release has otherwise, with what of these rules changes by that."""

    def __bool__(self) -> bool:
        """Whether any rule changes."""
        return bool(self.added or self.removed)


def rule_changes(observed: Observed, rules: RuleSet, desired: Desired | None = None) -> RuleChanges | None:
    """Return the changes from the rules that were committed last, or None if these are unknown.

    A changed rule is one that is removed and one that is added. Only the `desired` stack tells which presets are
    others than before.
    """
    seen = observed.siblings.get(Sibling.COREDNS)
    before = recorded(seen.files) if seen else None
    if before is None:
        return None
    known, wanted = set(before), set(rules.lines)
    added = tuple(each for each in rules.lines if each not in known)
    removed = tuple(each for each in before if each not in wanted)
    presets = preset_changes(observed, desired, {*added, *removed}) if desired and (added or removed) else ()
    return RuleChanges(added, removed, presets)
