"""Random rules that are observed, for comparing the real programs with the policy."""

import random
from dataclasses import replace

from clawker_fw.rules.observing import Observing
from clawker_fw.rules.ruleset import RuleSet
from devkit.strategies import random_rules

LATER = 4_000_000_000


def observed_rules(chosen: random.Random, most: int) -> RuleSet:
    """Return random rules, observed in half of all cases, with some of the denied names in `never`."""
    rules = random_rules(chosen, most)
    never = tuple(rule for rule in rules.rules if rule.denies and chosen.random() < 0.5)
    kept = RuleSet(tuple(rule for rule in rules.rules if rule not in never))
    return replace(kept, observing=Observing(LATER, never)) if chosen.random() < 0.5 else rules
