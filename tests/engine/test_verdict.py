"""Verdicts on a real engine never come from incomplete observations, forged answers or the client's machine."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from docker import APIClient

from devkit.firewall import Firewall
from devkit.hand import Hand
from devkit.peers import Peers
from devkit.waiting import until

ELSEWHERE = {
    "LANG": "tr_TR.UTF-8",
    "LC_ALL": "POSIX",
    "LANGUAGE": "tr",
    "TZ": "Pacific/Kiritimati",
    "PYTHONHASHSEED": "4711",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "XDG_CACHE_HOME": "/nonexistent",
}


def test_another_client(shared: Firewall) -> None:
    """The desired state depends neither on the client's machine nor on its user's umask."""
    other = replace(shared, variables={**ELSEWHERE, "CLAWKER_FW_DRAIN_TIMEOUT": "0"})
    before = os.umask(0o077)
    try:
        other.run("--force-recreate")
        os.umask(0o000)
        assert shared.drift().expect().findings == set()
    finally:
        os.umask(before)


def _warned(firewall: Firewall, count: int) -> dict[str, Any] | None:
    """Return the answer of `drift`, which must be `current`, if it has its warnings; a busy host may miss one."""
    drift: dict[str, Any] = firewall.drift().expect().json
    return drift if len(drift["warnings"]) == count else None


def test_a_spoofer_can_accuse_nobody(kept: Firewall, peers: Peers, docker: APIClient) -> None:
    """An agent that forges ARP answers in a neighbour's name causes a warning and no action."""
    kept.origin(peers, ["a.test", "h.test"])
    victim = kept.agent(peers)
    network = f"{kept.project}-net"
    hardware = docker.inspect_container(victim.container)["NetworkSettings"]["Networks"][network]["MacAddress"]
    hand = Hand(docker, kept, peers)
    before = {name: docker.inspect_container(kept.container(name))["Id"] for name in ("envoy", "coredns")}
    addresses = (hand.service(), hand.address("coredns"), hand.address("envoy"))
    spoofers = [kept.agent(peers, "spoof", address, hardware) for address in addresses]
    until(lambda: all(any(line["event"] == "ready" for line in each.said()) for each in spoofers))
    drift = until(lambda: _warned(kept, len(addresses)))
    assert all(any(line["event"] == "answered" for line in each.said()) for each in spoofers)
    assert drift["verdict"] == "current"
    messages = sorted(each["message"] for each in drift["warnings"])
    assert all(hardware in message for message in messages)
    assert all(any(address in message for message in messages) for address in addresses)
    assert kept.run().json["steps"] == []
    for spoofer in spoofers:
        spoofer.remove()
    assert {name: docker.inspect_container(kept.container(name))["Id"] for name in before} == before
    assert victim.get("https://a.test/").ok
    # Only the container that has the address from the engine is detached.
    stranger = peers.start("wait", network=network, address=hand.service())
    field = f"address.{hand.service()}"
    assert ("coredns", "state", field, "tamper", "detach") in kept.drift().findings
    kept.run()
    assert network not in docker.inspect_container(stranger.container)["NetworkSettings"]["Networks"]
    assert victim.get("https://a.test/").ok


def test_a_look_while_containers_come_and_go(kept: Firewall, docker: APIClient) -> None:
    """A stack with other rules than desired is never called current, however often it restarts."""
    before = kept.settings.read_text()
    kept.write({"dst": "other.test"})
    over = threading.Event()

    def restart() -> None:
        while not over.is_set():
            docker.restart(kept.container("envoy"), timeout=0)

    restarting = threading.Thread(target=restart)
    restarting.start()
    try:
        with ThreadPoolExecutor(2) as pool:  # at the same time, so that there are fewer restarts
            for drift in pool.map(lambda _: kept.drift(), range(2)):
                envoy = drift.json["siblings"][0]
                assert envoy["verdict"] != "current", envoy
    finally:
        over.set()
        restarting.join()
    kept.draining("1").run()
    assert kept.current()
    kept.settings.write_text(before)
    kept.call("reload").expect()
