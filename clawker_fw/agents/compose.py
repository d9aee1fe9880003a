"""Finds services that bypass the firewall in a Compose project that has agents. Pure.

Compose starts services on the default network if the override file is missing from the command line.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from clawker_fw.agents.namespaces import network_owner
from clawker_fw.model.containers import ContainerSummary
from clawker_fw.model.observed import Observed

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_FILES = "com.docker.compose.project.config_files"
_NO_NETWORK = "null"
"""The driver of the network `none`."""


@dataclass(frozen=True, slots=True)
class Bypassing:
    """The services of a Compose project that bypass the firewall, and the command that attaches them."""

    project: str
    services: tuple[str, ...]
    command: str


def bypassing(observed: Observed) -> Iterator[Bypassing]:
    """Yield the Compose projects that have agents, and services on a network with a way out."""
    ids = {agent.id for agent in observed.agents}
    ways_out = {other.name for other in observed.others if not other.internal and other.driver != _NO_NETWORK}
    containers = {container.id: container for container in observed.listing}
    inside = observed.engine.inside
    projects: dict[str, list[ContainerSummary]] = {}
    for container in observed.listing:
        if project := container.labels.get(_PROJECT):
            projects.setdefault(project, []).append(container)
    for project, members in sorted(projects.items()):
        if not any(container.id in ids for container in members):
            continue
        services = {
            container.labels.get(_SERVICE, "")
            for container in members
            if container.id not in ids
            and not (inside and container.id == inside.container)
            and not ways_out.isdisjoint(_networks(container, containers))
        }
        if names := tuple(sorted(services - {""})):
            yield Bypassing(project, names, _command(project, names, members, ids))


def _networks(container: ContainerSummary, containers: dict[str, ContainerSummary]) -> set[str]:
    """Return the networks that a container uses, possibly another container's."""
    owner = containers[network_owner(container, containers, lambda id_: id_)]
    return set(owner.networks) if owner.attached else set()


def _command(project: str, services: tuple[str, ...], members: list[ContainerSummary], agents: set[str]) -> str:
    """Return a command with all of the project's files, because Compose ignores files that it does not name."""
    agents_first = sorted(members, key=lambda container: container.id not in agents)
    files = [file for agent in agents_first for file in agent.labels.get(_FILES, "").split(",") if file]
    override = f"firewall-{services[0]}.yaml"
    named = dict.fromkeys([*(files or ["compose.yaml", "firewall.yaml"]), override])
    words = ["docker", "compose", "-p", project, *(word for file in named for word in ("-f", file)), "up", "-d"]
    return f"clawker-fw agent compose {shlex.join(services)} > {shlex.quote(override)} && {shlex.join(words)}"
