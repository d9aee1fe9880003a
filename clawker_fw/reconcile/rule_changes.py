"""The plan of rules: which ones a change adds and removes. Pure."""

from dataclasses import dataclass

from clawker_fw.model import Observed, Sibling
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.rule_record import recorded


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """The rules that are added and removed, each as one line of text, in canonical order."""

    added: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether any rule changes."""
        return bool(self.added or self.removed)


def rule_changes(observed: Observed, rules: RuleSet) -> RuleChanges | None:
    """Return the changes from the rules that were committed last, or None if these are unknown.

    A changed rule is one that is removed and one that is added.
    """
    seen = observed.siblings.get(Sibling.COREDNS)
    before = recorded(seen.files) if seen else None
    if before is None:
        return None
    known, wanted = set(before), set(rules.lines)
    return RuleChanges(
        tuple(each for each in rules.lines if each not in known),
        tuple(each for each in before if each not in wanted),
    )
