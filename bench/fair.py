"""Fair under attack: what another agent notices while one, or eight, do their worst; whether the siblings bear it.

Around a private engine is a simulated internet. The neighbour's requests are an open loop to known names, and
another to names below a subtree rule that nobody has asked for before. Some are refused, to be found on record.
"""

import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from bench.figures import Bound, Result, Series, table
from bench.quiet import quiet
from bench.stage import Stage
from bench.strain import Siblings, returned
from devkit.attacks.floods import (
    CROWDS,
    FLOODS,
    GONE,
    LARGE,
    MUTE,
    NAMED,
    NAMES,
    SHARED,
    SILENT,
    SLOW,
    SLOW_SECONDS,
    TARGET,
    WILD,
    Flood,
)
from devkit.engines import INSTALLED, EngineError, available, private_engine
from devkit.firewall import SIBLINGS, Firewall, remove_project
from devkit.host import client
from devkit.peers import Peer, Peers, peers
from devkit.programs import machine
from devkit.waiting import until
from devkit.watching import Watching, watching
from devkit.world import NAMESERVER, WORLD, Program, World, world_around

SECONDS = 30.0
AT_MOST_TIMES = 5.0
PROCESSOR = 0
"""The one that the attacker may use, of two. What a container does with all of them is the engine's to limit.

It is a processor, and not half of the time of both: a container that has used its half up (`--cpus`) is stopped
for the rest of 100 ms, and takes both of them until then. A neighbour's p99 was 14 to 18 times its own beside such
a container that attacks nobody, whatever the firewall does.
"""

RETURNED_SECONDS = 60.0
RETURNED_MARGIN_MEGABYTES = 50.0
"""An allocator keeps pages that are used in part, once. What grows with each attack would exceed this soon."""

COMMIT_SECONDS = 5.0
"""An attack goes on for this long after the neighbour's requests. Meanwhile a rule is replaced."""

LATE_AFTER_SECONDS = 5.0
LATE_UNTIL_SECONDS = 10.0
_RECOVERED_SECONDS = 120.0

_KNOWN, _NEW, _REFUSED = "known.test", "new.test", "neighbour.test"
_EXACT = [f"label-{number:06}.{below}" for below, count in NAMES.items() for number in range(count)]
_RULES: tuple[str | dict[str, Any], ...] = (
    *(rule for name in (_KNOWN, TARGET) for rule in (name, {"dst": name, "proto": "http"})),
    *(f".{name}" for name in (_NEW, GONE, SLOW, SILENT)),
    *({"dst": name, "proto": "http"} for name in (f".{_NEW}", f".{WILD}", *_EXACT)),
    {"dst": SHARED, "inspect": True, "insecure_skip_tls_verify": True},
)
_TARGET_ADDRESS = "203.0.113.20"
_SHARED_ADDRESS, _SHARED_PORT = "203.0.113.21", 4444
_ZONE = {
    **{name: [WORLD] for name in (_KNOWN, f"*.{_NEW}")},
    **{name: [_TARGET_ADDRESS] for name in (TARGET, f"*.{WILD}", f"*.{NAMED}")},
    SHARED: [_SHARED_ADDRESS],
}
_REDIRECTED = {443: 4443, 80: 8081}
"""Ports of the attacker's host, and where its origin listens: the neighbour's has all addresses of these."""

_SLOW = {SLOW: f"{SLOW_SECONDS}s", SILENT: "1h", MUTE: "1h"}
_NAMESERVER_OPTIONS = ("--verbose", "--ttl", "60", *(f"--slow={name}={late}" for name, late in _SLOW.items()))

LOADS = {
    "known": ("--rate", "10", f"https://{_KNOWN}/", f"http://{_KNOWN}/"),
    "new": ("--rate", "5", f"https://*.{_NEW}/", f"http://*.{_NEW}/"),
    "inspected": ("--rate", "4", f"https://{SHARED}/"),
}
"""The neighbour's requests: names that Envoy knows, names that are new each time, and one that is inspected,
with a host that speaks HTTP/2.

Each request is a new connection. Together, they stay within the 25 a second that are reserved for each agent
(limits.go): above that, one attacker may use up what all agents share, and the kernel retries after a second.
"""


@dataclass(frozen=True)
class Ground:
    """One stack in the simulated internet, and everyone who watches it."""

    firewall: Firewall
    peers: Peers
    siblings: Siblings
    nameserver: Program
    watched: Watching
    neighbour: Peer


