"""A watcher: its time to heal, a restart of the engine, its cost when idle, and many events at once."""

import itertools
import os
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from docker import APIClient, errors

from bench.figures import Bound, Result, Series
from bench.quiet import quiet
from bench.stage import Stage, stage
from clawker_fw.stack.envoy.sibling import LISTENERS
from clawker_fw.stack.policy import POLICY
from devkit.engines import INSTALLED, available, private_engine
from devkit.firewall import RULES, SIBLINGS
from devkit.hand import Hand
from devkit.peers import Peer
from devkit.waiting import until
from devkit.watching import watching

RUNS = 20
HEALED_SECONDS = 2.0
RESTARTS = 5
RESTARTED_SECONDS = 5.0
IDLE_SECONDS = 600.0
IDLE_PERCENT = 1.0
IDLE_MEGABYTES = 80.0
STORM = 1000
LOOKS_A_SECOND = 1.0

_LOAD = ("load", "--rate", "50", "--timeout", "300ms", "--seconds", "0", "https://a.test/", "http://h.test/")
_TELLING = {"die", "disconnect", "extract-to-dir"}


def _kill(hand: Hand, sibling: str) -> None:
    hand.docker.kill(hand.name(sibling))


def _stop(hand: Hand, sibling: str) -> None:
    hand.docker.stop(hand.name(sibling), timeout=5)


def _disconnect(hand: Hand, sibling: str) -> None:
    network = f"{hand.firewall.project}-{'egress' if sibling == 'envoy' else 'net'}"
    hand.docker.disconnect_container_from_network(hand.name(sibling), network)


def _change(hand: Hand, sibling: str) -> None:
    path, content = (LISTENERS, b"{}") if sibling == "envoy" else (POLICY, b"")
    hand.write(sibling, path, content)


KINDS: dict[str, Callable[[Hand, str], None]] = {
    "killed": _kill,
    "stopped": _stop,
    "disconnected": _disconnect,
    "hot file changed": _change,
}


def measure(place: Stage) -> Result:
    """Measure all four."""
    result = Result(
        notes=[
            "From the event on, as it is told. Served: an agent that asks 50 times a second, and waits 300 ms for",
            "each answer, is served again. Proven: nothing differs any more, by a look after all steps.",
        ]
    )
    _heals(place, result)
    _idle(place, result)
    _storm(place, result)
    _restarts(place, result)
    return result


class _StackEvents:
    """The engine's events about a stack, with their times."""

    def __init__(self, docker: APIClient, project: str) -> None:
        self._stream: Any = docker.events(decode=True, filters={"type": ["container", "network"]})
        self._project = project
        self.moments: list[float] = []
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        with suppress(errors.DockerException):
            for event in self._stream:
                if event["Action"] in _TELLING and self._project in event["Actor"]["Attributes"].get("name", ""):
                    self.moments.append(time.monotonic())

    def close(self) -> None:
        self._stream.close()


def _heals(place: Stage, result: Result) -> None:
    """Tamper in each way with each sibling in turn."""
    firewall = place.up()
    hand = Hand(place.docker, firewall, place.peers)
    served: dict[str, list[float]] = defaultdict(list)
    proven: dict[str, list[float]] = defaultdict(list)
    with (
        closing(_StackEvents(place.docker, firewall.project)) as events,
        watching(firewall, "--interval", "1h") as watched,
    ):
        for number in range(place.runs or RUNS):
            for kind, tamper in KINDS.items():
                quiet(5)
                sibling = SIBLINGS[number % len(SIBLINGS)]
                agent = firewall.agent(place.peers, *_LOAD)
                until(lambda agent=agent: _succeeded(agent) > 0)  # type: ignore[misc]
                before, seen = len(watched.decisions), len(events.moments)
                tamper(hand, sibling)
                record = watched.healed(since=before)
                event = until(lambda seen=seen: events.moments[seen:])[0]  # type: ignore[misc]
                proven[f"{kind}, {sibling}"].append(record["read"] - event)
                count = _succeeded(agent)
                until(lambda agent=agent, count=count: _succeeded(agent) > count)  # type: ignore[misc]
                served[f"{kind}, {sibling}"].append(agent.stop().last["dead_ms"] / 1000)
                agent.remove()
                assert firewall.current(), f"{kind} {sibling}"
    for name, seconds in proven.items():
        result.series += [
            Series(f"{name}: served", tuple(served[name])),
            Series(f"{name}: proven", tuple(seconds)),
        ]
    for kind in KINDS:
        seconds = [each for sibling in SIBLINGS for each in proven[f"{kind}, {sibling}"]]
        promise = f"{kind}: proven current, median"
        result.bounds.append(Bound(promise, HEALED_SECONDS, statistics.median(seconds), "s"))


