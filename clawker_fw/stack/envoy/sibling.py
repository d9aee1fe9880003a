"""The proxy sibling's container: its bootstrap, its network, its dynamic files, and its confinement."""

import json
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from types import MappingProxyType

from clawker_fw.certificates.credentials import NO_AUTHORITIES, Authorities, address_of
from clawker_fw.model.containers import Shape
from clawker_fw.model.engines import Machine
from clawker_fw.model.files import Files
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.rendering import render
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.ranges import PRIVATE_RANGES, SPECIAL_RANGES
from clawker_fw.rules.rule import HOST
from clawker_fw.rules.upstream import Proxy
from clawker_fw.settings.values import LimitSettings, ResourceSettings
from clawker_fw.stack import container, expiry, virtual
from clawker_fw.stack.capacity import Capacity, allot
from clawker_fw.stack.collector import CLUSTERS_PATH, TelemetryTarget
from clawker_fw.stack.envoy import (
    bounds,
    datagrams,
    http,
    listeners,
    lookups,
    signing,
    telemetry,
    tls_interception,
    upstream,
)
from clawker_fw.stack.envoy.bootstrap import bootstrap
from clawker_fw.stack.envoy.messages import Json
from clawker_fw.stack.envoy.telemetry import Reporting, Serving
from clawker_fw.stack.files import public, secret
from clawker_fw.stack.resources import SIBLING, EnvoyProof, Resource, declaration, discovery_response
from clawker_fw.stack.topology import Addressing, network_names

ADMIN_SOCKET = "/tmp/envoy/admin.sock"  # noqa: S108 - inside the container; a socket, because no agent can reach one


def _proof(table: str) -> EnvoyProof:
    return EnvoyProof("dynamic_route_configs", ("route_config",), f"http.{table}.rds.{table}", named=table)


_CLUSTER_PROOF = EnvoyProof("dynamic_active_clusters", ("cluster",), "cluster_manager.cds")
_CLUSTERS = Resource("clusters", CLUSTERS_PATH, keyed=True, envoy=_CLUSTER_PROOF)
_ROUTES = Resource("routes", http.PATH, envoy=_proof(http.TABLE))
_PATHS = Resource("paths", tls_interception.PATH, envoy=_proof(tls_interception.NAME))
_LISTENER_PROOF = EnvoyProof("dynamic_listeners", ("active_state", "listener"), "listener_manager.lds")
_LISTENERS = Resource("listeners", "lds/listeners.json", envoy=_LISTENER_PROOF)

RESOURCES = (
    expiry.RESOURCE,
    virtual.RESOURCE,
    lookups.RESOURCE,
    *signing.RESOURCES,
    _CLUSTERS,
    telemetry.SAMPLING,
    _PATHS,
    _ROUTES,
    _LISTENERS,
)
"""Envoy reads clusters and routes before their listeners: a listener without its cluster drops its connections.
Only `fwctl` reads the first three, and only the signer those of `inspection`."""

CLUSTERS, PATHS, ROUTES, LISTENERS = (
    container.HOT + resource.path for resource in (_CLUSTERS, _PATHS, _ROUTES, _LISTENERS)
)

TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
"""The CAs in Envoy's image, for inspected hosts' certificates."""

AUTHORITIES, JOINED = "boot/authorities.pem", "/tmp/authorities.pem"  # noqa: S108 - inside the container
"""Further CAs from the settings, and the file in which `fwctl` appends them to the image's CAs."""

LOG_LEVELS = "misc:error"
"""Envoy would warn per filter chain that ServerNameMatcher is work in progress."""

DRAIN_SECONDS = 5
"""How long connections of a removed rule live on, and how long a draining Envoy still accepts new ones."""


def capacity(resources: ResourceSettings, machine: Machine) -> Capacity:
    """Return what Envoy may use. Raise SettingsError if the settings ask for more than there is."""
    return allot(Sibling.ENVOY, resources.envoy, machine, bounds.MEMORY, bounds.room)


