"""Ten groups of agents: what they cost, and what one notices of a change, a flood or a crash of another."""

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from bench.figures import Bound, Result, Series, interleaved, ratio
from bench.stage import Stage
from devkit.firewall import SIBLINGS, Firewall, remove_project
from devkit.hellos import client_hello
from devkit.peers import Peer, Peers
from devkit.waiting import until

GROUPS = 10
RUN_AT_MOST_SECONDS, IDLE_AT_MOST_TIMES = 20.0, 2.5
AT_MOST_MEBIBYTES = 450.0
P99_AT_MOST_TIMES = 1.5
RUNS, SECONDS = 5, 10.0
ATTACKER, NEIGHBOUR = "g0", "g1"
_PROCESSOR = 0
"""The one that the attacker may use, of two. What a container does with all of them is the engine's to limit."""


def measure(stage: Stage) -> Result:
    firewall, seconds = stage.firewall, stage.seconds or SECONDS
    one = Firewall(firewall.host, f"bench{secrets.token_hex(3)}", _folder(firewall, "one"))
    one.write("a.test")
    try:
        one.run()
        one.call("down").expect()
        one.call("down", "--all").expect()
        _write(firewall, "b.test")
        began = firewall.run().seconds
        one.run()
        commands = {"run, one stack": one, "run, ten groups": firewall}
        idle = interleaved(
            stage.runs or RUNS,
            {name: partial(_seconds, stack) for name, stack in commands.items()},
        )
        one.call("down").expect()
        return _result(stage, began, idle, seconds)
    finally:
        remove_project(stage.docker, one.project)


def _result(stage: Stage, began: float, idle: Mapping[str, Series], seconds: float) -> Result:
    firewall, peers = stage.firewall, stage.peers
    memory = sum(_mebibytes(stage, name) for name in _containers(firewall))
    stack = f"{firewall.project}-{NEIGHBOUR}"
    peers.origin(f"{stack}-egress", ["b.test"], "--http", "80", "--https", "443")
    stacks = {each["group"]: each for each in firewall.call("status", "--format", "json").json["stacks"]}
    how = {group: each["agent"] for group, each in stacks.items()}
    envoy = stacks[ATTACKER]["siblings"][0]["address"]
    load = partial(_load, peers, how[NEIGHBOUR], seconds)
    attacker = peers.start("wait", network=how[ATTACKER]["network"], processor=_PROCESSOR)
    quiet = load().finish().last
    started = _started(stage, stack)
    under = {
        "a rule of another group": _beside(load, lambda: _write(firewall, "c.test", also_reload=True)),
        "a flood of another group's agent": _beside(load, lambda: _flood(attacker, envoy, seconds)),
        "a crash of another group's Envoy": _beside(load, lambda: _crash(stage, firewall)),
    }
    unchanged = _started(stage, stack) == started
    floods = under["a flood of another group's agent"]
    alone, ten = idle.values()
    return Result(
        series=list(idle.values()),
        bounds=[
            Bound("run of ten groups from nothing", RUN_AT_MOST_SECONDS, began, "s"),
            ratio("run without work, ten groups / one stack", IDLE_AT_MOST_TIMES, ten, alone),
            Bound("memory of ten groups", AT_MOST_MEBIBYTES, memory, "MiB"),
            *(Bound(f"failed requests beside {name}", 0, float(found["failed"])) for name, found in under.items()),
            Bound("p99 beside a flood / without", P99_AT_MOST_TIMES, floods["p99_ms"] / quiet["p99_ms"]),
            Bound("containers that were started again", 0, float(not unchanged)),
        ],
        raw={"quiet": quiet, **under},
    )


def _seconds(stack: Firewall) -> float:
    return stack.run().seconds


def _folder(firewall: Firewall, name: str) -> Path:
    folder = firewall.folder / name
    folder.mkdir()
    return folder


def _write(firewall: Firewall, name: str, *, also_reload: bool = False) -> None:
    """Give the attacker's group a rule to this name, and all others one to `b.test`."""
    hosts = {f"g{number}": "b.test" for number in range(GROUPS)} | {ATTACKER: name}
    rules = {
        group: {"rules": [{"dst": host, "proto": proto, "allow_private": True} for proto in ("https", "http")]}
        for group, host in hosts.items()
    }
    firewall.settings.write_text(yaml.safe_dump({"rules": [], "groups": rules}))
    if also_reload:
        firewall.call("reload").expect()


def _containers(firewall: Firewall) -> list[str]:
    """Return the names of the groups' containers, without those of the stack above."""
    stacks = [f"{firewall.project}-g{number}" for number in range(GROUPS)]
    return [f"{stack}-{sibling}" for stack in stacks for sibling in SIBLINGS]


def _mebibytes(stage: Stage, container: str) -> float:
    found = stage.docker.stats(container, stream=False)["memory_stats"]
    stats = found["stats"]
    reclaimable = stats.get("total_inactive_file", stats.get("inactive_file", 0))  # cgroup v1, v2
    return float(found["usage"] - reclaimable) / 2**20


def _started(stage: Stage, stack: str) -> list[str]:
    found = [stage.docker.inspect_container(f"{stack}-{sibling}") for sibling in SIBLINGS]
    return [each["Id"] + each["State"]["StartedAt"] for each in found]


def _load(peers: Peers, how: Mapping[str, str], seconds: float) -> Peer:
    urls = ("https://b.test/", "http://b.test/")
    return peers.agent(how["network"], how["dns"], "load", "--rate", "50", "--seconds", f"{seconds:g}", *urls)


def _beside(load: Callable[[], Peer], work: Callable[[], object]) -> dict[str, Any]:
    neighbour = load()
    work()
    return dict(neighbour.finish().last)


def _flood(attacker: Peer, envoy: str, seconds: float) -> None:
    """Begin refused connections as fast as one processor can."""
    hello = client_hello(b"refused.test").hex()
    attacker.ask("siege", f"{envoy}:443", "--count", "64", "--seconds", f"{seconds:g}", "--hex", hello, "--brief")


def _crash(stage: Stage, firewall: Firewall) -> None:
    envoy = f"{firewall.project}-{ATTACKER}-envoy"
    stage.docker.kill(envoy)
    until(lambda: not stage.docker.inspect_container(envoy)["State"]["Running"])
    firewall.run()
