"""The two networks and all addresses. Ours are in the upper halves: the engine assigns from the lower ones."""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, summarize_address_range

from clawker_fw.errors import SettingsError
from clawker_fw.model.networks import NetworkSpec, NetworkView
from clawker_fw.model.stacks import Role
from clawker_fw.stack.files import read_record
from clawker_fw.stack.labels import APPLIED, ROLE, ownership_labels, project_of
from clawker_fw.stack.virtual import Numbers

_AGENT_PREFIXES = (23, 22, 21, 20)
"""The prefix lengths for agents' networks that are chosen here, the usual one first.

Every agent can fill the kernel's neighbour table, which the whole host shares, with addresses of its network:
1,024 entries (`net.ipv4.neigh.default.gc_thresh3`, Linux, Documentation/networking/ip-sysctl). A /23 leaves
half of them to others. A larger network is chosen only if the rules need more virtual addresses."""

_EGRESS_PREFIX = 24

_POOLS = {
    Role.AGENTS: ("10.213.0.0/16", "172.24.0.0/13", "192.168.128.0/17"),
    Role.EGRESS: ("10.214.0.0/16", "172.23.0.0/16", "192.168.64.0/18"),
}

_BRIDGE = "com.docker.network.bridge"
INHIBIT_IPV4 = f"{_BRIDGE}.inhibit_ipv4"
GATEWAY_MODE = f"{_BRIDGE}.gateway_mode_ipv4"
_MASQUERADE = f"{_BRIDGE}.enable_ip_masquerade"
_DEFAULTS = {
    "com.docker.network.enable_ipv4": "true",
    "com.docker.network.enable_ipv6": "false",
    _MASQUERADE: "true",  # else no answer finds the way back
    f"{_BRIDGE}.enable_icc": "true",  # agents must reach the siblings; see `publishing_spec`
    GATEWAY_MODE: "nat",  # `routed` has no masquerading
    f"{_BRIDGE}.gateway_mode_ipv6": "nat",  # `isolated` is refused for a network with a way out, even without IPv6
    INHIBIT_IPV4: "false",  # else there is no gateway
    f"{_BRIDGE}.name": "",  # two networks can't have the same bridge
    f"{_BRIDGE}.trusted_host_interfaces": "",  # packets from there would reach relays without a published port
}
"""An engine's defaults, unless its `default-network-opts` differ. We set all of them explicitly.

So only relevant options of such an engine, or of an older release's network, count as differences. Engines
ignore unknown options (moby, daemon/libnetwork/drivers/bridge, `fromLabels`)."""

_BEFORE_BLOCK = 64
"""Addresses at the start of a slot's quarter, outside its block. The first one has our own."""

PUBLISHERS = 30
"""How many agents can publish ports at once. Each takes two addresses before the second slot's block."""

_SMALLEST_FOR_PUBLISHERS = 24


def gateway(subnet: IPv4Network) -> IPv4Address:
    """Return the Docker host's address on a network."""
    return subnet[1]