def shape(project: str, addressing: Addressing, slot: int, capacity: Capacity, machine: Machine) -> Shape:
    """Return the container's shape: on both networks, at reserved addresses."""
    names = network_names(project)
    return container.shape(
        Sibling.ENVOY,
        [
            "/usr/local/bin/envoy",
            "--config-path",
            f"{container.VOLUME}/boot/bootstrap.json",
            "--reject-unknown-dynamic-fields",
            "--concurrency",
            str(capacity.processors),
            "--drain-time-s",
            str(DRAIN_SECONDS),
            "--disable-hot-restart",
            "--file-flush-interval-msec",
            "100",  # for what is refused to be on record soon: 10 s otherwise
            "--log-level",
            "warning",
            "--component-log-level",
            LOG_LEVELS,
        ],
        {
            names[Role.AGENTS]: str(addressing.envoy(slot)),
            names[Role.EGRESS]: str(addressing.egress_primary(slot)),
        },
        capacity=capacity,
        machine=machine,
        open_files=bounds.open_files(capacity.connections, capacity.processors),
        settings={},
    )


def boot(
    project: str,
    addressing: Addressing,
    slot: int,
    *,
    limits: LimitSettings,
    capacity: Capacity,
    authorities: bytes = b"",
    secrets: Sequence[str] = (),
    proxy: Proxy | None = None,
    proxy_authorities: bytes = b"",
) -> Files:
    """Return the startup files. `authorities` are further CAs (PEM) for inspected hosts.

    `proxy_authorities` are those that may certify the upstream proxy, in place of public ones.

    A running Envoy never requests a secret that its table lacked at start (1.40). So `secrets` lists the ids, and
    a new one needs another Envoy.
    """
    bootstrapped = bootstrap(
        project=project,
        guarded=str(addressing.guarded(slot)),
        exempt=str(addressing.exempt(slot)),
        heap=bounds.heap(capacity.memory),
        connections=capacity.connections + bounds.OWN_CONNECTIONS,
        trusted_ca=JOINED if authorities else TRUSTED,
        admin_socket=ADMIN_SOCKET,
        proxy=_proxy(proxy, addressing, slot, own_authorities=bool(proxy_authorities)) if proxy else None,
    )
    trying = (addressing.coredns(0), addressing.coredns(1), addressing.service, addressing.trial)
    further: Json = {"further": AUTHORITIES, "joined": JOINED} if authorities else {}
    further |= {"secrets": [*secrets]} if secrets else {}
    sibling = {
        **_network(addressing, slot, limits, capacity, proxy),
        "signer": {"folder": signing.FOLDER, "trusted": TRUSTED, **further},
        "page": {
            "socket": http.PAGE_SOCKET,
            "own": str(addressing.envoy(slot)),
            "other": f"{addressing.service}:{container.PAGE_PORT}",
        },
        "resources": declaration(RESOURCES),
        "usage": {"except": list(map(str, trying))},
    }
    return {
        "boot/bootstrap.json": public(json.dumps(bootstrapped, indent=1, sort_keys=True).encode()),
        "boot/agents-page.txt": public(render("agents-page.txt.j2").encode()),
        SIBLING: public(json.dumps(sibling, indent=1, sort_keys=True).encode()),
        **({AUTHORITIES: public(authorities)} if authorities else {}),
        **({upstream.AUTHORITIES: public(proxy_authorities)} if proxy_authorities else {}),
    }


def _proxy(proxy: Proxy, addressing: Addressing, slot: int, *, own_authorities: bool) -> Json:
    address = str(addressing.egress_gateway) if proxy.host == HOST else proxy.host
    return {
        "address": address,
        "port": proxy.port,
        "looked_up": address_of(address) is None,
        "tls": proxy.tls,
        "trusted_ca": f"{container.VOLUME}/{upstream.AUTHORITIES}" if own_authorities else TRUSTED,
        "source": str(addressing.proxied(slot)),
        "secret": upstream.secret_name(proxy),
    }


