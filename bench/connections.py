"""Open connections during a replacement of both siblings: they continue until their end, or for drain_timeout."""

import re

from bench.figures import Bound, Result, Series
from bench.stage import REPLACE, Stage
from devkit.firewall import Firewall
from devkit.waiting import until

RUNS = 3
SECONDS = 20
SHORT_DRAIN = 3
"""A drain_timeout shorter than the connection."""


def measure(stage: Stage) -> Result:
    """Let a download and kept-alive connections end by themselves, and let drain_timeout cut another one."""
    firewall = stage.up()
    met = [_ended_by_themselves(stage, firewall) for _ in range(stage.runs or RUNS)]
    cut = [_cut_by_timeout(stage, firewall) for _ in range(stage.runs or RUNS)]
    return Result(
        series=[
            Series(f"download of {SECONDS} s, open before", tuple(each["download_s"] for each in met)),
            Series("requests on kept-alive connections", tuple(each["requests"] for each in met), ""),
            Series("HTTP connections closed politely", tuple(each["polite_closes"] for each in met), ""),
            Series(f"drain of {SHORT_DRAIN} s with one left", tuple(seconds for seconds, _ in cut)),
        ],
        bounds=[
            Bound(f"downloads cut, of {len(met)}", 0, sum(not each["download_ok"] for each in met)),
            Bound("failed requests on kept-alive connections", 0, sum(each["failed"] for each in met)),
            Bound("kept-alive TLS connections opened anew", 0, sum(each["tls_connections"] - 1 for each in met)),
            Bound(
                f"connections cut before drain_timeout, of {len(cut)}",
                0,
                sum(seconds < SHORT_DRAIN or left != 1 for seconds, left in cut),
            ),
        ],
        notes=["A politely closed connection was announced with its last response, and no request met its end."],
        raw={"ended": met, "cut": cut},
    )


def _ended_by_themselves(stage: Stage, firewall: Firewall) -> dict[str, float]:
    download = firewall.agent(stage.peers, "download", f"https://a.test/bytes?seconds={SECONDS}&rate=200000")
    secure = firewall.agent(stage.peers, "keepalive", "https://a.test/", "--seconds", str(SECONDS))
    plain = firewall.agent(stage.peers, "keepalive", "http://h.test/", "--seconds", str(SECONDS))
    until(lambda: secure.said() and plain.said())
    firewall.call(*REPLACE, "--drain-timeout", f"{2 * SECONDS}s").expect()
    loaded, kept, closed = (peer.finish().last for peer in (download, secure, plain))
    for peer in (download, secure, plain):
        peer.remove()
    return {
        "download_ok": loaded["ok"],
        "download_s": loaded["seconds"],
        "requests": kept["requests"] + closed["requests"],
        "failed": kept["failed"] + closed["failed"],
        "tls_connections": kept["connections"],
        "polite_closes": closed["polite_closes"],
    }


def _cut_by_timeout(stage: Stage, firewall: Firewall) -> tuple[float, int]:
    """Return how long the run waited for an endless connection, and how many were open at the end."""
    download = firewall.agent(stage.peers, "download", "https://a.test/bytes?seconds=60&rate=10000")
    outcome = firewall.call(*REPLACE, "--drain-timeout", f"{SHORT_DRAIN}s").expect()
    assert not download.finish().last["ok"], "a connection outlived its proxy"
    download.remove()
    told = re.search(r"done +([\d.]+) s +drain .* (\d+) connections? cut", outcome.err)
    assert told, outcome.err
    return float(told[1]), int(told[2])
