"""The upstream proxy: Envoy's time for new connections and bytes through Debian's Squid, and directly."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

from bench.figures import Bound, Result, Series, ratio
from bench.quiet import quiet
from bench.stage import NAMES, Stage
from devkit.engines import PATH, install, machine_root
from devkit.peers import Peer
from devkit.processes import program
from devkit.waiting import until

RUNS, SECONDS = 5, 2
PORT = 3128
_CONFIG = """
http_port {port}
pid_filename none
cache deny all
access_log none
cache_log /dev/null
coredump_dir {folder}
pinger_enable off
dns_nameservers 127.0.0.11
http_access allow all
"""
_KINDS = {
    "new TLS connection": (("https://a.test/", "--clients", "8"), "sent", 1e6, "µs"),
    "TLS, a gigabyte": (("https://a.test/bytes?size=20000000", "--clients", "2", "--kept"), "bytes", 1e9, "s"),
}
AT_MOST = {"new TLS connection": 1.3, "TLS, a gigabyte": 1.3}
"""How many times as long as on the direct way Envoy may be busy."""


def measure(stage: Stage) -> Result:
    """Measure Envoy's processor time for each kind of traffic, first directly, then through the proxy."""
    install({"squid": "squid"})
    firewall, result, failed = stage.firewall, Result(), 0
    limits = {"connections_per_second": 100_000}
    firewall.write({"dst": "a.test", "allow_private": True}, limits=limits)
    firewall.run()
    firewall.origin(stage.peers, NAMES)
    agent = firewall.agent(stage.peers)
    with _squid(stage) as address:
        direct, lost = _measured(stage, agent, "direct")
        firewall.write("a.test", limits=limits, upstream={"proxy": f"http://{address}:{PORT}"})
        firewall.draining("0").run()
        proxied, more = _measured(stage, agent, "through the proxy")
        failed = lost + more
    for kind, at_most in AT_MOST.items():
        result.series += [direct[kind], proxied[kind]]
        result.bounds.append(ratio(f"{kind}: Envoy's time, proxy / direct", at_most, proxied[kind], direct[kind]))
    result.bounds.append(Bound("failed requests", 0, failed))
    return result


def _measured(stage: Stage, agent: Peer, way: str) -> tuple[Mapping[str, Series], int]:
    """Return Envoy's processor time for one of each kind, and the failed requests."""
    series, failed = {}, 0
    for kind, (arguments, counted, unit_size, unit) in _KINDS.items():
        drive = partial(agent.ask, "drive", *arguments)
        drive("--seconds", "0.3")  # fills caches
        values = []
        for _ in range(stage.runs or RUNS):
            quiet(2)
            before = _busy(stage)
            driven = drive("--seconds", str(SECONDS)).last
            values.append((_busy(stage) - before) * unit_size / driven[counted])
            failed += driven["failed"]
        series[kind] = Series(f"{kind}, {way}", tuple(values), unit)
    return series, failed


def _busy(stage: Stage) -> float:
    """Return how many seconds of processor time Envoy has had (proc_pid_stat(5))."""
    fields = (
        (program(stage.docker, stage.firewall.container("envoy")) / "stat").read_text().rpartition(")")[2].split()
    )
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _squid(stage: Stage) -> Iterator[str]:
    """Run Squid in the network of a container on the egress network, and yield its address."""
    network = f"{stage.firewall.project}-egress"
    place = stage.peers.start("wait", network=network)
    config = stage.firewall.folder / "squid.conf"
    config.write_text(_CONFIG.format(port=PORT, folder=stage.firewall.folder))
    process = stage.docker.inspect_container(place.container)["State"]["Pid"]
    inside = f"{machine_root(stage.firewall.host)}/proc/{process}/ns/net"
    command = ["nsenter", f"--net={inside}", "squid", "-N", "-f", str(config)]
    with subprocess.Popen(command, env={**os.environ, "PATH": PATH}, stderr=subprocess.DEVNULL) as running:
        try:
            address = place.address(network)
            asking = stage.peers.start("wait", network=network)
            until(lambda: asking.ask("probe-tcp", f"{address}:{PORT}").ok)
            yield address
        finally:
            running.terminate()
            with suppress(subprocess.TimeoutExpired):
                running.wait(60)
