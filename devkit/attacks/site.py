"""Where attacks are performed: a firewall in a simulated internet, an agent, and what it must not reach."""

import json
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from clawker_fw.rules.policy import Policy
from clawker_fw.stack import labels
from clawker_fw.stack.relay import LOOPBACK, Publication, PublishedPort, relay_name
from clawker_fw.stack.topology import Addressing
from devkit.attacks import inspected
from devkit.attacks.addresses import HOST_PORT, IPV6_PLACES, PRIVATE, PUBLISHED_PORT, REFUSED_PLACES
from devkit.attacks.attack import ALLOWED, DIRECT, EVIL, Attack, Command, Who, result_of
from devkit.attacks.datagrams import CONTROL, HEARD, LEADS, TALK
from devkit.attacks.literals import ELSEWHERE
from devkit.firewall import Firewall
from devkit.peers import Answer, Peer, Peers
from devkit.stacks import rule_set
from devkit.waiting import until
from devkit.witness import Event, Witnesses
from devkit.world import NAMESERVER, WORLD, Program, World

SIX = "2001:db8::10"
"""An address of the origin, for IPv6 (RFC 3849)."""

RULES: list[str | dict[str, Any]] = [
    ALLOWED,
    ".wild.test",
    {"dst": ALLOWED, "port": 8443},
    {"dst": ALLOWED, "proto": "http"},
    {"dst": ALLOWED, "proto": "http", "port": 8080},
    {"dst": "web.test", "proto": "http"},
    *(f"{name}.test" for name in ("loop", "local", "mixed", "private", "shared", "changing")),
    *({"dst": f"{name}.test", "proto": "http", "allow_private": name.endswith("2")}
      for name in (*REFUSED_PLACES, *IPV6_PLACES, "mixed", "private2")),
    *({"dst": ".deny.test", "proto": proto} for proto in ("http", "https")),
    {"dst": "no.deny.test", "action": "deny"},
    {"dst": ".gone.deny.test", "action": "deny"},
    {"dst": ".half.deny.test", "action": "deny", "proto": "http"},
    "back.gone.deny.test",
    *({"dst": f"{name}.test", "proto": "tcp", "port": port}
      for name, port in (("own", 8443), ("raw", 2222), ("in", 80))),
    {"dst": "in2.test", "proto": "tcp", "port": 80, "allow_private": True},
    {"dst": "shell.test", "proto": "ssh"},
    *({"dst": f"{name}.test", "proto": "udp", "port": HOST_PORT, "allow_private": name.endswith("2")}
      for name in (TALK, "nobody", *LEADS)),
    {"dst": "203.0.113.10", "as": "203-0-113-10.net.test", "proto": "tcp", "port": 2222},
    *inspected.RULES,
]  # fmt: skip

TELEMETRY = {"endpoint": "192.0.2.99:4317"}
"""There is a relay for it, and nobody who would take it in (RFC 5737)."""

_BELOW = ("wild", "deny", "no.deny", "gone.deny", "half.deny")
_IN_THE_WORLD = ("wild.test", "own.test", "raw.test", f"{TALK}.test", *(f"*.{name}.test" for name in _BELOW))

ZONE = {
    **{name: [WORLD] for name in (ALLOWED, inspected.INSPECTED, f"*.{inspected.BELOW}", *_IN_THE_WORLD)},
    EVIL: [ELSEWHERE],
    "mixed.test": [PRIVATE["private"], WORLD],
    "changing.test": [f"{WORLD}/{PRIVATE['private']}"],
    "several.test": ["127.0.0.1", *PRIVATE.values()],
    "alias.test": ["private.test."],
    "six.test": [SIX],
    "loop6.test": ["::1"],
    **{f"{name}.test": [PRIVATE[name]] for name in PRIVATE},
    **{
        f"{name}{exempt}.test": [address]
        for name, address in {
            "loop": "127.0.0.1",
            "local": PRIVATE["local"],
            "private": PRIVATE["private"],
            "benchmark": "198.18.0.1",
            "reserved": "240.0.0.1",
            "multicast": "224.0.0.1",
            "broadcast": "255.255.255.255",
            "mapped": "::ffff:127.0.0.1",
            "zero": "0.0.0.0",  # noqa: S104 - nobody listens there
        }.items()
        for exempt in ("", "2")
    },
    "cloud.test": [PRIVATE["local"]],
    **{f"{name}.test": [PRIVATE["private"]] for name in ("in", "whisper")},
    **{f"{name}.test": ["127.0.0.1"] for name in ("in2", "inward", "inward2")},
}