def _succeeded(agent: Peer) -> int:
    lines = [line for line in agent.said() if line["event"] == "progress"]
    return lines[-1]["done"] - lines[-1]["failed"] if lines else 0


def _idle(place: Stage, result: Result) -> None:
    """Watch an idle stack with the default options and metrics."""
    seconds = IDLE_SECONDS if place.runs is None else min(IDLE_SECONDS, 30.0 * place.runs)
    with watching(place.firewall, "--listen", "127.0.0.1:0") as watched:
        process = watched.process.pid
        before, began = _processor_seconds(process), time.monotonic()
        until(lambda: time.monotonic() - began >= seconds, seconds + 60, every=1)
        percent = 100 * (_processor_seconds(process) - before) / (time.monotonic() - began)
        megabytes = _peak_bytes(process) / 1e6
        looks = len(watched.decisions) - 1
    result.notes.append(f"Idle: {looks} looks in {seconds:.0f} s.")
    result.bounds += [
        Bound("idle: share of one processor", IDLE_PERCENT, percent, "%"),
        Bound("idle: most memory", IDLE_MEGABYTES, megabytes, "MB"),
    ]


def _processor_seconds(process: int) -> float:
    """Return the processor time of a process (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_bytes(process: int) -> int:
    """Return a process's peak resident memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _storm(place: Stage, result: Result) -> None:
    """Cause a thousand events of an agent as fast as possible. Some of them are reasons to compare."""
    agent = place.firewall.agent(place.peers)
    network = f"{place.firewall.project}-net"

    def rename(number: int) -> None:
        place.docker.rename(agent.container, f"{place.firewall.project}-storm{number}")

    ways: tuple[Callable[[int], object], ...] = (
        rename,
        lambda _: place.docker.pause(agent.container),
        lambda _: place.docker.unpause(agent.container),
        rename,
        lambda _: place.docker.disconnect_container_from_network(agent.container, network),
        lambda _: place.docker.connect_container_to_network(agent.container, network),
    )
    with watching(place.firewall, "--interval", "1h") as watched:
        before, began = len(watched.decisions), time.monotonic()
        for number, way in zip(range(STORM), itertools.cycle(ways), strict=False):
            way(number)
        seconds = time.monotonic() - began
        looks = len(watched.decisions) - before
    result.notes.append(f"Storm: {STORM} events of an agent in {seconds:.1f} s, {looks} looks.")
    result.bounds.append(Bound("storm: looks a second", LOOKS_A_SECOND, max(0, looks - 1) / seconds))


def _restarts(place: Stage, result: Result) -> None:
    """Restart a private engine, and kill it, while a watcher runs."""
    if (reason := available(place.kind or INSTALLED.name)) is not None:
        result.notes.append(f"Engine restarts are not measured: {reason}.")
        return
    took: list[float] = []
    with private_engine(place.kind or INSTALLED.name) as own, stage(own.host, place.kind, place.runs) as inside:
        inside.firewall.write(*RULES)
        inside.firewall.run()
        with watching(inside.firewall, "--interval", "1h") as watched:
            for number in range(min(place.runs or RESTARTS, RESTARTS)):
                quiet(5)
                if number % 2:
                    own.kill()
                else:
                    own.stop()
                before = len(watched.decisions)
                own.start()
                answering = time.monotonic()
                record = watched.wait(lambda each: each["verdict"] == "current", since=before)
                took.append(max(0.0, record["read"] - answering))
                until(inside.firewall.current)
    result.series.append(Series("engine restarted: proven", tuple(took)))
    result.bounds.append(Bound("engine restarted: both current, longest", RESTARTED_SECONDS, max(took), "s"))