def measure(place: Stage) -> Result:
    if (reason := available(place.kind or INSTALLED.name)) is not None:
        raise EngineError(reason)
    seconds = place.seconds or SECONDS
    wanted = [each for each in (*FLOODS, *CROWDS, *LARGE) if any(word in each.name for word in place.only)]
    attacks = wanted if place.only else (*FLOODS, *CROWDS)
    result = Result()
    with (
        tempfile.TemporaryDirectory() as folder,
        private_engine(place.kind or INSTALLED.name, dns=[NAMESERVER]) as engine,
    ):
        said = Path(folder, "said")
        said.mkdir()
        with world_around(engine, said, machine()) as world:
            _serve_target(world)
            nameserver = world.resolve(_ZONE, *_NAMESERVER_OPTIONS)
            with _ground(world, nameserver, Path(folder)) as ground:
                met = [_attacked(ground, attack, seconds) for attack in _announced(attacks)]
            _report(result, met)
    result.notes.append(
        f"Attacks of {seconds:g} s. p50 and p99 in ms, without and under attack; the neighbour waits at most 5 s."
    )
    return result


def _serve_target(world: World) -> None:
    """Start an origin for the attacker alone, so that the neighbour's is not what is exhausted.

    It has the attacker's processor, as it would be on another machine. So has the one that both use.
    """
    world.add(_TARGET_ADDRESS, _SHARED_ADDRESS)
    redirected = [(_TARGET_ADDRESS, port, own) for port, own in _REDIRECTED.items()]
    for address, port, own in (*redirected, (_SHARED_ADDRESS, 443, _SHARED_PORT)):
        matched = ["--destination", address, "--protocol", "tcp", "--dport", str(port)]
        rule = ["--append", "PREROUTING", *matched, "--jump", "REDIRECT", "--to-ports", str(own)]
        world.engine.run_in_network(["iptables", "--table", "nat", *rule])
    listening = ("--sink", str(_REDIRECTED[443]), "--http", str(_REDIRECTED[80]))
    world.serve("origin", "--name", "target", *listening, processor=PROCESSOR)
    world.serve("origin", "--name", SHARED, "--https", str(_SHARED_PORT), processor=PROCESSOR)


@contextmanager
def _ground(world: World, nameserver: Program, folder: Path) -> Iterator[Ground]:
    host = world.engine.host
    firewall = Firewall(host, f"fair{secrets.token_hex(3)}", folder)
    with ExitStack() as stack:
        docker = stack.enter_context(closing(client(host)))
        stack.callback(remove_project, docker, firewall.project)
        around = stack.enter_context(peers(docker))
        firewall.write(*_RULES)
        firewall.run()
        watched = stack.enter_context(watching(firewall, "--heal", "all"))
        neighbour = firewall.agent(around)
        siblings = Siblings(docker, firewall)
        until(lambda: neighbour.get(f"https://{_KNOWN}/").ok)
        yield Ground(firewall, around, siblings, nameserver, watched, neighbour)


def _announced(attacks: Sequence[Flood]) -> Iterator[Flood]:
    """Yield each attack after it has been named on stderr, because all together take long."""
    for attack in attacks:
        print(f"  {attack.name}", file=sys.stderr, flush=True)
        yield attack