_PLACES = {"self": "envoy", "oneself": "envoy", "virtual": "own", "beside": "neighbour"}
_OURS = {
    f"{name}{exempt}.test": _PLACES.get(name, name)
    for name in ("agent", "way", "resolver", *_PLACES)
    for exempt in ("", "2")
}
"""Names that lead to one of `places`."""

_MARK = "mark-"

_LATE = 5.0
"""Seconds that evidence may be late on a busy machine. If it is still missing then, the test says so."""

_UNUSED = 40
"""By how many addresses one that stands for no name comes after one that does."""


@dataclass(frozen=True)
class Performed:
    """What became of an attack: for the agent, at every origin, at the name server, and on record."""

    result: str
    arrived: Sequence[Event]
    looked_up: frozenset[str]
    recorded: Sequence[tuple[str, str | None]]


@dataclass(frozen=True)
class Site:
    """The parts of such a place. `places` are the addresses that differ between stacks."""

    world: World
    firewall: Firewall
    peers: Peers
    who: Mapping[Who, Peer]
    names: Program
    witnesses: Witnesses
    places: Mapping[str, str]

    @property
    def agent(self) -> Peer:
        return self.who[Who.AGENT]

    def perform(self, attack: Attack) -> Performed:
        """Perform an attack and its control, which must succeed (`AssertionError`), and collect all evidence."""
        began, known = time.time(), len(self.names.said())
        heard_before, records = self._heard(attack), list[Event]()
        attacker = self.who[attack.by]
        others = {self.places.get(name) for name in (attack.control_by, f"{attack.control_by}_link") if name}
        verb, *arguments = self._filled(attack.control)

        def attempt() -> Answer:
            return attacker.ask(*self._filled(attack.command))

        def settle() -> None:
            records.extend(self._records(attack, began))
            with suppress(TimeoutError):
                until(lambda: self._heard(attack) - heard_before >= len(attack.heard), _LATE)

        if verb == "get" and not attack.control_by:
            url, *options = arguments
            seen = self.witnesses.watch(attempt, attacker, url.removesuffix("/"), *options, settle=settle)
        else:

            def both() -> Answer:
                answer = attempt()
                self._control(attack, verb, *arguments)
                return answer

            seen = self.witnesses.watch(both, self.agent, f"https://{ALLOWED}", settle=settle)
        questions = [each for each in self.names.said()[known:] if each["event"] == "query"]
        return Performed(
            result_of(seen.answer),
            [each for each in seen.events if _source(each) not in others and each.get("name") != f"{CONTROL}."],
            frozenset(each["name"].removesuffix(".") for each in questions if _source(each) not in others),
            [(each["reason"], each["name"]) for each in records],
        )

    def beside(self, firewall: Firewall) -> "Site":
        """Return the same place with another firewall, which has an agent of its own."""
        network = f"{firewall.project}-net"
        dns = firewall.status()["agent"]["dns"]
        agent = self.peers.start("wait", network=network, dns=dns, dropped=["NET_RAW"])
        own = addresses_of(self.peers, firewall) | _own_addresses(agent)
        there = {**self.places, **own, Who.AGENT: agent.address(network)}
        return replace(self, firewall=firewall, who={**self.who, Who.AGENT: agent}, places=there)

    def pid(self, sibling: str) -> int:
        return int(_inspected(self.peers, self.firewall, sibling)["State"]["Pid"])

    def _control(self, attack: Attack, *command: str) -> None:
        by = attack.control_by or attack.by
        if by is Who.HOST:
            done = subprocess.run(self.world.argv(*command), capture_output=True, check=False, text=True)
            ok, said = done.returncode == 0, done.stdout
        else:
            answer = self.who[by].ask(*command)
            ok, said = answer.ok, str(answer.lines)
        if not ok:
            raise AssertionError(f"the control {command} fails: {said}")

    def _filled(self, command: Command) -> Command:
        return tuple(argument.format_map(self.places) for argument in command)

    def _heard(self, attack: Attack) -> int:
        """Return how many of the queries that an attack causes have been received, by anybody."""
        said = [each for origin in self.witnesses.origins for each in origin.said()] if attack.heard else []
        return sum(each["event"] == "query" and each["name"].removesuffix(".") in attack.heard for each in said)

    def _records(self, attack: Attack, began: float) -> list[Event]:
        """Return what both siblings have on record of the attacker since a time, in seconds since 1970.

        It waits until the records of two more refusals, one by each sibling, and that of the attack are there.
        """
        by = attack.by
        mark = f"{_MARK}{secrets.token_hex(4)}.test"
        marks = (("resolve", mark, "--server", "{resolver}"), ("get", f"https://{mark}/", *DIRECT))
        for command in marks:
            self.who[by].ask(*self._filled(command))

        def read() -> list[Event]:
            return [record for each in ("envoy", "coredns") for record in self._records_of(each, by, began)]

        def others() -> list[Event]:
            return [record for record in read() if not (record["name"] or "").startswith(_MARK)]

        until(lambda: sum(record["name"] == mark for record in read()) > 1, _LATE)
        if attack.reason:
            with suppress(TimeoutError):
                until(others, _LATE)
        return others()

    def _records_of(self, sibling: str, by: Who, began: float) -> Iterator[Event]:
        container = self.firewall.container(sibling)
        # asked for a time alone, an engine reads from the beginning
        for line in self.peers.client.logs(container, since=began, tail=200).splitlines():
            if line.startswith(b"{"):
                record = json.loads(line)
                if record["source"].partition(":")[0] == self.places[by]:
                    yield record


