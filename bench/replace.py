"""Replacing both siblings under 200 requests a second, compared with stop, remove, create and start.

The load is an open loop: a request starts when it is due, even if earlier ones have not been answered. A closed
loop would send nothing during an outage. Each request resolves the name, opens a new connection and gets a page.
Every replacement has an agent of its own, because each request leaves a port of the agent in TIME_WAIT.

Other agents keep their connections, and request at other rates. What they lose is counted apart, in replacements
by `--force-recreate` and by a change of the settings, with a shorter drain than by default.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

from bench.figures import Bound, Result, Series
from bench.quiet import quiet
from bench.stage import REPLACE, Stage
from devkit.firewall import RULES
from devkit.hand import Hand
from devkit.peers import KEPT_LOADS, WAITING, Peer
from devkit.waiting import until

LOAD = ("load", "--rate", "200", "--seconds", "0", "https://a.test/", "http://h.test/")
RUNS = 20
ONE_PLAIN_IN = 4
ONE_KEPT_IN = 4
KEPT_DRAIN = "8s"
STOP_SECONDS = 5

FIGURES = {"failed": "", "longest_ms": "ms", "dead_ms": "ms", "longest_dns_ms": "ms", "longest_lag_ms": "ms"}


def measure(stage: Stage) -> Result:
    """Replace while an agent requests by name or by address, and in some rounds in the plain way."""
    firewall, hand = stage.up(), Hand(stage.docker, stage.firewall, stage.peers)

    def plainly() -> None:
        for sibling in ("coredns", "envoy"):
            hand.recreate(sibling, lambda _: None, stop_seconds=STOP_SECONDS)

    ours, plain = [], []
    for number in range(stage.runs or RUNS):
        ours.append(_under_load(stage, lambda: firewall.call(*REPLACE).expect()))
        if number % ONE_PLAIN_IN == 0:
            plain.append(_under_load(stage, plainly))
            firewall.run()
    kept = [_kept_under_load(stage, number) for number in range(max(2, len(ours) // ONE_KEPT_IN))]
    return Result(
        series=[*_series("run --force-recreate", ours), *_series("stop, remove, create, start", plain)],
        bounds=[
            Bound(f"failed requests, {len(ours)} replacements", 0, _failed(ours)),
            Bound(f"failed requests on kept connections, {len(kept)} replacements", 0, _failed(kept)),
            Bound("longest request", 250, max(each["longest_ms"] for each in ours), "ms"),
        ],
        notes=[
            f"{_requests(ours)} by run, {_requests(plain)} by the plain way.",
            f"{_requests(kept)} on kept connections.",
            f"The plain way's longest request took {_times(plain, ours, 'longest_ms')} as long as run's,",
            f"and nothing was answered (dead) for {_times(plain, ours, 'dead_ms')} as long.",
            "lag: the agent itself was late with a request: when it is high, the machine was too busy.",
        ],
        raw={"run": ours, "plain": plain, "kept": kept},
    )


def _under_load(stage: Stage, replace: Callable[[], object]) -> dict[str, Any]:
    quiet()
    agent = stage.firewall.agent(stage.peers, *LOAD)
    _seconds_pass(agent, 1)
    began = time.monotonic()
    replace()
    took = time.monotonic() - began
    _seconds_pass(agent, 2)
    summary = agent.stop().last
    agent.remove()
    return {**summary, "wall_s": took}


def _kept_under_load(stage: Stage, number: int) -> dict[str, Any]:
    """Replace Envoy while agents keep connections: with odd numbers because the settings have changed."""
    firewall = stage.firewall.draining(KEPT_DRAIN)
    agents = [firewall.agent(stage.peers, "load", *load, "--seconds", "0", *WAITING) for load in KEPT_LOADS]
    _seconds_pass(agents[-1], 4)
    if number % 2:
        firewall.write(*RULES, resources={"envoy": {"connections": 1000 + number}})
        firewall.call("run").expect()
    else:
        firewall.call(*REPLACE).expect()
    _seconds_pass(agents[-1], 4)
    met = [agent.stop().last for agent in agents]
    for agent in agents:
        agent.remove()
    return {"sent": sum(each["sent"] for each in met), "failed": _failed(met), "agents": met}


def _failed(met: list[dict[str, Any]]) -> int:
    return sum(each["failed"] for each in met)


def _seconds_pass(agent: Peer, count: int) -> None:
    """Wait for a number of further reports of the agent, which reports once a second."""
    wanted = len(agent.said()) + count
    until(lambda: len(agent.said()) >= wanted, every=0.1)


def _series(way: str, met: list[dict[str, Any]]) -> list[Series]:
    figures = {**FIGURES, "wall_s": "s"}
    return [
        Series(f"{way}: {name.removesuffix('_ms').removesuffix('_s')}", tuple(each[name] for each in met), unit)
        for name, unit in figures.items()
    ]


def _times(one: list[dict[str, Any]], other: list[dict[str, Any]], name: str) -> str:
    above, below = (statistics.median(each[name] for each in met) for met in (one, other))
    return f"{above / below:.0f} times"


def _requests(met: list[dict[str, Any]]) -> str:
    sent, failed = (sum(each[name] for each in met) for name in ("sent", "failed"))
    return f"{failed} of {sent} requests failed"
