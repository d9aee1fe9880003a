"""Resolves the owner of a container's namespaces, following chains of joins. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from clawker_fw.model.containers import ContainerSummary, ContainerView

HOST = "host"
_OF_CONTAINER = "container:"


def network_owner(
    container: ContainerSummary, containers: Mapping[str, ContainerSummary], ask: Callable[[str], str]
) -> str:
    """Return the id of the container whose network this one uses: its own, or the end of its chain.

    `containers` are the engine's by id and by name. If a joined container has ended or is gone, those that
    joined it keep the network; then `ask` returns the network's owner from the engine's record.
    """
    at, passed = container, {container.id}
    while at.namespace:
        joined = containers.get(at.namespace)
        if joined is None or joined.id in passed:
            return ask(container.id)
        at = joined
        passed.add(at.id)
    return at.id


def joined_by(mode: str) -> str:
    """Return the name or id in a mode such as `container:ID`, or ""."""
    return mode.removeprefix(_OF_CONTAINER) if mode.startswith(_OF_CONTAINER) else ""


def matches(view: ContainerView, word: str) -> bool:
    """Whether a name, an id or a prefix of an id means a container, as in Docker."""
    return bool(word) and (view.name == word or view.id.startswith(word))


@dataclass(frozen=True, slots=True)
class Chain:
    """The containers that a container's namespace leads through, without itself.

    `host` is whether it ends at the host. `unknown` names a joined container that is not known.
    """

    passed: tuple[ContainerView, ...]
    host: bool
    unknown: str


def chain(view: ContainerView, mode: Callable[[ContainerView], str], containers: Iterable[ContainerView]) -> Chain:
    """Follow a container's namespace to its owner. `mode` returns a container's own setting."""
    candidates, passed, at = tuple(containers), [view], view
    while word := joined_by(mode(at)):
        container = next((candidate for candidate in candidates if matches(candidate, word)), None)
        if container is None or container in passed:
            return Chain(tuple(passed[1:]), host=False, unknown=word)
        passed.append(container)
        at = container
    return Chain(tuple(passed[1:]), host=mode(at) == HOST, unknown="")
