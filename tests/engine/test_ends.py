"""Rules expire at their times without any client or watcher."""

import time
from datetime import UTC, datetime

import pytest
from docker import APIClient

from clawker_fw.model.stacks import Sibling
from clawker_fw.rules.until import rfc3339
from devkit.firewall import RULES, Firewall
from devkit.peers import KEEPALIVE, Answer, Peer, Peers
from devkit.waiting import until
from devkit.witness import Witnesses

ORIGIN = ("--http", "80", "--https", "443", "--tell")
AHEAD = 20
"""Seconds until a rule expires: enough to apply it and to see it in effect."""

AT_ONCE = 10.0
"""Seconds after which an expired rule is seen to be out of effect, on a busy machine."""

DRAINED = 8.0
"""Seconds after which an expired rule's connection is cut: Envoy's drain time plus a margin."""


def apply(firewall: Firewall) -> int:
    """Apply rules, some with an expiry, and return its time in seconds since 1970."""
    end = int(time.time()) + AHEAD
    ending = {"allow_private": True, "until": rfc3339(end)}
    firewall.write(*RULES, {"dst": "e.test", **ending}, {"dst": "e.test", "proto": "http", **ending})
    firewall.call("reload").expect()
    return end


@pytest.fixture
def envoy(up: Firewall, docker: APIClient) -> str:
    """Envoy's address for agents, at which they can request a name that no longer resolves."""
    networks = docker.inspect_container(up.container("envoy"))["NetworkSettings"]["Networks"]
    return str(networks[f"{up.project}-net"]["IPAddress"])


def straight(agent: Peer, envoy: str, url: str) -> Answer:
    """Ask Envoy for a URL without the resolver."""
    return agent.get(url, "--connect", envoy)


def test_a_rule_ends_at_its_time(up: Firewall, peers: Peers, envoy: str) -> None:
    """At its expiry, Envoy refuses new connections and ends open ones; the stack is current before and after."""
    origin, agent = up.origin(peers, ["a.test", "h.test", "e.test"], *ORIGIN), up.agent(peers)
    witnesses = Witnesses([origin])
    end = apply(up)
    for url in ("https://e.test/", "http://e.test/"):
        assert straight(agent, envoy, url).ok
        assert agent.get(url).ok
    kept = up.agent(peers, *KEEPALIVE, "https://e.test/", "--seconds", "0")
    until(lambda: [each for each in origin.said() if each.get("host") == "e.test"])
    assert up.current()
    assert time.time() < end, "the rule has ended before all was seen that goes before"

    until(lambda: not straight(agent, envoy, "https://e.test/").ok, AHEAD + 10)
    assert end <= time.time() <= end + AT_ONCE
    until(up.current)
    assert agent.get("https://e.test/").kind == "dns-nxdomain"
    until(lambda: time.time() > end + DRAINED, DRAINED + 5)
    for url in ("https://e.test/", "http://e.test/"):
        witnesses.refused(lambda: straight(agent, envoy, url), agent, "https://a.test")  # noqa: B023 - asked at once
    assert kept.stop().last["failed"]

    refused = up.call("denials", "--format", "json").expect().json["denials"]
    reasons = {each["reason"] for each in refused if each["protocol"] == "dns" and each["name"] == "e.test"}
    assert reasons == {"expired"}
    status = up.status()
    assert (status["verdict"], status["live_rules"], status["other_rules"]) == ("current", len(RULES), False)


def test_no_start_brings_back_a_rule_that_has_ended(
    up: Firewall, peers: Peers, docker: APIClient, envoy: str
) -> None:
    """Both containers are stopped before the expiry and started after it: the rule stays out of effect."""
    origin, agent = up.origin(peers, ["a.test", "h.test", "e.test"], *ORIGIN), up.agent(peers)
    end = apply(up)
    assert straight(agent, envoy, "https://e.test/").ok
    for sibling in Sibling:
        docker.stop(up.container(sibling), timeout=1)
    assert time.time() < end, "the rule has ended before the siblings were stopped"
    until(lambda: datetime.now(UTC).timestamp() > end, AHEAD + 5)
    for sibling in Sibling:
        docker.start(up.container(sibling))
    until(lambda: agent.get("https://a.test/").ok)
    Witnesses([origin]).refused(lambda: straight(agent, envoy, "https://e.test/"), agent, "https://a.test")
    assert agent.get("https://e.test/").kind == "dns-nxdomain"
    until(up.current)
