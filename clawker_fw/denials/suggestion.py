"""The rules that would allow what was refused, as lines for the settings. A person decides which of them to take.

Each rule allows what was refused and nothing else. From three names below the same one on, a rule for all of these
is offered beside them, but never below a public suffix, under which anybody can register names.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from clawker_fw.rules import suffixes
from clawker_fw.rules.destination import Destination, objection
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.target import Target

NAMES_OF_A_SUBTREE = 3
"""So many names below the same one, and a rule for all below it is offered."""


def suggested(targets: Iterable[Target]) -> Iterator[tuple[Rule, bool]]:
    """Yield a rule for each target, in order, and after those of a protocol and port the wider ones.

    With each comes whether it is wider: it is for more than what was refused, for everything below a name.
    """
    names: dict[tuple[Protocol, int], set[str]] = defaultdict(set)
    for target in targets:
        names[target.protocol, target.port].add(target.name)
    for (protocol, port), group in sorted(names.items()):
        exact = sorted(Destination(name, subtree=False) for name in group)
        shared = [] if protocol.opaque else sorted(_shared(group))
        for wider, destinations in ((False, exact), (True, shared)):
            yield from ((Rule(each, protocol, port), wider) for each in destinations if not objection(each))


def _shared(names: set[str]) -> Iterator[Destination]:
    """Yield the subtrees that several names share. The deepest common name is taken."""
    below: dict[str, set[str]] = defaultdict(set)
    for name in names:
        for above in _above(name):
            below[above].add(name)
    left = set(names)
    for above in sorted(below, key=lambda each: (-each.count("."), each)):
        members = below[above] & left
        if len(members) >= NAMES_OF_A_SUBTREE:
            left -= members | {above}
            yield Destination(above, subtree=True)


def _above(name: str) -> Iterator[str]:
    """Yield the names above a name under which not everybody can register."""
    _, _, parent = name.partition(".")
    while "." in parent and not suffixes.is_shared(parent):
        yield parent
        _, _, parent = parent.partition(".")