def _source(event: Event) -> str:
    """Return the address from which a connection, a request or a query came, without a port and a zone."""
    source: str = event["remote_address"] if "remote_address" in event else event["from"]
    return source.rpartition(":")[0].strip("[]").partition("%")[0]


POLICY = Policy(rule_set(*RULES)[1])
"""What may be looked up: nothing that it does not resolve."""


def _interface(world: World, name: str) -> Any:  # noqa: ANN401 - JSON
    (found,) = json.loads(world.engine.run_in_network(["ip", "-j", "address", "show", name]).stdout)
    return found


def _address(interface: Any, family: str) -> str:  # noqa: ANN401 - JSON
    return str(next(each["local"] for each in interface["addr_info"] if each["family"] == family))


def _inspected(peers: Peers, firewall: Firewall, sibling: str) -> Any:  # noqa: ANN401 - JSON
    return peers.client.inspect_container(firewall.container(sibling))


def _hardware(peers: Peers, firewall: Firewall, sibling: str) -> str:
    networks = _inspected(peers, firewall, sibling)["NetworkSettings"]["Networks"]
    return str(networks[f"{firewall.project}-net"]["MacAddress"])


def site_in(world: World, peers: Peers, folder: Path) -> Site:
    world.add(ELSEWHERE, SIX, *(address for name, address in PRIVATE.items() if name != "gateway"))
    firewall = Firewall(world.engine.host, "clawker", folder, variables={"XDG_STATE_HOME": str(folder)})
    # A name with a rule for UDP is looked up at once, and its name server comes last.
    first = (rule for rule in RULES if not (isinstance(rule, dict) and rule.get("proto") == "udp"))
    firewall.write(*first, otel=TELEMETRY)
    firewall.run()
    bridges = {
        each: f"br-{peers.client.inspect_network(f'clawker-{each}')['Id'][:12]}" for each in ("net", "egress")
    }
    for bridge in bridges.values():
        world.engine.run_in_network(["sysctl", "-w", f"net.ipv4.conf.{bridge}.rp_filter=2"])
    who = _everybody(firewall, peers)
    firewall.run()  # it makes the relay
    bridge = _interface(world, bridges["net"])
    places: dict[str, str] = {
        **addresses_of(peers, firewall),
        "own": str(who[Who.AGENT].ask("resolve", "own.test").last["answers"][0]),
        Who.NEIGHBOUR: who[Who.NEIGHBOUR].address("clawker-egress"),
        **{each: who[each].address("clawker-net") for each in (Who.AGENT, Who.FORGER, Who.WANDERER, Who.UNTOLD)},
        **{f"{each}_link": f"fe80::{number}" for number, each in enumerate((Who.AGENT, Who.FORGER), 1)},
        Who.HOST: SIX,
        f"{Who.HOST}_link": _address(bridge, "inet6"),
        "bridge": _address(_interface(world, "docker0"), "inet"),
        "bridge_name": bridges["net"],
        "bridge_link": _address(bridge, "inet6"),
        "bridge_hardware": bridge["address"],
        **{f"{each}_hardware": _hardware(peers, firewall, each) for each in ("envoy", "coredns")},
        **_relay(firewall, peers),
        "forger_name": who[Who.FORGER].name,
        "gateway": PRIVATE["gateway"],
        "world": WORLD,
        "elsewhere": ELSEWHERE,
        "six": SIX,
        "nameserver": NAMESERVER,
    }
    own = {name: [places[place]] for name, place in _OURS.items()}
    names = world.resolve(ZONE | own, "--verbose")
    firewall.write(*RULES, otel=TELEMETRY)
    firewall.call("reload").expect()
    agent = who[Who.AGENT]
    places |= _own_addresses(agent)
    hearing = ("--verbose", "--zone", f"{HEARD}=192.0.2.1,{CONTROL}=192.0.2.1")
    listeners = [
        world.serve("dns", "--listen", f"{address}:{HOST_PORT}", *hearing)
        for address in ("[::]", "0.0.0.0")  # noqa: S104 - broadcasts are heard by a socket for IPv4 alone
    ]
    options = ("--address", "127.0.0.1", "--http", "80", "--https", "443", "--tell")
    inside = int(_inspected(peers, firewall, "envoy")["State"]["Pid"])
    loopback = world.serve("origin", "--name", "loopback", *options, process=inside)
    within = [
        world.serve("dns", "--listen", f"{address}:{HOST_PORT}", *hearing, process=inside)
        for address in ("127.0.0.1", places["envoy"])
    ]
    until(lambda: agent.ask("resolve", CONTROL, "--timeout", "1s", "--server", f"{places[TALK]}:{HOST_PORT}").ok)
    witnesses = Witnesses([world.origin, loopback, agent, who[Who.NEIGHBOUR], *within, *listeners])
    return Site(world, firewall, peers, who, names, witnesses, places)


