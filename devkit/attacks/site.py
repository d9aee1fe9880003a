"""Where attacks are performed: a firewall in a simulated internet, an agent, and what it must not reach."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from clawker_fw.rules.policy import Policy
from devkit.attacks.addresses import HOST_PORT, PRIVATE
from devkit.attacks.attack import ALLOWED, DIRECT, EVIL, Attack, Command, result_of
from devkit.attacks.datagrams import CONTROL, HEARD, LEADS, TALK
from devkit.firewall import Firewall
from devkit.peers import Answer, Peer, Peers
from devkit.stacks import rule_set
from devkit.waiting import until
from devkit.witness import Event, Witnesses
from devkit.world import NAMESERVER, WORLD, Program, World

ELSEWHERE = "203.0.113.66"
"""The address of names without a rule. The same origin listens there, and its log says so."""

RULES: list[str | dict[str, Any]] = [
    ALLOWED,
    ".wild.test",
    {"dst": ALLOWED, "port": 8443},
    {"dst": ALLOWED, "proto": "http"},
    {"dst": ALLOWED, "proto": "http", "port": 8080},
    {"dst": "web.test", "proto": "http"},
    *({"dst": f"{name}.test", "proto": proto} for name in ("loop", "local", "mixed", "private", "shared")
      for proto in ("http", "https")),
    *({"dst": f"{name}.test", "proto": "http"} for name in ("agent", "self", "gateway")),
    *({"dst": f"{name}2.test", "proto": "http", "allow_private": True}
      for name in ("agent", "self", "loop", "private")),
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
    {"dst": "203.0.113.8/30", "as": "net.test", "proto": "tcp", "port": 2222},
]  # fmt: skip

ZONE = {
    ALLOWED: [WORLD],
    "*.wild.test": [WORLD],
    "wild.test": [WORLD],
    EVIL: [ELSEWHERE],
    "loop.test": ["127.0.0.1"],
    "loop2.test": ["127.0.0.1"],
    "local.test": [PRIVATE["local"]],
    "mixed.test": [PRIVATE["private"], WORLD],
    "private.test": [PRIVATE["private"]],
    "private2.test": [PRIVATE["private"]],
    "shared.test": [PRIVATE["shared"]],
    "gateway.test": [PRIVATE["gateway"]],
    "*.deny.test": [WORLD],
    "*.no.deny.test": [WORLD],
    "*.gone.deny.test": [WORLD],
    "*.half.deny.test": [WORLD],
    "own.test": [WORLD],
    "raw.test": [WORLD],
    "in.test": [PRIVATE["private"]],
    "in2.test": ["127.0.0.1"],
    f"{TALK}.test": [WORLD],
    "whisper.test": [PRIVATE["private"]],
    "cloud.test": [PRIVATE["local"]],
    "inward.test": ["127.0.0.1"],
    "inward2.test": ["127.0.0.1"],
}

_OURS = {
    "agent.test": "agent",
    "agent2.test": "agent",
    "self.test": "envoy",
    "self2.test": "envoy",
    "oneself2.test": "envoy",
}
"""Names that lead to one of `places`."""

_MARK = "mark-"

_UNUSED = 100
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
    agent: Peer
    neighbour: Peer
    names: Program
    witnesses: Witnesses
    places: Mapping[str, str]

    def perform(self, attack: Attack) -> Performed:
        """Perform an attack and its control, and collect all evidence.

        Raises:
            AssertionError: when the control does not succeed, because the attack would then prove nothing.
        """
        began, known = time.time(), len(self.names.said())
        verb, *arguments = self._filled(attack.control)
        if verb == "get":
            url, *options = arguments
            seen = self.witnesses.watch(
                lambda: self._attempt(attack.command), self.agent, url.removesuffix("/"), *options
            )
        else:

            def both() -> Answer:
                answer = self._attempt(attack.command)
                control = (self.neighbour if attack.freely else self.agent).ask(verb, *arguments)
                if not control.ok:
                    raise AssertionError(f"the control {arguments} fails: {control.last}")
                return answer

            seen = self.witnesses.watch(both, self.agent, f"https://{ALLOWED}")
        questions = [each for each in self.names.said()[known:] if each["event"] == "query"]
        return Performed(
            result_of(seen.answer),
            [event for event in seen.events if not self._is_neighbours(event) and not _is_control(event)],
            frozenset(each["name"].removesuffix(".") for each in questions if not self._is_neighbours(each)),
            [(each["reason"], each["name"]) for each in self._records(began)],
        )

    def pid(self, sibling: str) -> int:
        """Return the id of a sibling's first process on the engine."""
        return _pid(self.peers, self.firewall, sibling)

    def _attempt(self, command: Command) -> Answer:
        return self.agent.ask(*self._filled(command))

    def _filled(self, command: Command) -> Command:
        return tuple(argument.format_map(self.places) for argument in command)

    def _is_neighbours(self, event: Event) -> bool:
        source: str = event["remote_address"] if "remote_address" in event else event["from"]
        return source.rpartition(":")[0] == self.places["neighbour"]

    def _records(self, began: float) -> list[Event]:
        """Return what both siblings have on record of the agent since a time, in seconds since 1970.

        Records are complete when those of two more refusals are there, one by each sibling.
        """
        mark = f"{_MARK}{secrets.token_hex(4)}.test"
        self.agent.ask("resolve", mark, "--server", self.places["resolver"])
        self.agent.get(f"https://{mark}/", *self._filled(DIRECT))

        def complete() -> list[Event] | None:
            records = [record for sibling in ("envoy", "coredns") for record in self._records_of(sibling, began)]
            return records if sum(record["name"] == mark for record in records) > 1 else None

        return [record for record in until(complete, 5) if not (record["name"] or "").startswith(_MARK)]

    def _records_of(self, sibling: str, began: float) -> Iterator[Event]:
        output = self.peers.client.logs(self.firewall.container(sibling), since=began)
        for line in output.decode().splitlines():
            if line.startswith("{"):
                record = json.loads(line)
                if record["source"].partition(":")[0] == self.places["agent"]:
                    yield record


