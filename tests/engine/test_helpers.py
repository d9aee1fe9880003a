"""Helper processes beside Envoy and CoreDNS are restarted when they die, without other effects."""

import os
import signal

import pytest
from docker import APIClient

from devkit.firewall import Firewall
from devkit.hand import FORWARDER, RECORDER, Hand
from devkit.peers import Peer, Peers
from devkit.processes import program
from devkit.waiting import until
from tests.engine.test_denials import shown

TIMES = 3
"""Restarts of a helper that are reported without counting as a difference."""

NAMES = tuple(f"n{number}.s.test" for number in range(TIMES + 1))


@pytest.fixture
def hand(docker: APIClient, firewall: Firewall, peers: Peers) -> Hand:
    """A user who kills processes of a stack with a subtree rule, below which every lookup is new."""
    firewall.write({"dst": ".s.test", "allow_private": True})
    firewall.run()
    firewall.origin(peers, NAMES)
    return Hand(docker, firewall, peers)


@pytest.fixture
def agent(hand: Hand) -> Peer:
    found = hand.firewall.agent(hand.peers)
    until(lambda: found.get(f"https://{NAMES[0]}/").ok)
    return found


def test_a_helper_that_dies_is_started_again(hand: Hand, agent: Peer) -> None:
    """Names resolve and refusals are recorded again; the stack stays current and reports the restarts."""
    before = [hand.inspect(sibling)["State"]["StartedAt"] for sibling in ("envoy", "coredns")]
    for time, name in enumerate(NAMES[1:]):
        assert hand.kill("envoy", FORWARDER)
        until(lambda: agent.get(f"https://{name}/").ok)  # noqa: B023 - asked at once
        port = 7001 + time
        assert hand.kill("envoy", RECORDER)

        def recorded() -> bool:
            agent.get(f"https://{NAMES[0]}:{port}/")  # noqa: B023 - asked at once
            return any(each["port"] == port for each in shown(hand.firewall).values())  # noqa: B023

        until(recorded)
    drift = hand.firewall.drift().expect().json
    assert [hand.inspect(sibling)["State"]["StartedAt"] for sibling in ("envoy", "coredns")] == before
    told = [each["message"] for each in drift["warnings"] if each["code"] == "helper-restarted"]
    assert [words for words in told if "forwarder of lookups in envoy has ended 3 times" in words]
    assert [words for words in told if "recorder of refusals in envoy has ended 3 times" in words]
    assert all("signal: killed" in words for words in told)


def test_an_envoy_that_looks_up_no_name_is_replaced(hand: Hand, agent: Peer) -> None:
    """Whatever stops its lookups, Envoy is unhealthy, `drift` says why, and `run` replaces it."""
    hand.firewall.drift().expect()
    assert hand.kill("envoy", FORWARDER, "STOP")
    until(lambda: hand.inspect("envoy")["State"]["Health"]["Status"] == "unhealthy", 60)
    found = hand.firewall.drift().expect(1)
    assert found.findings == {("envoy", "state", "health", "tamper", "replace")}
    assert "resolves no names" in found.out
    hand.firewall.draining("1").run()
    hand.firewall.drift().expect()
    until(lambda: agent.get(f"https://{NAMES[1]}/").ok)


def test_a_container_ends_with_its_supervisor(hand: Hand, agent: Peer) -> None:
    """A stop reaches Envoy. Docker restarts a container whose supervisor is killed. A hung one is replaced."""
    hand.docker.stop(hand.name("envoy"), timeout=60)
    assert hand.inspect("envoy")["State"]["ExitCode"] == 0  # Docker did not kill it
    hand.docker.start(hand.name("envoy"))
    until(hand.firewall.current)
    before = hand.inspect("envoy")["State"]["StartedAt"]
    _signal_supervisor(hand, signal.SIGKILL)
    until(lambda: hand.inspect("envoy")["State"]["StartedAt"] > before)
    until(lambda: agent.get(f"https://{NAMES[0]}/").ok)
    until(hand.firewall.current)
    _signal_supervisor(hand, signal.SIGSTOP)
    until(lambda: hand.inspect("envoy")["State"]["Health"]["Status"] == "unhealthy", 60)
    found = hand.firewall.drift().expect(1)
    assert {field for _, _, field, *_ in found.findings} == {"processes", "program"}
    hand.firewall.draining("1").run()
    hand.firewall.drift().expect()


def _signal_supervisor(hand: Hand, number: int) -> None:
    status = (program(hand.docker, hand.name("envoy")) / "status").read_text()
    os.kill(int(status.partition("PPid:")[2].split()[0]), number)
