"""The rules that would allow what was refused, as lines for the settings. A person decides which of them to take.

From three names below the same one on, a rule for all of these is suggested instead, but never below a public
suffix, under which anybody can register names.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from clawker_fw.rules import suffixes
from clawker_fw.rules.destination import Destination, objection
from clawker_fw.rules.schema import Protocol
from clawker_fw.rules.target import Target

NAMES_OF_A_SUBTREE = 3
"""So many names below the same one, and a rule for all below it is suggested."""


def suggested(targets: Iterable[Target]) -> Iterator[tuple[Destination, Protocol, int]]:
    """Yield the destination, protocol and port of each rule that would allow the targets, in order."""
    names: dict[tuple[Protocol, int], set[str]] = defaultdict(set)
    for target in targets:
        names[target.protocol, target.port].add(target.name)
    for (protocol, port), group in sorted(names.items()):
        found = {Destination(name, subtree=False) for name in group} if protocol.opaque else set(_joined(group))
        for destination in sorted(found):
            if not objection(destination):
                yield destination, protocol, port


def _joined(names: set[str]) -> Iterator[Destination]:
    """Yield a subtree for names that share one, and else each name. The deepest common name is taken."""
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
    yield from (Destination(name, subtree=False) for name in left)


def _above(name: str) -> Iterator[str]:
    """Yield the names above a name under which not everybody can register."""
    _, _, parent = name.partition(".")
    while "." in parent and not suffixes.is_shared(parent):
        yield parent
        _, _, parent = parent.partition(".")
