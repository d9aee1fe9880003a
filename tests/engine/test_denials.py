"""`denials` on a real stack, checked with an agent that also has allowed traffic."""

import json
import select
import threading
from typing import Any

from devkit.firewall import Firewall
from devkit.peers import Peer, Peers
from devkit.waiting import until

PRINTED_WITHIN = 2.0
"""Seconds until a request is refused again, because nothing is printed yet."""
STUCK_AFTER = 30.0
"""Seconds until nothing more is expected; output stuck in a buffer would take longer."""


def shown(firewall: Firewall, *arguments: str) -> dict[str, Any]:
    """Return the refusals by protocol and name."""
    answer = firewall.call("denials", "--format", "json", *arguments).expect().json
    return {f"{each['protocol']} {each['name']}": each for each in answer["denials"]}


def only_counted(firewall: Firewall) -> int:
    """Return how many refusals were only counted."""
    answer = firewall.call("denials", "--format", "json").expect().json
    return int(answer["unattributed"] + sum(each["times"] for each in answer["suppressed"]))


def refused(agent: Peer) -> None:
    """Have requests refused by the resolver, by Envoy over TLS and HTTP, and at a closed port."""
    assert agent.get("https://denied.test/").kind == "dns-nxdomain"
    assert agent.get("https://h.test/").kind == "denied"
    assert agent.get("http://a.test/").last["status"] == 403
    assert agent.get("https://a.test:8443/").kind == "connect-refused"


def test_what_was_refused_and_to_whom(shared: Firewall, module_peers: Peers) -> None:
    """Each refusal is kept with the agent's name and a remedy; of a flood, some are recorded, the rest counted."""
    shared.origin(module_peers, ["a.test", "h.test"])
    name = f"{shared.project}-agent"
    status = shared.status()["agent"]
    agent = module_peers.agent(status["network"], status["dns"], name=name)
    refused(agent)
    assert agent.get("https://a.test/").ok
    assert agent.get("http://h.test/").ok
    until(lambda: len(shown(shared, "--agent", name)) >= 4)
    found = shown(shared, "--since", "5m", "--agent", name)
    wanted = {
        "dns denied.test": ("coredns", "no-rule", "https://denied.test"),
        "tls h.test": ("envoy", "no-rule", "https://h.test"),
        "http a.test": ("envoy", "no-rule", "http://a.test"),
    }
    for key, (sibling, reason, url) in wanted.items():
        assert (found[key]["sibling"], found[key]["reason"], found[key]["agent"]) == (sibling, reason, name)
        assert found[key]["remedy"]["command"].endswith(f" --host {shared.host} rules allow {url}")
    assert (found["tcp None"]["port"], found["tcp None"]["reason"]) == (8443, "no-rule")
    assert not {"tls a.test", "http h.test"} & set(found)
    assert only_counted(shared) == 0
    flood = ("drive", "http://flood.test/", "--connect", "a.test:80", "--kept", "--clients", "8", "--seconds", "1")
    sent = 0
    while not only_counted(shared):
        sent += agent.ask(*flood).last["sent"]
    until(lambda: _written(shared, name) + only_counted(shared) == sent)
    found, counted = shown(shared, "--agent", name), only_counted(shared)
    shared.run("--force-recreate")
    assert (shown(shared, "--agent", name), only_counted(shared)) == (found, counted)
    assert shared.current()


def test_following_goes_on_with_successors(shared: Firewall, module_peers: Peers) -> None:
    """`--follow` continues when both containers are replaced, and shows the refusals of each pair."""
    agent = shared.agent(module_peers)
    following = shared.start("denials", "--follow", "--format", "json")
    assert following.stdout
    stuck = threading.Timer(STUCK_AFTER * 5, following.kill)
    stuck.start()
    try:
        for number in range(2):
            name, shown = f"after-{number}.test", ""
            if number:
                shared.run("--force-recreate")
            while not select.select([following.stdout], [], [], PRINTED_WITHIN)[0]:
                assert following.poll() is None
                agent.get(f"https://{name}/")
            while shown != name:
                line = following.stdout.readline()
                assert line, "it has ended"
                shown = json.loads(line)["name"]
    finally:
        stuck.cancel()
        following.kill()
        following.communicate()


def _written(firewall: Firewall, agent: str) -> int:
    flood = shown(firewall, "--agent", agent).get("http flood.test")
    return flood["times"] if flood else 0
