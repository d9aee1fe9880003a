"""Everything that a hostile agent is tested to try: what it sends, what it gets, and what must be on record."""

from collections.abc import Sequence

from devkit.attacks.attack import Attack, Group
from devkit.attacks.groups import GROUPS

__all__ = ["ATTACKS", "GROUPS", "Attack", "Group"]

ATTACKS: Sequence[Attack] = tuple(attack for group in GROUPS for attack in group.attacks)
