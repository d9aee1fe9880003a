"""10 to 50,000 rules: reading and rendering them, one more, memory, new connections and lookups.

`--only WORD` measures only some sizes, or `tcp`, the names that need an address of their own.
"""

import json
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from bench.figures import Bound, Result, Series, ratio
from bench.quiet import quiet
from bench.stage import REPLACE, Stage
from clawker_fw.engine.docker import connect
from clawker_fw.fwctl import HelperReader
from devkit.firewall import RULES, Firewall
from devkit.peers import Peer
from devkit.processes import program

SIZES = (10, 1_000, 10_000, 50_000)
FEW, MANY, MOST = 10, 10_000, 50_000
RUNS = 3
STAGES = ("parse", "validate", "compile", "render")
READ_WITHIN = 1.0
LIVE_WITHIN = {MANY: 1.2, MOST: 5.0}
"""From the start of the process until an agent can use one rule more, in seconds."""
OPAQUE_NAMES, OPAQUE_WITHIN = 500, 1.0
AT_MOST_TIMES = 1.2
AT_MOST_TIMES_MEMORY = 1.3
LOOKUPS = 15
_DRIVE = ("drive", "https://a.test/", "--clients", "8", "--seconds", "2")
_SUBNET = "10.213.0.0/20"
_SETTINGS = f"limits:\n  connections_per_second: 100000\nnetwork:\n  subnet: {_SUBNET}\n"
"""The usual limit of one agent is below what Envoy carries, and each of the tcp names needs an address."""
_OPAQUE_PORT = 9000
_READ = Path(__file__).with_name("read_rules.py")
_SETTLED_AFTER = 2

Values = defaultdict[tuple[str, str], list[float]]
"""What was measured, by its size and what it is."""


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


def write(path: Path, count: int, *more: Mapping[str, object]) -> None:
    """Write a settings file as a user would: so many rules, and some more."""
    entries = [*rules(count), *more]
    lines = ("\n    ".join(f"{key}: {json.dumps(value)}" for key, value in rule.items()) for rule in entries)
    path.write_text("".join((_SETTINGS, "rules:\n", *(f"  - {entry}\n" for entry in lines))))


def measure(stage: Stage) -> Result:
    """Measure the sizes one after the other, in alternating order, so that other load affects all of them."""
    firewall, runs = stage.firewall, stage.runs or RUNS
    sizes = [size for size in SIZES if not stage.only or str(size) in stage.only]
    found: Values = defaultdict(list)
    firewall.write(*RULES, network={"subnet": _SUBNET})
    firewall.run()
    coming = [_name(size, number) for size in sizes for number in range(runs)]
    opaque = [f"tcp{number}.test" for number in range(OPAQUE_NAMES * runs)]
    ports = ("--http", f"80,{_OPAQUE_PORT}", "--https", "443")
    firewall.origin(stage.peers, ["a.test", "h.test", *coming, *opaque[::OPAQUE_NAMES]], *ports)
    for number in range(runs):
        for size in sizes[:: -1 if number % 2 else 1]:
            _size(stage, size, _name(size, number), found)
        if not stage.only or "tcp" in stage.only:
            _opaque(stage, opaque[number * OPAQUE_NAMES : (number + 1) * OPAQUE_NAMES], found)
    series = {key: Series(" ".join(key), tuple(values), _unit(key[1])) for key, values in found.items()}
    return Result(series=list(series.values()), bounds=list(_bounds(series)))


def _name(size: int, number: int) -> str:
    return f"new{number}-{size}.test"


def _unit(what: str) -> str:
    return {"envoy": "MiB", "coredns": "MiB", "lookup": "ms", "connections a second": ""}.get(what, "s")


