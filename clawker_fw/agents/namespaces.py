"""Whose namespaces a container uses. Whoever joins another container joins the one that this has joined. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from clawker_fw.model.containers import ContainerSummary, ContainerView

HOST = "host"
_OF_CONTAINER = "container:"


def network_owner(
    container: ContainerSummary, known: Mapping[str, ContainerSummary], ask: Callable[[str], str]
) -> str:
    """Return the id of the container whose network this one uses: its own, or that of the end of its chain.

    `known` are the engine's containers by id and by name. One that another has joined may have ended since, or be
    gone: whoever joined it keeps the network. `ask` is only called then: it returns what the engine's record of a
    container says, the id of the one whose network it was started with.
    """
    at, passed = container, {container.id}
    while at.namespace:
        joined = known.get(at.namespace)
        if joined is None or joined.id in passed:
            return ask(container.id)
        at = joined
        passed.add(at.id)
    return at.id


def joined_by(mode: str) -> str:
    """Return the name or id of the container whose namespace a mode such as `container:ID` means, or nothing."""
    return mode.removeprefix(_OF_CONTAINER) if mode.startswith(_OF_CONTAINER) else ""


def matches(view: ContainerView, word: str) -> bool:
    """Whether a name, an id or the beginning of an id means a container, as engines understand it."""
    return bool(word) and (view.name == word or view.id.startswith(word))


@dataclass(frozen=True, slots=True)
class Chain:
    """The way to the namespace that a container uses: the containers that it leads through, but for itself.

    `host` is whether it ends at the host, and `unknown` what the last one has joined if that is not known.
    """

    passed: tuple[ContainerView, ...]
    host: bool
    unknown: str


def chain(view: ContainerView, mode: Callable[[ContainerView], str], known: Iterable[ContainerView]) -> Chain:
    """Follow a container's namespace to whose it is. `mode` returns a container's own setting."""
    candidates, passed, at = tuple(known), [view], view
    while word := joined_by(mode(at)):
        found = next((each for each in candidates if matches(each, word)), None)
        if found is None or found in passed:
            return Chain(tuple(passed[1:]), host=False, unknown=word)
        passed.append(found)
        at = found
    return Chain(tuple(passed[1:]), host=mode(at) == HOST, unknown="")
