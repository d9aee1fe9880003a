"""Agents on a real engine: which are confined, and what a watcher does about open ones."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from docker import APIClient

from devkit.firewall import Firewall
from devkit.peers import Peers
from devkit.waiting import until
from devkit.watching import watching


@pytest.fixture
def start(shared: Firewall, docker: APIClient, peers: Peers) -> Callable[..., str]:
    """Start an agent with further options of the engine's API."""
    how = shared.status()["agent"]

    def started(**options: Any) -> str:  # noqa: ANN401 - as the engine's
        usual: Mapping[str, Any] = {"network_mode": how["network"], "dns": [how["dns"]], "cap_drop": ["NET_RAW"]}
        config = docker.create_host_config(**{**usual, **options})
        agent = docker.create_container(peers.image, ["/peer", "wait"], host_config=config)["Id"]
        peers.adopt(agent)
        docker.start(agent)
        return str(agent)

    return started


def reasons(firewall: Firewall) -> dict[str, tuple[str, list[str]]]:
    """Return the state of each agent and the codes of its reasons, by id."""
    return {
        each["id"]: (each["state"], [reason["code"] for reason in each["reasons"]])
        for each in firewall.status()["agents"]
    }


def test_whoever_shares_something_of_a_sibling_is_open(
    shared: Firewall, docker: APIClient, start: Callable[..., str]
) -> None:
    """Sharing network, processes, files or clock, even indirectly, or joining later, is reported as a bypass."""
    agent = start()
    joined = start(network_mode=f"container:{agent}", dns=None, pid_mode="host")
    wanderer = start()
    docker.connect_container_to_network(wanderer, f"{shared.project}-egress")
    assert shared.call("drift").code == 1
    assert shared.current()
    envoy = f"{shared.project}-envoy"
    processes = start(pid_mode=f"container:{envoy}")
    friend = start(pid_mode=f"container:{docker.inspect_container(agent)['Name'].removeprefix('/')}")
    second = start(pid_mode=f"container:{processes}")
    files = start(volumes_from=[f"{envoy}:ro"])
    elsewhere = start(volumes_from=[files], network_mode="none", dns=None)
    clock = start(cap_add=["SYS_TIME"])
    inside = start(network_mode=f"container:{envoy}", dns=None)
    logging = start(log_config={"type": "gelf", "config": {"gelf-address": "udp://127.0.0.1:12201"}})
    assert reasons(shared) == {
        agent: ("fenced", []),
        joined: ("open", ["host-pid"]),
        wanderer: ("open", ["network"]),
        friend: ("fenced", []),
        processes: ("open", ["sibling-processes"]),
        second: ("open", ["sibling-processes"]),
        files: ("open", ["sibling-files"]),
        elsewhere: ("open", ["sibling-files"]),
        clock: ("open", ["capability"]),
        logging: ("weak", ["log"]),
        inside: ("open", ["sibling-network"]),
    }


def test_a_watcher_takes_an_open_agent_off_the_network(
    shared: Firewall,
    docker: APIClient,
    start: Callable[..., str],
) -> None:
    """Within seconds, the watcher acts on the open agent and on no other."""
    fine = start()
    with watching(shared, "--on-open", "detach", "--interval", "60s") as watched:
        loose = start(cap_add=["NET_ADMIN"])
        found = until(lambda: next((each for each in watched.records if each["event"] == "agent_open"), None))
        assert (found["id"], found["action"], found["reasons"][0]["code"]) == (loose, "detach", "capability")
        until(lambda: watched.decisions[-1]["verdict"] == "current")
        assert watched.stop() == 0
    attached = docker.inspect_network(f"{shared.project}-net")["Containers"]
    assert fine in attached
    assert loose not in attached
    assert docker.inspect_container(loose)["State"]["Running"]
