"""The one matcher: which rule, if any, allows a name.

The most specific rule decides: the exact name first, then the nearest name above it that has a subtree rule.
Every other form of the rules (CoreDNS's list, Envoy's server names and virtual hosts) is tested against this.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import Protocol, Rule


@dataclass(slots=True)
class Node:
    """A node in the tree of labels, whose root is the rightmost label's parent."""

    name: str
    exact: list[Rule] = field(default_factory=list)
    subtree: list[Rule] = field(default_factory=list)
    children: dict[str, "Node"] = field(default_factory=dict)


class Matcher:
    """Matches names against a rule set."""

    def __init__(self, rules: RuleSet) -> None:
        """Build the tree of all names in the rules and their parents."""
        self.root = Node("")
        for rule in rules.rules:
            node = self._node(rule.destination.name)
            (node.subtree if rule.destination.subtree else node.exact).append(rule)

    def decide(self, name: str, protocol: Protocol, port: int) -> Rule | None:
        """Return the rule that allows a connection, or None if it is refused."""

        def matching(rules: list[Rule]) -> Rule | None:
            return next((rule for rule in rules if rule.protocol is protocol and rule.port == port), None)

        path = list(self._path(name))
        at_name = path[-1] if path[-1].name == name.lower() else Node(name)
        nearest = (matching(node.subtree) for node in reversed(path))
        return matching(at_name.exact) or next((rule for rule in nearest if rule), None)

    def resolves(self, name: str) -> bool:
        """Whether the resolver answers a name: whether any rule, of any protocol and port, covers it."""
        path = list(self._path(name))
        return any(node.subtree for node in path) or (path[-1].name == name.lower() and bool(path[-1].exact))

    def _node(self, name: str) -> Node:
        node = self.root
        for label in reversed(name.split(".")):
            child = node.children.get(label)
            if child is None:
                child = node.children[label] = Node(f"{label}.{node.name}" if node.name else label)
            node = child
        return node

    def _path(self, name: str) -> Iterator[Node]:
        """Yield the nodes from the root to the deepest one that is the name or a parent of it."""
        node: Node | None = self.root
        labels = reversed(name.lower().split("."))
        while node is not None:
            yield node
            node = node.children.get(next(labels, ""))