def _everybody(firewall: Firewall, peers: Peers) -> Mapping[Who, Peer]:
    how = firewall.status()["agent"]
    network, dns = how["network"], how["dns"]
    server = ("origin", "--http", "80", "--tell")
    also = ("--https", "443", "--name", "agent")
    who = {
        Who.AGENT: peers.start(*server, *also, network=network, dns=dns, dropped=["NET_RAW"]),
        Who.FORGER: peers.start("wait", network=network, dns=dns),
        Who.WANDERER: peers.start("wait", network=network, dns=dns),
        Who.UNTOLD: peers.start("wait", network=network, dropped=["NET_RAW"]),
        Who.NEIGHBOUR: peers.start(*server, "--name", "neighbour", network="clawker-egress"),
        Who.PUBLISHER: _publisher(firewall, peers),
    }
    peers.client.connect_container_to_network(who[Who.WANDERER].container, "bridge")
    return who


def _publisher(firewall: Firewall, peers: Peers) -> Peer:
    """Start an agent that publishes a port, as `agent run` creates one. Its relay is there after the next run."""
    (subnet,) = (
        IPv4Network(each["Subnet"]) for each in peers.client.inspect_network("clawker-net")["IPAM"]["Config"]
    )
    ports = Publication(0, (PublishedPort(LOOPBACK, PUBLISHED_PORT, 80),))
    return peers.start(
        *("origin", "--http", "80", "--name", "publisher"),
        network="clawker-net",
        dns=firewall.status()["agent"]["dns"],
        dropped=["NET_RAW"],
        address=str(Addressing(subnet, subnet).publisher(0)),
        labels={labels.PUBLISHES: str(ports)},
    )


def _relay(firewall: Firewall, peers: Peers) -> Mapping[str, str]:
    networks = peers.client.inspect_container(relay_name(firewall.project, 0))["NetworkSettings"]["Networks"]
    agents, publishing = networks["clawker-net"], networks["clawker-publish"]
    return {
        "relay_on_agents": agents["IPAddress"],
        "relay_hardware": agents["MacAddress"],
        "relay_on_publishing": publishing["IPAddress"],
        "publishing_gateway": publishing["Gateway"],
    }


def addresses_of(peers: Peers, firewall: Firewall) -> dict[str, str]:
    status = firewall.status()
    envoy, coredns = (each["address"] for each in status["siblings"])
    made = _inspected(peers, firewall, "envoy")["NetworkSettings"]["Networks"]
    return {
        "envoy": envoy,
        "other_envoy": _other_slot(envoy),
        "relay": str(IPv4Address(envoy) + 20),
        "coredns": coredns,
        "other_coredns": _other_slot(coredns),
        "resolver": status["agent"]["dns"],
        "way": made[f"{firewall.project}-egress"]["IPAddress"],
    }


def _other_slot(address: str) -> str:
    return str(IPv4Address(int(IPv4Address(address)) ^ 1))


def _own_addresses(agent: Peer) -> dict[str, str]:
    names = ("own", "raw", TALK, "nobody", *LEADS)
    found = {name: str(agent.ask("resolve", f"{name}.test").last["answers"][0]) for name in names}
    return {**found, "unused": str(IPv4Address(found["own"]) + _UNUSED)}
