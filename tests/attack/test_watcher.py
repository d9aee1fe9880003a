"""A watcher is no weapon: nothing that an agent sends makes it act, or log much."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from docker import APIClient

from devkit.attacks.floods import FLOODS, GONE, SILENT, SLOW, TARGET
from devkit.firewall import SIBLINGS, Firewall
from devkit.peers import peers
from devkit.waiting import until
from devkit.watching import watching

SECONDS = 15
INTERVAL = 2
MANY = 30
RULES = [
    {"dst": name, "proto": protocol, "allow_private": True}
    for name in (TARGET, f".{GONE}", f".{SLOW}", f".{SILENT}", "a.test")
    for protocol in ("http", "https")
]


def _states(docker: APIClient, firewall: Firewall) -> dict[str, Any]:
    """Return state that a replacement, a restart, an unhealthy container or a detached agent would change."""
    found: dict[str, Any] = {"attached": set(docker.inspect_network(f"{firewall.project}-net")["Containers"])}
    for sibling in SIBLINGS:
        made = docker.inspect_container(firewall.container(sibling))
        found[sibling] = (made["Id"], made["State"]["StartedAt"], made["State"]["Health"]["Status"])
    return found


def test_nothing_that_an_agent_sends_makes_a_watcher_act(
    host: str, docker: APIClient, clean_project: str, tmp_path: Path
) -> None:
    """All floods at once make it replace, restart and detach nothing, and log one record per comparison."""
    firewall = Firewall(host, clean_project, tmp_path)
    firewall.write(*RULES)
    firewall.run()
    status = firewall.status()
    network, dns = status["agent"]["network"], status["agent"]["dns"]
    (addresses,) = docker.inspect_network(network)["IPAM"]["Config"]
    targets = {"envoy": status["siblings"][0]["address"], "resolver": dns, "network": addresses["Subnet"]}
    floods = [each for each in FLOODS if not (each.control or each.capabilities)]
    with (
        peers(docker) as started,
        watching(firewall, "--heal", "all", "--interval", f"{INTERVAL}s") as watcher,
        ThreadPoolExecutor(len(floods)) as pool,
    ):
        firewall.origin(started, [TARGET, "a.test"])
        agent = started.start("wait", network=network, dns=dns, dropped=["ALL"], processor=0)
        neighbour = started.agent(network, dns)
        until(lambda: neighbour.get("https://a.test/").ok)
        until(lambda: all(_states(docker, firewall)[each][-1] == "healthy" for each in SIBLINGS))
        before, known = _states(docker, firewall), len(watcher.records)
        running = [pool.submit(agent.ask, *flood.against(SECONDS, **targets)) for flood in floods]
        served = []
        while not all(each.done() for each in running):
            served.append(neighbour.get("https://a.test/").ok)
            time.sleep(0.1)
        seen = watcher.records[known:]
        told = [each for each in seen if each["event"] == "agent_presence"]
        records = [each for each in seen if each not in told]
        sent = [each.result().last for each in running]
        assert all((each["attempts"] if "attempts" in each else each["sent"]) > MANY for each in sent), sent
        assert len(served) > SECONDS
        assert all(served)
        assert _states(docker, firewall) == before
        assert {(each["event"], each["decision"], each["verdict"]) for each in records} == {
            ("watch_decision", "nothing", "current")
        }
        assert len(records) <= 2 * SECONDS / INTERVAL
        assert len(told) <= 2, "each agent is told of once, when it comes"
        # The control: it acts on real tampering.
        decisions = len(watcher.decisions)
        docker.kill(firewall.container("envoy"))
        watcher.healed(since=decisions)
    assert firewall.current()
