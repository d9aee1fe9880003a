"""Rules that decide nothing: valid, and probably a mistake."""

from collections.abc import Iterator
from dataclasses import dataclass

from clawker_fw.rules.destination import Destination
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import Rule


@dataclass(frozen=True, slots=True)
class Remark:
    """A rule that decides nothing, and why: a stable code, and the predicate of a sentence."""

    code: str
    rule: Rule
    reason: str

    def __str__(self) -> str:
        """Return the remark as a sentence without a full stop: `FILE, line 3: https a.test:443 has ended`."""
        place = f"{self.rule.place}: " if self.rule.place else ""
        return f"{place}{self.rule} {self.reason}"


def review(rules: RuleSet, now: float) -> tuple[Remark, ...]:
    """Return a remark for each rule that has ended, or that another one always overrides.

    `now` is in seconds since 1970.
    """
    return tuple(_remarks(rules, now))


def _remarks(rules: RuleSet, now: float) -> Iterator[Remark]:
    denying: dict[Destination, list[Rule]] = {}
    for rule in rules.at(now).rules:
        if rule.denies:
            denying.setdefault(rule.destination, []).append(rule)
    for rule in rules.rules:
        if rule.until is not None and rule.until <= now:
            yield Remark("rule-ended", rule, "has ended")
            continue
        same = denying.get(rule.destination, ())
        over = next((each for each in same if _overrides(each, rule)), None)
        if over is not None:
            reason = f"never applies: `{over}` has the same name and denies it" + (
                f" ({over.place})" if over.place else ""
            )
            yield Remark("rule-overridden", rule, reason)


def _overrides(deny: Rule, rule: Rule) -> bool:
    """Whether a rule that denies is always in force when one for the same name is, and matches all it does."""
    if rule.denies or rule.block or not all(deny.matches(*key) for key in rule.keys):
        return False
    return deny.until is None or (rule.until is not None and rule.until <= deny.until)