def _attacked(ground: Ground, attack: Flood, seconds: float) -> dict[str, Any]:
    """Measure the neighbour without the attack and under it, then how the siblings recover."""
    siblings, firewall = ground.siblings, ground.firewall
    _recover(ground)
    quiet()
    baseline = _neighbour(ground, seconds)
    status = firewall.status()
    network, resolver = status["agent"]["network"], status["agent"]["dns"]
    attackers = [
        ground.peers.start(
            "wait",
            network=network,
            dns=resolver,
            capabilities=attack.capabilities,
            dropped=["ALL"],
            processor=PROCESSOR,
            weight=1024 // attack.agents,
        )
        for _ in range(attack.agents)
    ]
    (addresses,) = ground.peers.client.inspect_network(network)["IPAM"]["Config"]
    targets = {"envoy": status["siblings"][0]["address"], "resolver": resolver, "network": addresses["Subnet"]}
    memory, lives, decisions = siblings.megabytes(), siblings.lives(), len(ground.watched.decisions)
    charged = siblings.charged()
    recorded = _recorded(ground)
    parts = list(product(attackers, (attack, *attack.also)))
    with siblings.observed() as strain, ThreadPoolExecutor(len(parts)) as pool:
        attacking = [
            pool.submit(attacker.ask, *part.against(seconds + COMMIT_SECONDS, **targets))
            for attacker, part in parts
        ]
        under = _neighbour(ground, seconds)
        committed = _replace_rule(ground)
        answers = [each.result() for each in attacking]
        over = time.time()
        for attacker in attackers:
            attacker.remove()
    back = _until_returned(siblings, memory)
    until(lambda: time.time() > over + LATE_UNTIL_SECONDS, every=0.2)
    asked = [
        (each["at_ms"] / 1000, each["name"])
        for each in ground.nameserver.said()
        if attack.asks_below and each["event"] == "query" and each["name"].endswith(f"{attack.asks_below}.")
    ]
    first = {name: at for at, name in reversed(asked)}
    late = [(at, name) for at, name in asked if at > over + LATE_AFTER_SECONDS]
    after = siblings.lives()
    return {
        "attack": attack.name,
        "control": attack.control,
        "baseline": baseline,
        "under": under,
        "attackers": [answer.last if answer.lines else {"exit": answer.code} for answer in answers],
        "refused": under["refused"]["errors"].get("http", 0),
        "recorded": _recorded(ground) - recorded,
        "longest_answer_ms": strain.longest_answer_ms,
        "commit_s": committed,
        "died": sorted(name for name in lives if lives[name] != after.get(name)),
        "unhealthy": sorted(strain.unhealthy),
        "healed": [
            each for each in ground.watched.decisions[decisions:] if each.get("actions", ["commit"]) != ["commit"]
        ],
        "current": firewall.current(),
        "megabytes_before": memory,
        "megabytes_peak": strain.peak_megabytes,
        "megabytes_after": siblings.megabytes(),
        "charged": [charged, strain.charged, siblings.charged()],
        "returned_s": back,
        "lookups": len(first),
        "late_lookups": len({name for at, name in late if first[name] == at}),
        "late_repeats": sum(first[name] != at for at, name in late),
    }


def _neighbour(ground: Ground, seconds: float) -> dict[str, Any]:
    envoy = ground.firewall.status()["siblings"][0]["address"]
    refused = ("drive", f"http://{_REFUSED}/", "--connect", f"{envoy}:80", "--interval", "500ms")
    commands = {name: ("load", *options) for name, options in LOADS.items()} | {"refused": refused}
    with ThreadPoolExecutor() as pool:
        asking = {
            name: pool.submit(ground.neighbour.ask, *command, "--seconds", str(seconds))
            for name, command in commands.items()
        }
        return {name: each.result().last for name, each in asking.items()}


def _recorded(ground: Ground) -> int:
    """Return how many of the neighbour's refused requests are on record, one by one."""
    address = ground.neighbour.address(f"{ground.firewall.project}-net")
    denials = ground.firewall.call("denials", "--format", "json", "--agent", address).expect().json["denials"]
    return sum(denial["times"] for denial in denials if denial["name"] == _REFUSED)


def _replace_rule(ground: Ground) -> float | None:
    """Replace a rule, and return after how many seconds the watcher has committed it, or None if it has not."""
    began, known = time.monotonic(), len(ground.watched.decisions)
    ground.firewall.write(*_RULES, f"{secrets.token_hex(3)}.commit.test")
    try:
        ground.watched.healed(since=known)
    except TimeoutError:
        return None
    return time.monotonic() - began


def _until_returned(siblings: Siblings, before: Mapping[str, float]) -> float | None:
    """Return after how many seconds the memory is what it was before, or None if that takes too long."""
    began = time.monotonic()
    try:
        until(
            lambda: returned(before, siblings.megabytes(), RETURNED_MARGIN_MEGABYTES), RETURNED_SECONDS, every=0.5
        )
    except TimeoutError:
        return None
    return time.monotonic() - began


def _recover(ground: Ground) -> None:
    """Wait until the stack is current and serves, whatever the last attack has left, or else replace it."""

    def serves() -> bool:
        return ground.neighbour.get(f"https://{_KNOWN}/").ok and ground.firewall.current()

    try:
        until(serves, _RECOVERED_SECONDS, every=1)
    except TimeoutError:
        ground.firewall.draining("1s").call("run", "--force-recreate").expect()


