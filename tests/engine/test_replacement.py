"""Replacements under load: no request fails, and open connections end normally."""

import json
import re

import pytest
from docker import APIClient

from devkit.firewall import Firewall
from devkit.peers import KEEPALIVE, KEPT_LOADS, WAITING, Peer, Peers
from devkit.waiting import until

SENT_AGAIN_MILLISECONDS = 1000
"""TCP retries a connection after a second (RFC 6298, section 2), and a lost DNS query takes 4 s."""


def loading(firewall: Firewall, peers: Peers, rate: int) -> Peer:
    """Start this many requests per second in an open loop, and return once some have succeeded."""
    agent = firewall.agent(
        peers, "load", "--rate", str(rate), "--seconds", "0", "https://a.test/", "http://h.test/"
    )
    until(lambda: any(line["done"] for line in agent.said() if line["event"] == "progress"))
    return agent


@pytest.fixture(scope="module")
def origin(shared: Firewall, module_peers: Peers) -> Peer:
    return shared.origin(module_peers, ["a.test", "h.test"])


@pytest.mark.usefixtures("origin")
def test_rules_change_under_load(kept: Firewall, peers: Peers) -> None:
    """Adding and removing a rule does not disturb other rules' requests."""
    before = kept.settings.read_text()
    agent = loading(kept, peers, 50)
    for number in range(2):
        kept.write(
            {"dst": "a.test", "allow_private": True},
            {"dst": "h.test", "proto": "http", "allow_private": True},
            {"dst": f"new{number}.test", "port": 8000 + number},
        )
        kept.call("reload").expect()
    status = kept.status()
    assert (status["live_rules"], status["other_rules"]) == (3, False)
    kept.settings.write_text(before)
    assert kept.status()["other_rules"] is True
    kept.call("reload").expect()
    assert kept.status()["other_rules"] is False
    summary = agent.stop().last
    assert summary["failed"] == 0, json.dumps(summary)


@pytest.mark.usefixtures("origin")
def test_open_connections_live_on_until_they_end(kept: Firewall, peers: Peers) -> None:
    """A long download and a kept-alive TLS connection survive the replacement, and the run waits for them."""
    download = kept.agent(peers, "get", "https://a.test/bytes?seconds=8&rate=200000", "--timeout", "1m")
    secure = kept.agent(peers, *KEEPALIVE, "https://a.test/", "--seconds", "8")
    plain = kept.agent(peers, *KEEPALIVE, "http://h.test/", "--seconds", "8")
    until(lambda: secure.said() and plain.said())
    outcome = kept.draining("30s").call("run", "--force-recreate").expect()
    assert re.search(r"connections? cut", outcome.err) is None, outcome.err
    assert download.finish().last["ok"]
    summary = secure.finish().last
    assert (summary["failed"], summary["connections"]) == (0, 1)
    assert plain.finish().last["failed"] == 0  # Envoy asks it to reconnect between two requests


@pytest.mark.alone  # while others keep the machine busy, requests may fail
@pytest.mark.usefixtures("origin")
def test_kept_connections_end_between_two_requests(kept: Firewall, peers: Peers) -> None:
    """No request fails on a kept-alive connection, however often it is used, and no new one waits for long."""
    agents = [kept.agent(peers, "load", *load, "--seconds", "0", *WAITING) for load in KEPT_LOADS]
    agents.append(loading(kept, peers, 100))
    until(lambda: all(any(line.get("done") for line in agent.said()) for agent in agents))
    outcome = kept.draining("8s").run("--force-recreate")
    summaries = [agent.stop().last for agent in agents]
    assert [each["failed"] for each in summaries] == [0] * len(agents), json.dumps(summaries)
    assert max(summaries[-1][f"longest_{what}_ms"] for what in ("dns", "connect")) < SENT_AGAIN_MILLISECONDS
    assert [each["note"] for each in outcome.json["notes"]] == []


@pytest.mark.usefixtures("origin")
def test_a_drain_ends_at_its_timeout(kept: Firewall, peers: Peers, docker: APIClient) -> None:
    """A connection that does not end is cut after `drain_timeout`, and the answer says so."""
    download = kept.agent(peers, "get", "https://a.test/bytes?seconds=60&rate=10000", "--timeout", "1m")
    old = docker.inspect_container(kept.container("envoy"))["Id"]
    outcome = kept.draining("2s").run("--force-recreate")
    assert [each["note"] for each in outcome.json["notes"]] == ["1 connection cut"]
    assert not download.finish().last["ok"]
    assert old not in {each["Id"] for each in docker.containers(all=True)}
