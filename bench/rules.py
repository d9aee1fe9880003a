"""10,000 rules: the time to read and render them, the time to reload one more, and Envoy's memory."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from docker import APIClient

from bench.figures import Bound, Result, Series, interleaved, ratio
from bench.quiet import quiet
from bench.stage import REPLACE, Stage
from devkit.engines import PrivateEngine

READING = "read, checked and rendered"
WAYS = {READING: "render", "of it libyaml alone": "compose"}
MANY, FEW = 10_000, 10
RUNS = 7
CONTAINERS = 3
AT_MOST_RENDER_SECONDS = 1
AT_MOST_RELOAD_SECONDS = 2
AT_MOST_TIMES_MEMORY = 1.3
_READ = Path(__file__).with_name("read_rules.py")
_SETTLED_AFTER = 2
_MEBIBYTE = 1 << 20


def rules(count: int) -> Iterator[dict[str, str]]:
    """Yield rules of every kind, each for another name."""
    for number in range(count):
        name = f"host{number}.zone{number % 97}.example.com"
        match number % 10:
            case 0:
                yield {"dst": f".{name}"}
            case 1:
                yield {"dst": name, "proto": "http"}
            case _:
                yield {"dst": name}


def write(path: Path, count: int) -> None:
    """Write a settings file as a user would."""
    entries = ("\n    ".join(f"{key}: {value}" for key, value in rule.items()) for rule in rules(count))
    path.write_text("rules:\n" + "".join(f"  - {entry}\n" for entry in entries))


def measure(stage: Stage) -> Result:
    """Measure reading, reloading and memory."""
    runs = stage.runs or RUNS
    memory = _memory(stage, stage.runs or CONTAINERS)
    reading = _reading(stage, runs)
    reloads, after = _reloads(stage, runs)
    many, few = memory[f"Envoy with {MANY:,} names"], memory[f"Envoy with {FEW} names"]
    return Result(
        series=[*reading.values(), reloads, *memory.values(), after],
        bounds=[
            Bound(f"{READING}, median", AT_MOST_RENDER_SECONDS, reading[READING].median, "s"),
            Bound("reload with one rule more, median", AT_MOST_RELOAD_SECONDS, reloads.median, "s"),
            ratio(f"Envoy's memory at {MANY:,} names / at {FEW}", AT_MOST_TIMES_MEMORY, many, few),
        ],
    )


def _reading(stage: Stage, runs: int) -> dict[str, Series]:
    path = stage.firewall.folder / "many.yaml"
    write(path, MANY)

    def seconds(what: str) -> Callable[[], float]:
        command = [sys.executable, str(_READ), what, str(path)]
        return lambda: float(stage.firewall.call_raw(command).expect().out)

    return interleaved(runs, {name: seconds(what) for name, what in WAYS.items()})


def _memory(stage: Stage, containers: int) -> dict[str, Series]:
    """Return the memory of new Envoys, before any reload."""

    def memory(count: int) -> Callable[[], float]:
        def measured() -> float:
            write(stage.firewall.settings, count)
            stage.firewall.call(*REPLACE).expect()
            return _mebibytes(stage)

        return measured

    ways = {f"Envoy with {count:,} names": memory(count) for count in (FEW, MANY)}
    return {name: Series(name, series.values, "MiB") for name, series in interleaved(containers, ways).items()}


def _reloads(stage: Stage, runs: int) -> tuple[Series, Series]:
    """Add rules one by one, and return the seconds of each reload and Envoy's final memory."""
    firewall = stage.firewall
    write(firewall.settings, MANY)
    firewall.run()
    took = []
    for number in range(1, runs + 1):
        write(firewall.settings, MANY + number)
        quiet()
        took.append(firewall.call("reload").expect().seconds)
    return Series("reload", tuple(took)), Series(f"Envoy after {runs} reloads", (_mebibytes(stage),), "MiB")


def _mebibytes(stage: Stage) -> float:
    """Return Envoy's resident memory once it is stable."""
    time.sleep(_SETTLED_AFTER)
    state = stage.docker.inspect_container(stage.firewall.container("envoy"))["State"]
    private = PrivateEngine(Path(stage.firewall.host.removeprefix("unix://")).parent)
    if private.init is None:
        return _container_memory(stage.docker, stage.firewall.container("envoy"))
    status = (private.root / "proc" / str(state["Pid"]) / "status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _container_memory(docker: APIClient, container: str) -> float:
    """Return a container's memory without page cache, as `docker stats` shows it."""
    stats: Any = docker.stats(container, stream=False)["memory_stats"]
    cache = stats["stats"].get("inactive_file", stats["stats"].get("total_inactive_file", 0))
    return float((stats["usage"] - cache) / _MEBIBYTE)
