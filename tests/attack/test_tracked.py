"""The host's connection table, which an agent must not fill with traffic to its neighbours."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from clawker_fw.diagnose.diagnosis import untracked
from devkit.engines import PrivateEngine, private_engine
from devkit.firewall import RULES, Firewall
from devkit.hellos import client_hello
from devkit.host import client
from devkit.peers import Peer, Peers

BRIDGED = "net.bridge.bridge-nf-call-iptables"
CONNECTIONS = 200
_FEW = 20
"""Connections that an engine and its containers may have started meanwhile."""


@pytest.fixture(scope="module")
def engine(needs_engine: Callable[..., None]) -> Iterator[PrivateEngine]:
    """An engine with its own network namespace."""
    needs_engine()
    with private_engine() as started:
        yield started


@pytest.fixture(scope="module")
def agent(engine: PrivateEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Peer, Firewall]]:
    """An agent without any capability, and its stack."""
    with closing(client(engine.host)) as docker:
        firewall = Firewall(engine.host, f"test{secrets.token_hex(3)}", tmp_path_factory.mktemp("tracked"))
        firewall.write(*RULES, limits={"connections_per_second": 100_000})
        firewall.run()
        yield firewall.agent(Peers(docker)), firewall


def _begun(engine: PrivateEngine, attacker: Peer, envoy: str) -> int:
    """Return how many more connections the host tracks after the agent has opened and closed many."""

    def count() -> int:
        return int(engine.run_in_network(["sysctl", "-n", "net.netfilter.nf_conntrack_count"]).stdout)

    before = count()
    hello = ("--hex", client_hello(b"refused.test").hex(), "--count", "20", "--seconds", "2")
    result = attacker.ask("siege", f"{envoy}:443", *hello).last
    assert result["opened"] > CONNECTIONS, result
    return count() - before


def test_what_is_bridged_is_not_tracked(engine: PrivateEngine, agent: tuple[Peer, Firewall]) -> None:
    """The host tracks no bridged traffic unless br_netfilter is on; then the command of `doctor` stops that."""
    attacker, firewall = agent
    status = firewall.status()
    envoy = status["siblings"][0]["address"]
    with closing(client(engine.host)) as docker:
        network = docker.inspect_network(status["agent"]["network"])["Id"]
    engine.run_in_network(["sysctl", "-w", f"{BRIDGED}=0"])
    assert _begun(engine, attacker, envoy) < _FEW
    engine.run_in_network(["sysctl", "-w", f"{BRIDGED}=1"])
    assert _begun(engine, attacker, envoy) >= CONNECTIONS  # the control: this would fill the table
    engine.run_in_network(untracked(f"br-{network[:12]}").split())
    assert _begun(engine, attacker, envoy) < _FEW
    assert firewall.current()
