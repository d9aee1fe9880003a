"""Fifty agents with 20 requests a second each, through 1,000 rules, for ten minutes; then two and four times that.

Around a private engine is a simulated internet. Every agent requests ten of 50 hosts, by TLS and plain HTTP. Four
of its five requests use connections again, as HTTP clients do. One opens a connection, because all agents together
may begin 500 a second (limits.go). In the middle, a rule is added. The steps beyond show what breaks first.
"""

import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Bound, Result, table
from bench.quiet import quiet, ticks
from bench.stage import Stage
from bench.strain import Siblings
from devkit.engines import INSTALLED, EngineError, available, private_engine
from devkit.firewall import Firewall, remove_project
from devkit.host import client
from devkit.peers import Peer, peers
from devkit.programs import machine
from devkit.world import NAMESERVER, WORLD, World, world_around

SECONDS = 600.0
AGENTS, RULES = 50, 1000
KEPT_A_SECOND, NEW_A_SECOND = 16, 4
"""Requests of each agent on connections that it uses again, and on new ones."""

BETWEEN_STARTS_SECONDS = 0.2
"""Agents don't begin at the same moment: all of their first connections together would exceed the rate."""

BEYOND = (2, 4)
BEYOND_PART = 0.1
"""The duration of each step beyond, as a part of the whole."""

_HOSTS = [f"host-{number:02}.crowd.test" for number in range(50)]
_OTHERS = [f"other-{number:04}.crowd.test" for number in range(RULES - 2 * len(_HOSTS))]
_RULES: tuple[str | dict[str, str], ...] = (
    *_HOSTS,
    *({"dst": host, "proto": "http"} for host in _HOSTS),
    *_OTHERS,
)
_HOSTS_OF_AN_AGENT = 10
_EVERY_SECONDS = 1.0
_COUNT = "/proc/sys/net/netfilter/nf_conntrack_count"


@dataclass
class Tracked:
    """The most connections that the kernel tracked at one time, on the host and in Envoy's container."""

    host: int = 0
    envoy: int = 0


@dataclass(frozen=True)
class Crowd:
    """One stack in the simulated internet, and its agents."""

    world: World
    firewall: Firewall
    siblings: Siblings
    agents: list[Peer] = field(default_factory=list)


def measure(place: Stage) -> Result:
    kind = place.kind or INSTALLED.name
    if (reason := available(kind)) is not None:
        raise EngineError(reason)
    seconds = place.seconds or SECONDS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine = stack.enter_context(private_engine(kind, dns=[NAMESERVER]))
        world = stack.enter_context(world_around(engine, folder, machine()))
        world.resolve({name: [WORLD] for name in (*_HOSTS, *_OTHERS)}, "--ttl", "60")
        crowd = stack.enter_context(_crowd(world, folder))
        steps = [_step(crowd, 1, seconds), *(_step(crowd, factor, seconds * BEYOND_PART) for factor in BEYOND)]
    promised, *_ = steps
    return Result(
        bounds=[
            Bound(f"failed requests of {promised['sent']}", 0, promised["failed"]),
            Bound("siblings that died or were unhealthy", 0, len(promised["broken"])),
            Bound("stacks that were not current afterwards", 0, int(not promised["current"])),
        ],
        notes=[*_rows(steps).splitlines(), "lag: how late the agents themselves were, with the same processors."],
        raw={"steps": steps},
    )


@contextmanager
def _crowd(world: World, folder: Path) -> Iterator[Crowd]:
    host = world.engine.host
    firewall = Firewall(host, f"crowd{secrets.token_hex(3)}", folder)
    with ExitStack() as stack:
        docker = stack.enter_context(closing(client(host)))
        stack.callback(remove_project, docker, firewall.project)
        around = stack.enter_context(peers(docker))
        firewall.write(*_RULES)
        firewall.run()
        agents = [firewall.agent(around) for _ in range(AGENTS)]
        yield Crowd(world, firewall, Siblings(docker, firewall), agents)


