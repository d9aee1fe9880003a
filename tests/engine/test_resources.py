"""What the siblings may use of the machine, on a real engine: what is set is what runs, and can be read back."""

from docker import APIClient

from devkit.firewall import Firewall
from devkit.peers import Peers
from devkit.processes import processes

GIB = 1 << 30


def workers(docker: APIClient, container: str) -> int:
    """Return the number of Envoy's threads that forward, as the engine's machine counts them."""
    threads = (thread for each in processes(docker, container) for thread in (each / "task").iterdir())
    return sum((each / "comm").read_text().startswith("wrk:worker") for each in threads)


def test_what_is_set_is_what_runs(up: Firewall, docker: APIClient, peers: Peers) -> None:
    """However many workers, agents are served, the health check is satisfied, and nothing differs afterwards.

    Eight of them would need more open files than engines may allow that can't raise their own limit, as here;
    `tests/programs/test_workers.py` has so many.
    """
    up.origin(peers, ["h.test"])
    agent = up.agent(peers)
    by_default = up.status()["siblings"]
    assert [each["resources"]["processors"] for each in by_default] == [min(8, docker.info()["NCPU"])] * 2
    for processors in (1, 4):
        resources = {
            "envoy": {"processors": processors, "memory": "1GiB", "connections": 500},
            "coredns": {"processors": processors, "memory": "128MiB", "connections": 100},
        }
        up.write({"dst": "h.test", "proto": "http", "allow_private": True}, resources=resources)
        assert {(layer, cause) for _, layer, _, cause, _ in up.drift().findings if layer != "hot"} <= {
            ("shape", "settings"),
            ("boot", "settings"),
            ("live", "settings"),
        }
        up.run()
        assert up.current()
        proxy, resolver = up.status()["siblings"]
        assert proxy["resources"] == {"processors": processors, "memory": GIB, "connections": 500}
        assert resolver["resources"] == {"processors": processors, "memory": GIB // 8, "connections": 100}
        container = up.container("envoy")
        assert workers(docker, container) == processors
        limits = docker.inspect_container(container)["HostConfig"]
        assert (limits["Memory"], limits["MemorySwap"]) == (
            GIB,
            GIB,
        )  # no swap, where a secret would lie on the disk
        assert agent.get("http://h.test/").ok
