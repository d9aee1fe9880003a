"""The page on which agents read their refusals, on a real stack."""

import json
from typing import Any

from clawker_fw.rules.own_page import PAGE
from devkit.firewall import Firewall
from devkit.peers import Peer, Peers
from devkit.waiting import until
from tests.engine.test_denials import refused

_WITHIN = 0.25
"""Seconds between two pages: an agent gets five per second, and a few more at once."""


def page(agent: Peer) -> dict[str, Any]:
    """Return the page as an agent reads it."""
    answer = agent.get(f"http://{PAGE}/?format=json").last
    assert answer["status"] == 200, answer
    found: dict[str, Any] = json.loads(answer["body"])
    return found


def names(found: dict[str, Any]) -> set[tuple[str, str, str | None, int]]:
    """Return the refused names on a page, and who refused them."""
    return {(each["by"], each["protocol"], each.get("name"), each["port"]) for each in found["refusals"]}


def is_refused(agent: Peer) -> set[tuple[str, str, str | None, int]]:
    """Have requests refused over DNS, TLS, HTTP and at a closed port, and return the expected entries."""
    refused(agent)
    return {
        ("coredns", "dns", "denied.test", 53),
        ("envoy", "tls", "h.test", 443),
        ("envoy", "http", "a.test", 80),
        ("envoy", "tcp", None, 8443),
    }


def test_an_agent_reads_its_own_refusals_alone(shared: Firewall, module_peers: Peers) -> None:
    """One agent's refusals, by Envoy or CoreDNS, are only on its page, with reason and command."""
    agent, other = shared.agent(module_peers), shared.agent(module_peers)
    assert other.get("https://others.test/").kind == "dns-nxdomain"
    wanted = is_refused(agent)
    until(lambda: names(page(agent)) >= wanted, every=_WITHIN)
    found = page(agent)
    assert names(found) == wanted
    assert (found["agent"], found["unreadable"], set(found["since"])) == (
        agent.address(shared.status()["agent"]["network"]),
        [],
        {"coredns", "envoy"},
    )
    commands = {each["protocol"]: each.get("command") for each in found["refusals"]}
    assert commands == {
        "dns": "clawker-fw explain https://denied.test",
        "tls": "clawker-fw explain https://h.test",
        "http": "clawker-fw explain http://a.test/ --method GET",
        "tcp": None,
    }
    assert {each["sentence"].partition(" over ")[0] for each in found["refusals"]} == {"no rule allows this host"}
    assert names(page(other)) == {("coredns", "dns", "others.test", 53)}
    answer = agent.get(f"http://{PAGE}/")
    assert answer.last["status"] == 200
    assert "clawker-fw explain https://denied.test" in answer.last["body"]
    assert "clawker-fw denials --ask" in answer.last["body"]
    shown = shared.call("denials", "--format", "json").expect().json["denials"]
    assert PAGE not in {each["name"] for each in shown}
    assert shared.current()


def test_who_gets_the_address_of_another_learns_nothing(shared: Firewall, module_peers: Peers) -> None:
    """An agent with a former agent's address sees only its own refusals."""
    status = shared.status()["agent"]
    former = module_peers.agent(status["network"], status["dns"])
    address = former.address(status["network"])
    wanted = is_refused(former)
    until(lambda: names(page(former)) >= wanted, every=_WITHIN)
    former.remove()
    later = module_peers.start("wait", network=status["network"], dns=status["dns"], address=address)
    assert later.address(status["network"]) == address
    found = page(later)
    assert (found["agent"], names(found), found["more"]) == (address, set(), 0)
    assert later.get("https://own.test/").kind == "dns-nxdomain"
    until(lambda: names(page(later)) == {("coredns", "dns", "own.test", 53)}, every=_WITHIN)