def _step(crowd: Crowd, factor: int, seconds: float) -> dict[str, Any]:
    """Let all agents make so many times the requests for so many seconds, and add a rule meanwhile."""
    quiet()
    lives, began = crowd.siblings.lives(), time.monotonic()
    main_thread, (idle, all_ticks) = crowd.siblings.main_thread_seconds(), ticks()
    with (
        crowd.siblings.observed() as strain,
        _tracked(crowd) as tracked,
        ThreadPoolExecutor(2 * AGENTS) as pool,
    ):
        asking = []
        for number, agent in enumerate(crowd.agents):
            for kept in (True, False):
                load = _load(number, factor, kept=kept)
                asking.append(pool.submit(agent.ask, *load, "--seconds", str(seconds)))
            time.sleep(BETWEEN_STARTS_SECONDS)
        time.sleep(seconds / 2)
        crowd.firewall.write(*_RULES, f"{secrets.token_hex(3)}.crowd.test")
        added = crowd.firewall.call("reload").expect().seconds
        summaries = [answer.result().last for answer in asking]
    took = time.monotonic() - began
    idle_after, all_ticks_after = ticks()
    after = crowd.siblings.lives()
    replaced = {name for name in lives if lives[name] != after.get(name)}
    return {
        "factor": factor,
        "sent": sum(summary["sent"] for summary in summaries),
        "failed": sum(summary["failed"] for summary in summaries),
        "errors": [summary["failures"][0] for summary in summaries if summary["failures"]][:5],
        **{
            name: max(summary[name] for summary in summaries)
            for name in ("p50_ms", "p99_ms", "longest_ms", "longest_lag_ms", "longest_connect_ms")
        },
        "rule_s": added,
        "admin_ms": strain.longest_answer_ms,
        "megabytes": strain.peak_megabytes,
        "main_thread": (crowd.siblings.main_thread_seconds() - main_thread) / took,
        "processors": 1 - (idle_after - idle) / (all_ticks_after - all_ticks),
        "tracked": vars(tracked),
        "broken": sorted(replaced | strain.unhealthy),
        "current": crowd.firewall.current(),
    }


def _load(number: int, factor: int, *, kept: bool) -> list[str]:
    """Return the command of one agent: its hosts, half by TLS and half by plain HTTP."""
    hosts = [_HOSTS[(number + step) % len(_HOSTS)] for step in range(_HOSTS_OF_AN_AGENT)]
    urls = [f"{'https' if step % 2 else 'http'}://{host}/" for step, host in enumerate(hosts)]
    rate = factor * (KEPT_A_SECOND if kept else NEW_A_SECOND)
    return ["load", *(["--kept"] if kept else []), "--rate", str(rate), *urls]


@contextmanager
def _tracked(crowd: Crowd) -> Iterator[Tracked]:
    tracked, ended = Tracked(), threading.Event()
    in_envoy = ("nsenter", "--net", "--target", crowd.siblings.process("envoy").name, "cat", _COUNT)

    def count() -> None:
        while not ended.wait(_EVERY_SECONDS):
            tracked.host = max(tracked.host, int(crowd.world.engine.run_in_network(["cat", _COUNT]).stdout))
            inside = subprocess.run(in_envoy, check=True, capture_output=True, text=True, timeout=10)
            tracked.envoy = max(tracked.envoy, int(inside.stdout))

    counting = threading.Thread(target=count, daemon=True)
    counting.start()
    try:
        yield tracked
    finally:
        ended.set()
        counting.join()


def _rows(steps: list[dict[str, Any]]) -> str:
    """Return one row for each step, with the slowest agent's times."""
    heading = [
        *("requests/s", "sent", "failed", "p50 ms", "p99 ms", "longest", "lag", "a rule s"),
        *("admin ms", "main thread %", "processors %", "Envoy MB", "CoreDNS MB", "tracked: host", "Envoy"),
    ]
    return table(
        [
            heading,
            *(
                [
                    str(step["factor"] * AGENTS * (KEPT_A_SECOND + NEW_A_SECOND)),
                    *(str(step[name]) for name in ("sent", "failed")),
                    f"{step['p50_ms']:.1f}",
                    *(f"{step[name]:.0f}" for name in ("p99_ms", "longest_ms", "longest_lag_ms")),
                    f"{step['rule_s']:.1f}",
                    f"{step['admin_ms']:.0f}",
                    *(f"{step[name] * 100:.1f}" for name in ("main_thread", "processors")),
                    *(f"{step['megabytes'].get(sibling, 0):.0f}" for sibling in ("envoy", "coredns")),
                    *(str(step["tracked"][place]) for place in ("host", "envoy")),
                ]
                for step in steps
            ),
        ]
    )
