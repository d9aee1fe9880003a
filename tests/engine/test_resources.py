"""Resource limits of the firewall containers on a real engine."""

from docker import APIClient

from devkit.firewall import Firewall
from devkit.peers import Peers
from devkit.processes import processes

GIB = 1 << 30


def workers(docker: APIClient, container: str) -> int:
    """Return the number of Envoy's worker threads, as counted on the Docker host."""
    threads = (thread for each in processes(docker, container) for thread in (each / "task").iterdir())
    return sum((each / "comm").read_text().startswith("wrk:worker") for each in threads)


def test_what_is_set_is_what_runs(up: Firewall, docker: APIClient, peers: Peers) -> None:
    """Limits are applied, agents are served, the health check passes, and nothing differs afterwards."""
    up.origin(peers, ["h.test"])
    agent = up.agent(peers)
    by_default = up.status()["siblings"]
    assert [each["resources"]["processors"] for each in by_default] == [min(8, docker.info()["NCPU"])] * 2
    resources = {
        "envoy": {"processors": 4, "memory": "1GiB", "connections": 500},
        "coredns": {"processors": 4, "memory": "128MiB", "connections": 100},
    }
    up.write({"dst": "h.test", "proto": "http", "allow_private": True}, resources=resources)
    findings = up.drift().findings
    assert {layer for _, layer, *_ in findings} <= {"hot", "shape", "boot", "live"}
    assert {cause for *_, cause, _ in findings} == {"settings"}
    up.run()
    assert up.current()
    proxy, resolver = up.status()["siblings"]
    assert proxy["resources"] == {"processors": 4, "memory": GIB, "connections": 500}
    assert resolver["resources"] == {"processors": 4, "memory": GIB // 8, "connections": 100}
    container = up.container("envoy")
    assert workers(docker, container) == 4
    limits = docker.inspect_container(container)["HostConfig"]
    assert (limits["Memory"], limits["MemorySwap"]) == (GIB, GIB)  # no swap: a secret could get onto the disk
    assert agent.get("http://h.test/").ok