def _report(result: Result, met: Sequence[dict[str, Any]]) -> None:
    """Add the measurements to the result: a row for each attack, and the promises."""
    rows = [
        [
            "attack",
            "failed",
            "p50",
            "p99",
            "times",
            "new: failed",
            "p99",
            "times",
            "inspected: failed",
            "p99",
            "times",
            "died",
            "Envoy MB",
            "CoreDNS MB",
            "back",
            "late, again",
            "admin ms",
            "commit",
            "on record",
        ],
        *(_row(each) for each in met),
    ]
    result.notes += [*table(rows).splitlines(), ""]
    for each in met:
        result.notes += [f"{each['attack']}: {line}" for line in _details(each)]
    result.raw["attacks"] = list(met)
    result.bounds += _bounds(met)
    result.series += [
        Series(f"p99 of {load} names, {when} attack", tuple(each[key][load]["p99_ms"] for each in met), "ms")
        for load in LOADS
        for key, when in (("baseline", "without"), ("under", "under"))
    ]


def _failed(met: Mapping[str, Any], load: str) -> int:
    return int(met["under"][load]["failed"])


def _times(met: Mapping[str, Any], load: str) -> float:
    return float(met["under"][load]["p99_ms"] / met["baseline"][load]["p99_ms"])


_PROMISES: tuple[tuple[str, float, Callable[[Mapping[str, Any]], float]], ...] = (
    *((f"failed requests, {load} names", 0, partial(_failed, load=load)) for load in LOADS),
    *((f"p99 under attack / without, {load} names", AT_MOST_TIMES, partial(_times, load=load)) for load in LOADS),
    ("siblings that died", 0, lambda met: len(met["died"])),
    ("siblings that were unhealthy", 0, lambda met: len(met["unhealthy"])),
    ("heals by the watcher", 0, lambda met: len(met["healed"])),
    ("commits that failed", 0, lambda met: int(met["commit_s"] is None)),
    ("refusals of the neighbour not on record", 0, lambda met: met["refused"] - met["recorded"]),
    ("longest answer of Envoy's admin interface, ms", 1000, lambda met: met["longest_answer_ms"]),
    ("not current afterwards", 0, lambda met: int(not met["current"])),
    (f"memory not returned within {RETURNED_SECONDS:g} s", 0, lambda met: int(met["returned_s"] is None)),
    (
        f"lookups of names later than {LATE_AFTER_SECONDS:g} s, first and repeated",
        0,
        lambda met: int(met["late_lookups"] + met["late_repeats"]),
    ),
)
"""What is promised for every attack: the most, and how it is counted."""


def _row(met: Mapping[str, Any]) -> list[str]:
    cells = [str(met["attack"])]
    for load in LOADS:
        before, under = met["baseline"][load], met["under"][load]
        cells.append(f"{under['failed']} of {under['sent']}")
        if load == "known":
            cells.append(f"{before['p50_ms']:.1f}-{under['p50_ms']:.1f}")
        cells += [f"{before['p99_ms']:.0f}-{under['p99_ms']:.0f}", f"{_times(met, load):.1f}"]
    memory = (met["megabytes_before"], met["megabytes_peak"], met["megabytes_after"])
    megabytes = ["-".join(f"{each.get(sibling, 0):.0f}" for each in memory) for sibling in SIBLINGS]
    back = "no" if met["returned_s"] is None else f"{met['returned_s']:.0f} s"
    late = f"{met['late_lookups']}, {met['late_repeats']}"
    admin = f"{met['longest_answer_ms']:.0f}"
    commit = "no" if met["commit_s"] is None else f"{met['commit_s']:.1f} s"
    record = f"{met['recorded']} of {met['refused']}"
    return [*cells, ", ".join(met["died"]) or "-", *megabytes, back, late, admin, commit, record]


def _details(met: Mapping[str, Any]) -> Iterator[str]:
    for answer in met["attackers"]:
        yield "attacker " + ", ".join(f"{name} {value}" for name, value in answer.items())
    for load, summary in met["under"].items():
        if summary["failed"] and load in LOADS:
            yield f"{load} names: {summary['errors']}"
    if all(met["charged"]):
        current, sockets = (
            "-".join(f"{each[name]:.0f}" for each in met["charged"]) for name in ("current", "sockets")
        )
        last = met["charged"][-1]
        yield f"Envoy's container: {current} MB of {last['max']:.0f}, sockets {sockets}, killed {last['killed']:g}"
    if met["unhealthy"] or met["healed"] or not met["current"]:
        yield f"unhealthy: {met['unhealthy']}, healed: {len(met['healed'])} times, current: {met['current']}"


def _bounds(met: Sequence[Mapping[str, Any]]) -> Iterator[Bound]:
    """Yield the promises, each with the attack that came closest to breaking it."""
    attacks = [each for each in met if not each["control"]]
    for promise, most, measured in _PROMISES:
        worst = max(attacks, key=measured, default=None)
        if worst is not None:
            yield Bound(f"{promise}: {worst['attack']}", most, measured(worst))