def _is_control(event: Event) -> bool:
    return str(event.get("name")).removesuffix(".") == CONTROL


POLICY = Policy(rule_set(*RULES)[1])
"""What may be looked up: nothing that it does not resolve."""


def _address_of(world: World, interface: str) -> str:
    """Return the IPv4 address of an interface of the engine's machine."""
    found = json.loads(world.engine.run_in_network(["ip", "-j", "-4", "address", "show", interface]).stdout)
    return str(found[0]["addr_info"][0]["local"])


def _pid(peers: Peers, firewall: Firewall, sibling: str) -> int:
    return int(peers.client.inspect_container(firewall.container(sibling))["State"]["Pid"])


def site_in(world: World, peers: Peers, folder: Path) -> Site:
    """Bring up a firewall in a simulated internet, with everybody else around it."""
    world.add(ELSEWHERE, *(address for name, address in PRIVATE.items() if name != "gateway"))
    firewall = Firewall(world.engine.host, "clawker", folder)
    # A name with a rule for UDP is looked up at once, and its name server comes last.
    firewall.write(*(rule for rule in RULES if not (isinstance(rule, dict) and rule.get("proto") == "udp")))
    firewall.run()
    status = firewall.status()
    for network in ("net", "egress"):
        bridge = f"br-{peers.client.inspect_network(f'clawker-{network}')['Id'][:12]}"
        world.engine.run_in_network(["sysctl", "-w", f"net.ipv4.conf.{bridge}.rp_filter=2"])
    agent = firewall.agent(peers, "origin", "--name", "agent", "--http", "80", "--https", "443", "--tell")
    neighbour = peers.start("origin", "--name", "neighbour", "--http", "80", "--tell", network="clawker-egress")
    places = {
        "envoy": status["siblings"][0]["address"],
        "resolver": status["agent"]["dns"],
        "agent": agent.address(status["agent"]["network"]),
        "neighbour": neighbour.address("clawker-egress"),
        "bridge": _address_of(world, "docker0"),
        "gateway": PRIVATE["gateway"],
        "world": WORLD,
        "nameserver": NAMESERVER,
    }
    own = {name: [places[place]] for name, place in _OURS.items()}
    names = world.resolve(ZONE | own, "--verbose")
    firewall.write(*RULES)
    firewall.call("reload").expect()
    for name in ("own", "raw", TALK, "nobody", *LEADS):
        (places[name],) = agent.ask("resolve", f"{name}.test").last["answers"]
    places["unused"] = str(IPv4Address(places["own"]) + _UNUSED)
    hearing = ("--verbose", "--zone", f"{HEARD}=192.0.2.1,{CONTROL}=192.0.2.1")
    listener = world.serve("dns", "--listen", f"0.0.0.0:{HOST_PORT}", *hearing)
    options = ("--address", "127.0.0.1", "--http", "80", "--https", "443", "--tell")
    inside = _pid(peers, firewall, "envoy")
    loopback = world.serve("origin", "--name", "loopback", *options, process=inside)
    within = [
        world.serve("dns", "--listen", f"{address}:{HOST_PORT}", *hearing, process=inside)
        for address in ("127.0.0.1", places["envoy"])
    ]
    until(lambda: agent.ask("resolve", CONTROL, "--timeout", "1s", "--server", f"{places[TALK]}:{HOST_PORT}").ok)
    witnesses = Witnesses([world.origin, loopback, agent, neighbour, listener, *within])
    return Site(world, firewall, peers, agent, neighbour, names, witnesses, places)
