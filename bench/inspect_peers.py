"""TLS that is looked into, against squid, mitmproxy and nginx: new connections and kept ones, in one network.

All stand between the same agent and the same origin, verify the origin, and have certificates of the same kind
(ECDSA P-256) and one processor. squid and mitmproxy make a certificate for the name, nginx has one. It takes root.
"""

import json
import os
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
    result.notes.append(_limit(new, found))
    ours, squid = (_column("processor", new, way, found) for way in (OURS, SQUID))
    result.bounds = [
        ratio(f"{new}, processor: Envoy / squid", 1 / SQUID_TIMES, ours, squid),
        Bound(
            "failed requests through Envoy", 0, sum(each["failed"] for kind in KINDS for each in found[kind][OURS])
        ),
    ]
    return result


def _limit(new: str, found: Mapping[str, Any]) -> str:
    """Say what the agent takes of the other processor, which it shares with the origin: more can't pass."""
    agent, rate = (_column(column, new, OURS, found).median for column in ("agent", "rate"))
    share = agent * rate / 1e6
    return (
        f"{new}: through Envoy, the agent alone took {agent:.0f} µs of its processor for each, {share:.0%} of it"
    )


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