def hot(
    policy: Policy,
    addressing: Addressing,
    slot: int,
    limits: LimitSettings,
    telemetry: TelemetryTarget | None = None,
    *,
    authorities: Authorities = NO_AUTHORITIES,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Files:
    """Return the dynamic files in their order of use. `headers` maps secrets to headers."""
    senders = (addressing.coredns(0), addressing.coredns(1))
    addresses = (addressing.relay(slot), addressing.reporting(slot))
    reporting = Reporting(telemetry, *addresses, senders, slot) if telemetry else None
    return {
        virtual.NUMBERS: public(virtual.content(addressing.numbers)),
        lookups.SUBTREES: public(lookups.subtrees(policy)),
        **signing.hot(policy, authorities),
        **configuration(Serving(policy, addressing.envoy_addresses(slot), limits, reporting), headers),
    }


def configuration(serving: Serving, headers: Mapping[str, str] = MappingProxyType({})) -> Files:
    """Return the files that Envoy itself reads."""
    policy, reporting, pace = serving.policy, serving.reporting, serving.limits.requests_per_second
    clusters = [*datagrams.clusters(serving), *(reporting.clusters() if reporting else [])]
    share = reporting.telemetry.sample if reporting else 1.0
    every = [*listeners.listeners(serving), *listeners.virtual(serving), *datagrams.listeners(serving)]
    return {
        # A secret even without a key, so that a changed mode or owner shows tampering.
        CLUSTERS: secret(discovery_response(clusters)),
        container.HOT + telemetry.SAMPLING.path: public(telemetry.sampling(share)),
        PATHS: public(discovery_response([tls_interception.table(policy, pace, headers)])),
        ROUTES: public(discovery_response([http.table(policy, pace)])),
        LISTENERS: public(discovery_response([tls_interception.holder(serving), *every])),
    }


def _limits(addressing: Addressing, limits: LimitSettings, capacity: Capacity) -> dict[str, object]:
    """Return each agent's limits. CoreDNS, which tests Envoy like an agent, has none."""
    return {
        "subnet": str(addressing.agents),
        "except": [str(addressing.coredns(slot)) for slot in (0, 1)],
        "connections": limits.connections,
        "all_connections": capacity.connections,
        "connections_per_second": limits.connections_per_second,
        "queries_per_second": 0,
        "datagrams_per_second": limits.datagrams_per_second,
        "private": [str(addressing.relay(slot)) for slot in (0, 1)],
    }


def _network(
    addressing: Addressing, slot: int, limits: LimitSettings, capacity: Capacity, proxy: Proxy | None
) -> dict[str, object]:
    """Return the network for `fwctl serve`: further source addresses, each with its own routing table.

    A table with only the default route refuses every other destination when Envoy connects, per address it
    tries. The exempt source may reach private ranges and the egress network, but no agent and no address of ours.
    The same holds for telemetry, whose collector the user chooses, and for an upstream proxy with a name. One with
    an address is all that its source reaches.
    """
    agents, egress = addressing.agents, addressing.egress
    refused_to_guarded = {str(network) for network in (*SPECIAL_RANGES, *PRIVATE_RANGES, agents, egress)}
    own = {f"{address}/32" for address in addressing.own_egress_addresses}
    refused_to_exempt = {str(network) for network in (*SPECIAL_RANGES, agents)} | own
    common = {"gateway": str(addressing.egress_gateway), "subnet": str(egress)}
    guarded, exempt = str(addressing.guarded(slot)), str(addressing.exempt(slot))
    reporting, proxied = str(addressing.reporting(slot)), str(addressing.proxied(slot))
    fixed = _fixed(proxy, addressing) if proxy else None
    beyond_proxy = set(map(str, IPv4Network("0.0.0.0/0").address_exclude(fixed))) if fixed else refused_to_exempt
    interfaces = [
        {"address": str(addressing.envoy(slot)), "subnet": str(agents)},
        {"address": str(addressing.egress_primary(slot)), **common},
    ]
    return {
        **container.network(Sibling.ENVOY, interfaces, {}, _limits(addressing, limits, capacity)),
        "forwarder": {
            "listen": f"{lookups.FORWARDER}:{lookups.DNS_PORT}",
            "upstream": f"{container.RESOLVER}:{lookups.DNS_PORT}",
            "agents": str(agents),
            "egress": str(egress),
        },
        "blocks": [str(block) for block in addressing.blocks(slot)],
        "addresses": [
            *(
                {"address": address, "subnet": str(egress)}
                for address in (guarded, exempt, reporting, *([proxied] if proxy else []))
            ),
            {"address": str(addressing.relay(slot)), "subnet": str(agents)},
        ],
        "tables": [
            {
                **common,
                "name": name,
                "from": source,
                "table": table,
                "connected": connected,
                "unreachable": sorted(unreachable),
            }
            for name, source, table, connected, unreachable in (
                ("guarded", guarded, 101, False, refused_to_guarded),
                ("exempt", exempt, 102, True, refused_to_exempt),
                ("telemetry", reporting, 103, True, refused_to_exempt),
                *(
                    [("proxied", proxied, 104, fixed is None or fixed.subnet_of(egress), beyond_proxy)]
                    if proxy
                    else []
                ),
            )
        ],
    }


def _fixed(proxy: Proxy, addressing: Addressing) -> IPv4Network | None:
    """Return the proxy's address as a network, or None if it has a name."""
    address = addressing.egress_gateway if proxy.host == HOST else address_of(proxy.host)
    return IPv4Network(str(address)) if address else None
