"""Replacements under load: no request fails, and open connections end by themselves."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker import APIClient

from devkit import stacks
from devkit.engines import PrivateEngine
from devkit.firewall import Firewall, upgraded
from devkit.host import client
from devkit.peers import Peer, Peers
from devkit.peers import peers as peers_of
from devkit.waiting import until


def loading(firewall: Firewall, peers: Peers, rate: int) -> Peer:
    """Start so many requests per second in an open loop, and return once some have succeeded."""
    agent = firewall.agent(
        peers, "load", "--rate", str(rate), "--seconds", "0", "https://a.test/", "http://h.test/"
    )
    until(lambda: any(line["done"] for line in agent.said() if line["event"] == "progress"))
    return agent


@pytest.mark.alone
def test_both_siblings_are_replaced_without_a_failed_request(
    firewall: Firewall, peers: Peers, tmp_path: Path, docker: APIClient
) -> None:
    """Both siblings are upgraded and downgraded under an open loop of 200 requests per second."""
    firewall.run()
    firewall.origin(peers, ["a.test", "h.test"])
    release = stacks.copied_release(tmp_path / "newer")
    stacks.change_bootstrap(release)
    stacks.change_corefile(release)
    newer = upgraded(firewall, tmp_path / "newer")
    agent = loading(firewall, peers, 200)
    for other in (newer, firewall, newer):
        before = {name: docker.inspect_container(firewall.container(name))["Id"] for name in ("envoy", "coredns")}
        other.run()
        assert all(docker.inspect_container(firewall.container(name))["Id"] != old for name, old in before.items())
    summary = agent.stop().last
    assert summary["failed"] == 0, json.dumps(summary)
    assert summary["sent"] > 200


@pytest.fixture
def up(kept: Firewall) -> Firewall:
    """A stack that is up and current, and that each test leaves so."""
    return kept


@pytest.fixture(scope="module")
def origin(shared: Firewall, module_peers: Peers) -> Peer:
    """An origin with the allowed names."""
    return shared.origin(module_peers, ["a.test", "h.test"])


@pytest.mark.usefixtures("origin")
def test_rules_change_under_load(up: Firewall, peers: Peers) -> None:
    """Adding and removing a rule does not disturb requests for others."""
    before = up.settings.read_text()
    agent = loading(up, peers, 50)
    for number in range(5):
        up.write(
            {"dst": "a.test", "allow_private": True},
            {"dst": "h.test", "proto": "http", "allow_private": True},
            {"dst": f"new{number}.test", "port": 8000 + number},
        )
        up.call("reload").expect()
    status = up.status()
    assert (status["live_rules"], status["other_rules"]) == (3, False)
    up.settings.write_text(before)
    assert up.status()["other_rules"] is True
    up.call("reload").expect()
    assert up.status()["other_rules"] is False
    summary = agent.stop().last
    assert summary["failed"] == 0, json.dumps(summary)


@pytest.mark.usefixtures("origin")
def test_open_connections_live_on_until_they_end(up: Firewall, peers: Peers) -> None:
    """A long download and a kept-alive TLS connection survive the replacement, and the run waits for them."""
    download = up.agent(peers, "download", "https://a.test/bytes?seconds=8&rate=200000")
    secure = up.agent(peers, "keepalive", "https://a.test/", "--seconds", "8")
    plain = up.agent(peers, "keepalive", "http://h.test/", "--seconds", "8")
    until(lambda: secure.said() and plain.said())
    outcome = up.call("run", "--force-recreate", "--drain-timeout", "30s").expect()
    assert re.search(r"connections? cut", outcome.err) is None, outcome.err
    assert download.finish().last["ok"]
    kept = secure.finish().last
    assert (kept["failed"], kept["connections"]) == (0, 1)
    assert plain.finish().last["failed"] == 0  # Envoy tells it to come again, between two requests


@pytest.mark.usefixtures("origin")
def test_a_drain_ends_at_its_timeout(up: Firewall, peers: Peers, docker: APIClient) -> None:
    """A connection that does not end is cut after `--drain-timeout`, and the answer says so."""
    download = up.agent(peers, "download", "https://a.test/bytes?seconds=60&rate=10000")
    old = docker.inspect_container(up.container("envoy"))["Id"]
    outcome = up.run("--force-recreate", "--drain-timeout", "2s")
    assert [each["note"] for each in outcome.json["notes"]] == ["1 connection cut"]
    assert not download.finish().last["ok"]
    assert old not in {each["Id"] for each in docker.containers(all=True)}


@pytest.mark.usefixtures("origin")
@pytest.mark.parametrize("siblings", [["envoy"], ["coredns"], ["envoy", "coredns"]])
def test_after_a_replacement_restarts_need_nobody(
    siblings: list[str], up: Firewall, peers: Peers, docker: APIClient
) -> None:
    """After `docker restart` of either sibling or both, everything recovers, including the claimed address."""
    agent = up.agent(peers)
    up.run("--force-recreate", "--drain-timeout", "1s")
    for sibling in siblings:
        docker.restart(up.container(sibling), timeout=5)
    until(lambda: agent.get("https://a.test/").ok and agent.get("http://h.test/").ok)
    until(up.current)
    assert up.run().json["changed"] is False


def test_leftover_volumes_and_containers(up: Firewall, docker: APIClient) -> None:
    """A replacement removes the old containers with their volumes, and leaves two containers."""
    volumes = {volume["Name"] for volume in docker.volumes()["Volumes"] or []}
    up.run("--force-recreate", "--drain-timeout", "0")
    after = {volume["Name"] for volume in docker.volumes()["Volumes"] or []}
    assert len(after) == len(volumes)
    names = [name for each in docker.containers(all=True) for name in each["Names"] if up.project in name]
    assert sorted(names) == [f"/{up.project}-coredns", f"/{up.project}-envoy"]


@dataclass(frozen=True)
class Engine:
    """An engine that may be restarted and killed, a stack on it, an origin and an agent."""

    private: PrivateEngine
    sdk: APIClient
    firewall: Firewall
    origin: Peer
    agent: Peer


@pytest.fixture(scope="module")
def engine(private: PrivateEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine with a stack. Each test leaves all of it up."""
    firewall = Firewall(private.host, "clawker", tmp_path_factory.mktemp("engine"))
    firewall.write({"dst": "a.test", "allow_private": True}, {"dst": "h.test", "proto": "http"})
    firewall.run()
    with closing(client(private.host)) as sdk, peers_of(sdk) as around:
        yield Engine(private, sdk, firewall, firewall.origin(around, ["a.test"]), firewall.agent(around))


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_an_engine_restart_needs_nobody(how: str, engine: Engine) -> None:
    """Both siblings recover by themselves, agents are served, and nothing has drifted."""
    firewall, agent = engine.firewall, engine.agent
    assert agent.get("https://a.test/").ok
    if how == "restart":
        engine.private.restart()
    else:
        engine.private.kill()
        engine.private.start()
    for peer in (engine.origin, agent):
        if engine.sdk.inspect_container(peer.container)["State"]["Status"] != "running":
            engine.sdk.start(peer.container)
    until(lambda: agent.get("https://a.test/").ok, seconds=60)
    until(firewall.current)
    assert firewall.run().json["changed"] is False
