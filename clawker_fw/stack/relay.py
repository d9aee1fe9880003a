"""The relay of an agent that publishes ports: its name, labels, shape and addresses.

An engine publishes no ports of containers on an internal network. So each such agent has a relay, a container on
the agent network and on a second one, on which its ports are published. It forwards connections to the agent, and
nothing the other way (`go/internal/relay`).

A label of the agent has its ports and a number for the agent's and the relay's address. Both are in our half of
the agent network, so the engine never gives them to another container.
"""

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from clawker_fw.model.containers import ContainerSpec, ContainerSummary, ContainerView
from clawker_fw.model.desired import Desired
from clawker_fw.model.engines import Machine
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.stack import labels
from clawker_fw.stack.container import HELPER, confined
from clawker_fw.stack.topology import (
    PUBLISHERS,
    Addressing,
    gateway,
    network_names,
    on_publishing,
    publishing_name,
)

LOOPBACK = IPv4Address("127.0.0.1")
"""Where ports are published by default."""

_LARGEST_PORT = 65535

_MEMORY = 512 << 20
"""Bytes. With the sysctls below, the kernel may keep 1 MiB per direction if one end does not read (measured), and
the program has two buffers of 32 KiB, for each of 256 connections."""

_PROCESSES = 64
_OPEN_FILES = 2048

_CAPABILITIES = ("NET_ADMIN", "NET_RAW", "SETGID", "SETPCAP", "SETUID")
"""For `fwctl relay`, which configures the network and drops them before the program starts."""

_SYSCTLS = {
    "net.ipv4.conf.all.arp_announce": "2",
    "net.ipv4.conf.all.arp_ignore": "1",
    "net.ipv4.conf.all.rp_filter": "1",
    "net.ipv4.icmp_echo_ignore_all": "1",
    "net.ipv4.ip_forward": "0",
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.tcp_rmem": "4096 131072 524288",
    "net.ipv4.tcp_wmem": "4096 16384 524288",
}


@dataclass(frozen=True, slots=True, order=True)
class PublishedPort:
    """An agent's TCP port, and where it is published. If `at` is 0, the engine chooses the port."""

    host: IPv4Address
    at: int
    port: int

    def __str__(self) -> str:
        """Return it as in our labels: `127.0.0.1:8080:80`."""
        return f"{self.host}:{self.at or ''}:{self.port}"


@dataclass(frozen=True, slots=True)
class Publication:
    """The ports that an agent publishes, at least one, and its number."""

    number: int
    ports: tuple[PublishedPort, ...]

    def __str__(self) -> str:
        """Return the content of the label."""
        return " ".join([str(self.number), *map(str, self.ports)])

    @classmethod
    def read(cls, label: str) -> "Publication | None":
        """Return the publication in a label, or None if the label does not have our form."""
        with suppress(ValueError):
            number, *words = label.split(" ")
            parts = (word.split(":") for word in words)
            ports = {PublishedPort(IPv4Address(host), int(at or 0), int(port)) for host, at, port in parts}
            publication = cls(int(number), tuple(sorted(ports)))
            valid = all(0 <= port.at <= _LARGEST_PORT and 0 < port.port <= _LARGEST_PORT for port in ports)
            if ports and valid and 0 <= publication.number < PUBLISHERS and str(publication) == label:
                return publication
        return None


def publication_of(view: ContainerView, project: str, agents: IPv4Network) -> Publication | None:
    """Return what an agent publishes, or None. Images can set the label, so the address must match."""
    publication = Publication.read(view.labels.get(labels.PUBLISHES, ""))
    places = Addressing(agents, agents)
    if view.project or publication is None or publication.number >= places.publishers:
        return None
    asked = view.requested.get(network_names(project)[Role.AGENTS], ())
    return publication if asked == (str(places.publisher(publication.number)),) else None


def relay_name(project: str, number: int) -> str:
    """Return the name of a relay's container."""
    return f"{project}-relay-{number}"


def is_relay(container: ContainerSummary | ContainerView, project: str) -> bool:
    """Whether a container is a relay of a project."""
    return container.project == project and labels.RELAY_OF in container.labels


def relay_spec(
    desired: Desired,
    agents: IPv4Network,
    publishing: IPv4Network,
    publication: Publication,
    agent: str,
    *,
    machine: Machine,
) -> ContainerSpec:
    """Return the container of a relay, with CoreDNS's image. `agent` is the id of its agent."""
    project, resolver = desired.project, desired.siblings[Sibling.COREDNS]
    names, places = network_names(project), Addressing(agents, agents)
    within, without = places.publishing_relay(publication.number), on_publishing(publishing, publication.number)
    outside = any(not port.host.is_loopback for port in publication.ports)  # then answers need a way to others
    shape = confined(
        (
            "relay",
            f"{within}/{agents.prefixlen}",
            f"{without}/{publishing.prefixlen}",
            str(gateway(publishing)) if outside else "-",
            str(places.publisher(publication.number)),
            *(str(port) for port in sorted({port.port for port in publication.ports})),
        ),
        {names[Role.AGENTS]: str(within), publishing_name(project): str(without)},
        machine,
        _MEMORY,
        _OPEN_FILES,
        environment=("GOMAXPROCS=2", f"GOMEMLIMIT={_MEMORY // 4}"),
        capabilities_added=_CAPABILITIES,
        sysctls=_SYSCTLS,
        ports=tuple(sorted(f"{port}/tcp" for port in publication.ports)),
        pids=_PROCESSES,
        log={"driver": "json-file", "max-file": "1", "max-size": "1m"},
    )
    boot = {HELPER: resolver.boot[HELPER]}
    return ContainerSpec(
        name=relay_name(project, publication.number),
        image=resolver.image.reference,
        labels={
            **labels.ownership_labels(project),
            labels.PUBLISHES: str(publication),
            labels.RELAY_OF: agent,
            labels.APPLIED: labels.applied_label(resolver.image, shape, boot, {}, {}),
        },
        shape=shape,
        files=boot,
    )
