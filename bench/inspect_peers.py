"""TLS that is looked into, against squid, mitmproxy and nginx: new connections and kept ones, in one network.

All stand between the same agent and the same origin, verify the origin, and have certificates of the same kind
(ECDSA P-256) and one processor. squid and mitmproxy make a certificate for the name, nginx has one. It takes root.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures import Bound, Result, Series, ratio
from bench.interceptors import DIRECT, KINDS, NGINX, OURS, SQUID, WAYS
from bench.stage import Stage
from devkit.engines import EngineError, install

RUNS, SECONDS = 8, 2.0
SQUID_TIMES = 6
"""How many times as much of its processor squid uses for a new connection, at least."""


def measure(stage: Stage) -> Result:
    """Measure all of them in a network namespace of its own, which ends with its last process."""
    if os.geteuid() != 0:
        raise EngineError("this takes root, for a network of its own")
    install({"squid": "squid-openssl", "mitmdump": "mitmproxy", "nginx": "nginx", "iptables": "iptables"})
    rounds, seconds = (str(each) for each in (stage.runs or RUNS, stage.seconds or SECONDS))
    command = ["unshare", "--net", sys.executable, "-m", "bench.interceptors", rounds, seconds]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EngineError(f"nothing could be measured: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    result = Result(raw=found)
    for kind in KINDS:
        result.series += [each for way in WAYS for each in _series(kind, way, found[kind][way])]
    for kind in KINDS:
        mine, *others = (_rates(kind, way, found) for way in (OURS, NGINX, SQUID))
        per_way = ", ".join(f"{each.name.rpartition(', ')[2]} {mine.median / each.median:.2f}" for each in others)
        result.notes.append(f"{kind}: Envoy, times as many as {per_way}")
    new = next(iter(KINDS))
    result.notes.append(_busy(new, found))
    ours, squid = (_column("processor", new, way, found) for way in (OURS, SQUID))
    result.bounds = [
        ratio(f"{new}, processor: Envoy / squid", 1 / SQUID_TIMES, ours, squid),
        Bound(
            "failed requests through Envoy", 0, sum(each["failed"] for kind in KINDS for each in found[kind][OURS])
        ),
    ]
    return result


def _busy(new: str, found: Mapping[str, Any]) -> str:
    """Say how busy each was: one that is not waits for the agent, and would take more connections than passed."""
    shares = {
        way: statistics.median(each["rate"] * each["processor"] / 1e6 for each in found[new][way])
        for way in (OURS, NGINX, SQUID)
    }
    agent = _column("agent", new, OURS, found).median
    words = ", ".join(f"{way} {share:.0%}" for way, share in shares.items())
    return f"{new}: of their processor {words}; the agent used {agent:.0f} µs of the other one for each of Envoy's"


def _rates(kind: str, way: str, found: Mapping[str, Any]) -> Series:
    return _column("rate", kind, way, found)


def _column(column: str, kind: str, way: str, found: Mapping[str, Any]) -> Series:
    return Series(f"{kind}, {way}", tuple(each[column] for each in found[kind][way]), "a second")


def _series(kind: str, way: str, rounds: Sequence[dict[str, float]]) -> list[Series]:
    columns = {"": ("rate", "a second"), ": p50": ("p50", "ms"), ": p99": ("p99", "ms")}
    if way != DIRECT:
        columns[": processor"] = ("processor", "µs")
    return [
        Series(f"{kind}, {way}{what}", tuple(each[column] for each in rounds), unit)
        for what, (column, unit) in columns.items()
    ]
