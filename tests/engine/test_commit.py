"""After files that crash a program, and after restarts, the last verified files are served."""

import json
import sys

from docker import APIClient

from clawker_fw.stack.name_list import POLICY
from devkit.firewall import Firewall
from devkit.hand import Hand
from devkit.peers import Peers
from devkit.waiting import until

TOO_MANY_TABLES = """
import json, sys
from clawker_fw.stack.envoy import sibling
right = sibling.configuration
def broken(*given):
    files = right(*given)
    document = json.loads(files[sibling.LISTENERS].content)
    (plain,) = (each for each in document["resources"] if each["name"] == "port-80")
    for number in range(140):
        text = json.dumps(plain).replace('"http"', f'"http-{number}"').replace("port-80", f"port-{20000 + number}")
        more = json.loads(text)
        more["address"]["socket_address"]["port_value"] = 20000 + number
        more["filter_chains"][0]["name"] = "http"
        more["filter_chain_matcher"] = plain["filter_chain_matcher"]
        document["resources"].append(more)
    return {**files, sibling.LISTENERS: files[sibling.LISTENERS].saying(json.dumps(document).encode())}
sibling.configuration = broken
from clawker_fw.__main__ import main
main()
"""
"""A reload with 140 route tables, each a watched file: more than a user's inotify instances (inotify(7))."""


def test_a_file_that_ends_the_proxy_is_no_outage(up: Firewall, peers: Peers, docker: APIClient) -> None:
    """Envoy aborts, restarts with the last verified files and serves; the error says so, and nothing differs."""
    up.origin(peers, ["a.test", "h.test"])
    agent = up.agent(peers)
    envoy = up.container("envoy")
    before = docker.inspect_container(envoy)
    settings = up.settings.read_text()
    up.write("a.test", "b.test")
    outcome = up.call_raw([sys.executable, "-c", TOO_MANY_TABLES, *up.command("reload")[3:]])
    assert outcome.code == 5, outcome
    assert "error[commit-ended-program]" in outcome.err, outcome.err
    after = docker.inspect_container(envoy)
    assert after["Id"] == before["Id"]
    assert after["State"]["StartedAt"] != before["State"]["StartedAt"]
    until(lambda: agent.get("https://a.test/").ok)
    assert agent.get("http://h.test/").ok
    assert agent.get("https://b.test/").kind == "dns-nxdomain"
    up.settings.write_text(settings)
    assert up.current()


def test_what_was_put_into_a_stopped_resolver_is_never_served(
    up: Firewall, peers: Peers, docker: APIClient
) -> None:
    """A container never starts with an unverified list; the verified one is restored."""
    agent = up.agent(peers)
    hand = Hand(docker, up, peers)
    coredns = up.container("coredns")
    docker.stop(coredns)
    document = json.loads(hand.read("coredns")[POLICY])
    document["names"]["evil.test"] = {"at": "envoy"}
    hand.write("coredns", POLICY, json.dumps(document).encode())
    docker.start(coredns)
    until(lambda: agent.ask("resolve", "a.test").ok)
    assert agent.ask("resolve", "evil.test").last["rcode"] == "NXDOMAIN"
    until(up.current)
