"""Whose network a container uses. Whoever joins another container joins the one that this has joined. Pure."""

from collections.abc import Callable, Iterable

from clawker_fw.model import ContainerSummary

Ask = Callable[[str], str]
"""Returns what the engine's record of a container says: the id of the one whose network it was started with."""


class NetworkOwners:
    """The ends of all chains of `--network container:…` on an engine.

    A container that another one has joined may have ended since, or be gone: whoever joined it keeps the network.
    """

    def __init__(self, listing: Iterable[ContainerSummary], ask: Ask) -> None:
        """Store the engine's containers. `ask` is only called where a chain leads through a removed one."""
        self._ask = ask
        self._known: dict[str, ContainerSummary] = {}
        for each in listing:
            self._known |= {each.id: each, each.name: each}

    def of(self, container: ContainerSummary) -> str:
        """Return the id of the container whose network this one uses: its own, or that of the end of its chain."""
        at, passed = container, {container.id}
        while at.namespace:
            joined = self._known.get(at.namespace)
            if joined is None or joined.id in passed:
                return self._ask(container.id)
            at = joined
            passed.add(at.id)
        return at.id
