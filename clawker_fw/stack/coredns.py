"""The resolver sibling: its Corefile, its dynamic files, and its network."""

import json

from clawker_fw.model.containers import Shape
from clawker_fw.model.engines import Machine
from clawker_fw.model.files import Files
from clawker_fw.model.stacks import Role, Sibling, Slots
from clawker_fw.rendering import render
from clawker_fw.rules.policy import Policy
from clawker_fw.settings.values import LimitSettings, ResourceSettings
from clawker_fw.stack import collector, container, expiry, name_list, virtual
from clawker_fw.stack.capacity import Capacity, allot
from clawker_fw.stack.files import canonical, public
from clawker_fw.stack.resources import SIBLING, Resource, declaration
from clawker_fw.stack.topology import Addressing, network_names

_PROBER = Resource("eye", container.PROBER.removeprefix(container.HOT))

RESOURCES = (
    expiry.RESOURCE,
    _PROBER,
    virtual.RESOURCE,
    name_list.RECORDED,
    collector.RESOURCE,
    name_list.RESOURCE,
)
"""Only `fwctl` reads the first two, and only clawker-fw the next two. The second has the address and ports at
which `fwctl` checks that Envoy refuses agents."""

_MEMORY = 512 << 20
"""The container's memory limit in bytes, on a machine that has enough."""

_BUFFERS = 128 << 10
"""Bytes of a connection in CoreDNS: a buffer for its client's longest message, and as much again."""

_A_CONNECTION = _BUFFERS + container.RECEIVED[Sibling.COREDNS] + container.SENT[Sibling.COREDNS]
"""Bytes that one can cost, with what the kernel keeps if neither end reads."""

_OWN_FILES = 1024

_MOST_CONNECTIONS = 1 << 19
"""Far below the open files that a kernel allows one process (`fs.nr_open`)."""

_SOCKETS = "/tmp"  # noqa: S108 - inside the container; agents can't reach a socket
"""Each plugin reports in `NAME.sock`, by its resource's name, what it has loaded. `fwctl` queries it there."""

_SETTINGS = {"arp_announce": 2, "arp_ignore": 3}
"""ARP requests for a released address (host scope) get no answer, and ours never name it as the sender (Linux,
networking/ip-sysctl). So the service address stays unambiguous during a takeover."""


def capacity(resources: ResourceSettings, machine: Machine) -> Capacity:
    """Return what CoreDNS may use. Raise SettingsError if the settings ask for more than there is."""
    return allot(Sibling.COREDNS, resources.coredns, machine, _MEMORY, _room)


def _room(memory: int, _: int) -> int:
    # Connections can use half of the memory, however many processors there are.
    return min(memory // 2 // _A_CONNECTION, _MOST_CONNECTIONS)


def shape(project: str, addressing: Addressing, slot: int, capacity: Capacity, machine: Machine) -> Shape:
    """Return the container's shape. Its only network is the agent network, so it has no way out.

    Go would use twice its live memory before it collects garbage, whatever the limit. The last quarter is for
    memory that Go does not count: the helpers, and the kernel's buffers.
    """
    return container.shape(
        Sibling.COREDNS,
        ["/coredns", "-conf", f"{container.VOLUME}/boot/Corefile"],
        {network_names(project)[Role.AGENTS]: str(addressing.coredns(slot))},
        capacity=capacity,
        machine=machine,
        open_files=capacity.connections + _OWN_FILES,
        settings=_SETTINGS,
        environment=(f"GOMAXPROCS={capacity.processors}", f"GOMEMLIMIT={capacity.memory * 3 // 4}"),
    )


def boot(addressing: Addressing, slot: int, limits: LimitSettings, capacity: Capacity) -> Files:
    """Return the startup files."""
    interface = {"address": str(addressing.coredns(slot)), "subnet": str(addressing.agents)}
    sibling = {
        **container.network(Sibling.COREDNS, [interface], _SETTINGS, _limits(addressing, limits, capacity)),
        "page": {"listen": f"0.0.0.0:{container.PAGE_PORT}", "askers": _askers(addressing)},
        "service": {"address": str(addressing.service), "subnet": str(addressing.agents)},
        "resources": declaration(RESOURCES),
    }
    corefile = render(
        "Corefile.j2",
        collector_file=f"{container.VOLUME}/{collector.FILE}",
        collector_socket=f"{_SOCKETS}/{collector.RESOURCE.name}.sock",
        policy_file=f"{container.VOLUME}/{name_list.POLICY}",
        policy_socket=f"{_SOCKETS}/{name_list.RESOURCE.name}.sock",
    )
    return {
        "boot/Corefile": public(corefile.encode()),
        SIBLING: public(json.dumps(sibling, indent=1, sort_keys=True).encode()),
    }


def _askers(addressing: Addressing) -> list[str]:
    return [str(addressing.envoy(slot)) for slot in (0, 1)]


def _limits(addressing: Addressing, limits: LimitSettings, capacity: Capacity) -> dict[str, object]:
    """Return each agent's limits. Only Envoy's recorder also uses CoreDNS, at a separate port."""
    return {
        "subnet": str(addressing.agents),
        "except": _askers(addressing),
        "private_port": container.PAGE_PORT,
        "connections": limits.resolver_connections,
        "all_connections": capacity.connections,
        "connections_per_second": limits.connections_per_second,
        "queries_per_second": limits.queries_per_second,
        "datagrams_per_second": 0,
    }


def hot(
    names: Policy, addressing: Addressing, slots: Slots, reported: collector.TelemetryTarget | None = None
) -> Files:
    """Return the dynamic files: the plugins' list of names and collector, and ours."""
    envoy_slot = slots.envoy
    probed = {"address": str(addressing.envoy(envoy_slot)), "ports": list(names.rules.ports)}
    return {
        container.PROBER: public(canonical(probed)),
        virtual.NUMBERS: public(virtual.content(addressing.numbers)),
        name_list.RULES: public(name_list.record(names.rules.lines)),
        collector.FILE: collector.coredns_file(reported, str(addressing.relay(envoy_slot)), slots.coredns),
        name_list.POLICY: public(name_list.content(names, addressing, envoy_slot)),
    }
