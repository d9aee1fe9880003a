"""Verdicts on a real engine are never based on incomplete observations, and forged answers have no effect."""

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from devkit.firewall import Firewall
from devkit.hand import Hand
from devkit.peers import Peers
from devkit.waiting import until


@pytest.fixture
def up(kept: Firewall) -> Firewall:
    """A stack that is up and current, and that each test leaves so."""
    return kept


SUSPENDED = """
import dataclasses, os, signal
from clawker_fw.reconcile import converge, steps
perform = converge.apply
def suspending(engine, plan, built, context):
    def reported(progress, on_progress=context.on_progress):
        if isinstance(progress.step, steps.Verify) and not progress.share:
            os.kill(os.getpid(), signal.SIGSTOP)
        on_progress(progress)
    perform(engine, plan, built, dataclasses.replace(context, on_progress=reported))
converge.apply = suspending
from clawker_fw.__main__ import main
main()
"""
"""A run that suspends itself after creating its containers, before they are proven."""


SUSPENDED_WITHIN = 90
"""Seconds for a first run, in which a new engine has to load the images."""


def _is_stopped(process: "subprocess.Popen[str]") -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_run_that_was_suspended_undoes_nothing(firewall: Firewall, peers: Peers, docker: APIClient) -> None:
    """Another run adopts its containers and finishes; when it resumes, it does not touch what serves."""
    first = firewall.start_raw([sys.executable, "-c", SUSPENDED, *firewall.command("run")[3:]])
    try:
        until(lambda: _is_stopped(first), SUSPENDED_WITHIN)
        made = {name: docker.inspect_container(firewall.container(name))["Id"] for name in ("envoy", "coredns")}
        firewall.run("--lock-wait", "60")
        assert firewall.current()
        firewall.origin(peers, ["a.test", "h.test"])
        agent = firewall.agent(peers)
        assert agent.get("https://a.test/").ok

        def goes_on() -> bool:
            first.send_signal(signal.SIGCONT)  # once for each of the two threads that verify
            return first.poll() is not None

        until(goes_on)
    finally:
        first.kill()
        _, err = first.communicate(timeout=60)
    assert first.returncode == 6, err
    assert "error[lock-lost]" in err
    for name, identity in made.items():
        assert docker.inspect_container(firewall.container(name))["Id"] == identity
    assert firewall.drift().expect().json["failed_attempt"] is None
    assert agent.get("https://a.test/").ok


def _warned(firewall: Firewall) -> dict[str, Any] | None:
    """Return the answer of `drift`, which must be `current`, if it has a warning; a busy host may miss one."""
    drift: dict[str, Any] = firewall.drift().expect().json
    return drift if drift["warnings"] else None


def test_a_spoofer_can_accuse_nobody(up: Firewall, peers: Peers, docker: APIClient) -> None:
    """An agent that forges ARP answers in a neighbour's name causes a warning, and nothing is done to anyone."""
    up.origin(peers, ["a.test", "h.test"])
    victim = up.agent(peers)
    network = f"{up.project}-net"
    hardware = docker.inspect_container(victim.container)["NetworkSettings"]["Networks"][network]["MacAddress"]
    hand = Hand(docker, up, peers)
    before = {name: docker.inspect_container(up.container(name))["Id"] for name in ("envoy", "coredns")}
    for address in (hand.service(), hand.address("coredns"), hand.address("envoy")):
        spoofer = up.agent(peers, "spoof", address, hardware)
        until(lambda: any(line["event"] == "ready" for line in spoofer.said()))  # noqa: B023 - called at once
        drift = until(lambda: _warned(up))
        assert any(line["event"] == "answered" for line in spoofer.said())
        assert (drift["verdict"], len(drift["warnings"])) == ("current", 1)
        assert address in drift["warnings"][0]["message"]
        assert hardware in drift["warnings"][0]["message"]
        assert up.run().json["steps"] == []
        spoofer.remove()
    assert {name: docker.inspect_container(up.container(name))["Id"] for name in before} == before
    assert victim.get("https://a.test/").ok
    # Whom the engine itself has given the address is taken off, and nobody else.
    stranger = peers.start("wait", network=network, address=hand.service())
    field = f"address.{hand.service()}"
    assert ("coredns", "state", field, "tamper", "detach") in up.drift().findings
    up.run()
    assert network not in docker.inspect_container(stranger.container)["NetworkSettings"]["Networks"]
    assert victim.get("https://a.test/").ok


def test_a_look_while_containers_come_and_go(up: Firewall, docker: APIClient) -> None:
    """A stack with other rules than the desired ones is never called current, however often it restarts."""
    before = up.settings.read_text()
    up.write({"dst": "other.test"})
    over = threading.Event()

    def restart() -> None:
        while not over.is_set():
            docker.restart(up.container("envoy"), timeout=0)

    restarting = threading.Thread(target=restart)
    restarting.start()
    try:
        with ThreadPoolExecutor(4) as pool:  # at the same time, so that there are fewer restarts
            for drift in pool.map(lambda _: up.drift(), range(4)):
                envoy = drift.json["siblings"][0]
                assert envoy["verdict"] != "current", envoy
    finally:
        over.set()
        restarting.join()
    up.draining("1").run()
    assert up.current()
    up.settings.write_text(before)
    up.call("reload").expect()