@dataclass(frozen=True, slots=True)
class EnvoyAddresses:
    """Envoy's addresses: for hosts that agents name, for each other host, and two source addresses.

    At `machine` it reaches the Docker host. `checkers` are CoreDNS's, which checks that Envoy refuses agents.
    """

    shared: IPv4Address
    guarded: IPv4Address
    exempt: IPv4Address
    machine: IPv4Address
    virtual: Mapping[str, IPv4Address] = field(default_factory=dict)
    checkers: tuple[IPv4Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Addressing:
    """A stack's subnets and numbers of virtual addresses, from which all addresses follow."""

    agents: IPv4Network
    egress: IPv4Network
    numbers: Numbers = field(default_factory=Numbers)

    @property
    def service(self) -> IPv4Address:
        """The agents' DNS server."""
        return _upper_half(self.agents)[53]

    def envoy(self, slot: int) -> IPv4Address:
        """Envoy's address on the agent network."""
        return _upper_half(self.agents)[10 + slot]

    def envoy_addresses(self, slot: int) -> EnvoyAddresses:
        """Return a slot's listening and source addresses."""
        numbers = self.numbers.names
        first = self.virtual(slot, 0) if numbers else self.envoy(slot)
        return EnvoyAddresses(
            self.envoy(slot),
            self.guarded(slot),
            self.exempt(slot),
            self.egress_gateway,
            {name: first + number for name, number in numbers},
            (self.coredns(0), self.coredns(1)),
        )

    def virtual(self, slot: int, number: int) -> IPv4Address:
        """Return the virtual address with a number."""
        return _quarter(self.agents, slot)[_BEFORE_BLOCK + number]

    def blocks(self, slot: int) -> tuple[IPv4Network, ...]:
        """Return a slot's virtual addresses, as few networks."""
        quarter = _quarter(self.agents, slot)
        return tuple(summarize_address_range(quarter[_BEFORE_BLOCK], quarter[-1])) if self.room else ()

    @property
    def room(self) -> int:
        """How many virtual addresses a slot has."""
        return _room(self.agents)

    def coredns(self, slot: int) -> IPv4Address:
        """CoreDNS's own address."""
        return _upper_half(self.agents)[20 + slot]

    def publisher(self, number: int) -> IPv4Address:
        """The address of the publishing agent with a number, on the agent network."""
        return _quarter(self.agents, 1)[2 * number + 1]

    def publishing_relay(self, number: int) -> IPv4Address:
        """The address of that agent's relay, on the agent network."""
        return _quarter(self.agents, 1)[2 * number]

    @property
    def publishers(self) -> int:
        """How many agents can publish ports. In a smaller network, our other addresses are in that quarter."""
        return PUBLISHERS if self.agents.prefixlen <= _SMALLEST_FOR_PUBLISHERS else 0

    @property
    def trial(self) -> IPv4Address:
        """The test container's address on the agent network, by which `conformance` recognizes its refusals."""
        return _upper_half(self.agents)[60]

    def egress_primary(self, slot: int) -> IPv4Address:
        """The source address of Envoy's own DNS queries."""
        return _upper_half(self.egress)[10 + slot]

    def guarded(self, slot: int) -> IPv4Address:
        """The source address of upstream connections that may not reach private ranges."""
        return _upper_half(self.egress)[20 + slot]

    def exempt(self, slot: int) -> IPv4Address:
        """The source address of upstream connections for rules with `allow_private`."""
        return _upper_half(self.egress)[30 + slot]

    def relay(self, slot: int) -> IPv4Address:
        """Envoy's address on the agent network for CoreDNS's telemetry."""
        return _upper_half(self.agents)[30 + slot]

    def reporting(self, slot: int) -> IPv4Address:
        """The source address of connections to the collector."""
        return _upper_half(self.egress)[40 + slot]

    def proxied(self, slot: int) -> IPv4Address:
        """The source address of connections to the upstream proxy."""
        return _upper_half(self.egress)[50 + slot]

    @property
    def egress_gateway(self) -> IPv4Address:
        """The host's address on the egress network."""
        return gateway(self.egress)

    @property
    def own_egress_addresses(self) -> tuple[IPv4Address, ...]:
        """Envoy's addresses on the egress network, in both slots."""
        kinds = (self.egress_primary, self.guarded, self.exempt, self.reporting, self.proxied)
        return tuple(sorted(address(slot) for slot in (0, 1) for address in kinds))

    @property
    def reserved(self) -> Mapping[Role, tuple[str, ...]]:
        """The addresses that are reserved for siblings, in both slots."""
        of_slots = (address(slot) for slot in (0, 1) for address in (self.envoy, self.coredns, self.relay))
        on_agents = tuple(map(str, sorted([self.service, *of_slots])))
        return {Role.AGENTS: on_agents, Role.EGRESS: tuple(map(str, self.own_egress_addresses))}


def _upper_half(network: IPv4Network) -> IPv4Network:
    return list(network.subnets())[1]


def _quarter(network: IPv4Network, slot: int) -> IPv4Network:
    return list(network.subnets(prefixlen_diff=2))[2 + slot]


def lower_half(network: IPv4Network) -> IPv4Network:
    """Return the half from which the engine assigns addresses."""
    return next(network.subnets())


def _room(agents: IPv4Network) -> int:
    # Without the broadcast address, the last one.
    return max(0, _quarter(agents, 0).num_addresses - _BEFORE_BLOCK - 1)


def free_subnet(
    role: Role, taken: Iterable[IPv4Network], routed: Iterable[IPv4Network], names: int = 0, *, stack: str = ""
) -> IPv4Network:
    """Return the first subnet of the role's pools that overlaps no network and, if possible, no route.

    It has room for twice the number of `names` that need a virtual address, if possible. The search starts at the
    first subnet of a pool, or at one that depends on the name of the `stack`, so that stacks that are created at
    the same time don't compete for one subnet.

    Raises:
        SettingsError: if none is free.
    """
    others, routes = tuple(taken), tuple(routed)
    routed_elsewhere = None
    for subnet in _candidates(role, names, zlib.crc32(stack.encode())):
        if any(map(subnet.overlaps, others)):
            continue
        if not any(map(subnet.overlaps, routes)):
            return subnet
        routed_elsewhere = routed_elsewhere or subnet
    if routed_elsewhere:
        return routed_elsewhere
    raise SettingsError(
        "no-free-subnet",
        f"No subnet is free for the {role} network: other networks of this engine overlap all of them.",
        hint="Choose one with `network.subnet`, or remove unused networks.",
    )


def _candidates(role: Role, names: int, start: int) -> Iterator[IPv4Network]:
    sizes = _AGENT_PREFIXES if role is Role.AGENTS else (_EGRESS_PREFIX,)
    # The smallest one with room for twice as many names, else the largest.
    roomy = (size for size in sizes[:-1] if _room(IPv4Network((0, size))) >= 2 * names)
    prefix = next(roomy, sizes[-1])
    for pool in _POOLS[role]:
        subnets = list(IPv4Network(pool).subnets(new_prefix=prefix))
        first = start % len(subnets)
        yield from subnets[first:] + subnets[:first]


def network_specs(project: str, addressing: Addressing) -> dict[Role, NetworkSpec]:
    """Return both networks. The agent network has no way out and no address of the host.

    `internal` removes the way out, and `inhibit_ipv4` the bridge's address. `gateway_mode_ipv4=isolated` would do
    both, but engines before 27 silently ignore it.
    """
    return {
        Role.AGENTS: _spec(project, Role.AGENTS, "net", addressing.agents, **{INHIBIT_IPV4: "true"}),
        Role.EGRESS: _spec(project, Role.EGRESS, "egress", addressing.egress),
    }


def publishing_name(project: str) -> str:
    """Return the name of the network for published ports."""
    return f"{project}-publish"


def publishing_spec(project: str, subnet: IPv4Network) -> NetworkSpec:
    """Return the relays' network for published ports, which can't be internal.

    Without masquerading, a reply to a packet that left it would not find the way back. `enable_icc` stays on: to
    separate containers, the engine would switch on br_netfilter for all bridges, where one agent could then fill
    the connection table. The relays themselves refuse each other.
    """
    return _spec(project, PUBLISHING, "publish", subnet, **{_MASQUERADE: "false"})


PUBLISHING = "publishing"
"""This network's role in its label. A stack without published ports has none."""


def on_publishing(subnet: IPv4Network, number: int) -> IPv4Address:
    """Return a relay's address on the network for published ports."""
    return _upper_half(subnet)[number]


def _spec(project: str, role: str, suffix: str, subnet: IPv4Network, **options: str) -> NetworkSpec:
    spec = NetworkSpec(
        name=f"{project}-{suffix}",
        subnet=subnet,
        gateway=subnet[1],
        ip_range=lower_half(subnet),
        internal=role == Role.AGENTS,
        options={**_DEFAULTS, **options},
        labels={**ownership_labels(project), ROLE: str(role)},
    )
    return replace(spec, labels={**spec.labels, APPLIED: json.dumps(network_fields(spec), sort_keys=True)})


def network_fields(spec: NetworkSpec) -> dict[str, str | bool]:
    """Return a new network's fields, options included. Its label records them for comparison."""
    return {
        "driver": "bridge",
        "gateway": str(spec.gateway),
        "internal": spec.internal,
        "ip_range": str(spec.ip_range),
        "ipv6": False,
        "subnet": str(spec.subnet),
        **{f"options.{name}": text for name, text in spec.options.items()},
    }


def running_fields(network: NetworkView, spec: NetworkSpec) -> dict[str, str | bool]:
    """Return a network's state in the form of `network_fields`. A missing option has its default."""
    return {
        "driver": network.driver,
        "gateway": network.gateway,
        "internal": network.internal,
        "ip_range": str(network.ip_range),
        "ipv6": network.ipv6,
        "subnet": ", ".join(map(str, network.subnets)),
        **{f"options.{name}": network.options.get(name, _DEFAULTS[name]) for name in spec.options},
    }


def recorded_fields(network: NetworkView, spec: NetworkSpec) -> Mapping[str, object]:
    """Return a network's original fields from its label."""
    with suppress(KeyError, ValueError):
        record = read_record(network.labels[APPLIED])
        if isinstance(record, dict):
            return record
    return network_fields(spec)  # unreadable: nothing that differs was made by us


def network_names(project: str) -> dict[Role, str]:
    """Return the names of a project's networks."""
    return {Role.AGENTS: f"{project}-net", Role.EGRESS: f"{project}-egress"}


def project_of_network(network: NetworkView) -> str:
    """Return a network's project, or an empty string if it is foreign."""
    project = project_of(network.labels)
    ours = {name: role.value for role, name in network_names(project).items()}
    ours[publishing_name(project)] = PUBLISHING
    return project if project and ours.get(network.name) == network.labels.get(ROLE) else ""