def _bounds(series: Mapping[tuple[str, str], Series]) -> Iterator[Bound]:
    if _of(MANY) in {size for size, _ in series}:
        read = sum(series[_of(MANY), each].median for each in STAGES)
        yield Bound(f"{_of(MANY)}: read, checked and rendered", READ_WITHIN, read, "s")
    for size, within in LIVE_WITHIN.items():
        if one_more := series.get((_of(size), "one more, live")):
            yield Bound(f"{_of(size)}: one more is live for an agent", within, one_more.median, "s")
    if opaque := series.get(("tcp", "live")):
        yield Bound(f"{OPAQUE_NAMES} tcp names more are live", OPAQUE_WITHIN, opaque.median, "s")
    if {(_of(FEW), "envoy"), (_of(MANY), "envoy")} <= series.keys():
        few, many = (
            {what: each for (size, what), each in series.items() if size == _of(at)} for at in (FEW, MANY)
        )
        against = f"at {MANY:,} rules / at {FEW}"
        yield ratio(f"Envoy's memory {against}", AT_MOST_TIMES_MEMORY, many["envoy"], few["envoy"])
        connections = "connections a second"
        yield ratio(f"time for a connection {against}", AT_MOST_TIMES, few[connections], many[connections])
        yield ratio(f"time for a lookup {against}", AT_MOST_TIMES, many["lookup"], few["lookup"])


def _of(size: int) -> str:
    return f"{size:,} rules"


def _size(stage: Stage, size: int, name: str, found: Values) -> None:
    """Measure a new stack with so many rules, and add one."""
    firewall = stage.firewall

    def note(what: str, value: float) -> None:
        found[_of(size), what].append(value)

    write(firewall.settings, size, *RULES)
    quiet()
    read = firewall.call_raw([sys.executable, str(_READ), str(firewall.settings)]).expect().json
    for each in STAGES:
        note(each, read[each])
    firewall.draining("0s").call(*REPLACE).expect()
    for sibling in ("envoy", "coredns"):
        note(sibling, _mebibytes(stage, sibling))
    agent = firewall.agent(stage.peers)
    quiet()
    note("connections a second", _connections(agent))
    note("lookup", statistics.median(agent.ask("resolve", "a.test").last["ms"] for _ in range(LOOKUPS)))
    agent.remove()
    waiting = firewall.agent(stage.peers, "get", f"https://{name}/", "--until-ok")
    write(firewall.settings, size, *RULES, {"dst": name, "allow_private": True})
    quiet()
    live, proven, steps = _live(firewall, waiting)
    note("one more, live", live)
    note("one more, proven", proven)
    note("of it Envoy's commit", steps["envoy"])
    note("of it CoreDNS's commit", steps["coredns"])
    engine = connect(firewall.host, None, {})
    began = time.monotonic()
    HelperReader(engine, firewall.container("envoy")).probe()
    note("one proof by Envoy", time.monotonic() - began)
    engine.close()


def _opaque(stage: Stage, names: list[str], found: Values) -> None:
    """Add names that need an address of their own to a stack with few rules."""
    write(stage.firewall.settings, FEW, *RULES)
    stage.firewall.run()
    more = [{"dst": name, "proto": "tcp", "port": _OPAQUE_PORT, "allow_private": True} for name in names]
    waiting = stage.firewall.agent(stage.peers, "get", f"http://{names[0]}:{_OPAQUE_PORT}/", "--until-ok")
    write(stage.firewall.settings, FEW, *RULES, *more)
    quiet()
    live, proven, _ = _live(stage.firewall, waiting)
    found["tcp", "live"].append(live)
    found["tcp", "proven"].append(proven)


def _connections(agent: Peer) -> float:
    driven = agent.ask(*_DRIVE).last
    if driven["failed"]:
        raise AssertionError(f"connections failed: {driven}")
    return float(driven["sent"] / driven["seconds"])


def _live(firewall: Firewall, waiting: Peer) -> tuple[float, float, dict[str, float]]:
    """Reload, and return when an agent was served, when the command ended, and the seconds of each commit."""
    began = time.time()
    reload = firewall.call("reload").expect()
    assert waiting.finish().ok
    line = waiting.client.logs(waiting.container, timestamps=True).decode().split()[0]
    served = datetime.fromisoformat(line[:26] + "+00:00").timestamp()
    steps = re.findall(r"done +([\d.]+) s +load changed files into (\w+)", reload.err)
    waiting.remove()
    return served - began, reload.seconds, {sibling: float(seconds) for seconds, sibling in steps}


def _mebibytes(stage: Stage, sibling: str) -> float:
    """Return the resident memory of a sibling once it is stable."""
    time.sleep(_SETTLED_AFTER)
    status = (program(stage.docker, stage.firewall.container(sibling)) / "status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
