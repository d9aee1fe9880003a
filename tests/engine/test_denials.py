"""`denials` on a real stack, checked with an agent that also has allowed traffic."""

import json
import select
import threading
from typing import Any

from clawker_fw.model.stacks import Sibling
from devkit.firewall import Firewall
from devkit.hand import RECORDER, Hand
from devkit.peers import Peer, Peers
from devkit.waiting import until

PRINTED_WITHIN = 2.0
"""Seconds until a request is refused again, because nothing is printed yet."""
KEPT_LINES = 1_000
"""More lines than an agent's share of the log has room for."""
STUCK_AFTER = 30.0
"""Seconds until nothing more is expected; output stuck in a buffer would take longer."""


def shown(firewall: Firewall, *arguments: str) -> dict[str, Any]:
    """Return the refusals by protocol and name."""
    return {f"{each['protocol']} {each['name']}": each for each in _answer(firewall, *arguments)["denials"]}


def refused(agent: Peer) -> None:
    """Have requests refused by the resolver, by Envoy over TLS and HTTP, and at a closed port."""
    assert agent.get("https://denied.test/").kind == "dns-nxdomain"
    assert agent.get("https://h.test/").kind == "denied"
    assert agent.get("http://a.test/").last["status"] == 403
    assert agent.get("https://a.test:8443/").kind == "connect-refused"


def test_what_was_refused_and_to_whom(shared: Firewall, module_peers: Peers) -> None:
    """Each refusal is kept with the agent's name and a remedy; a flood is counted, and hides no other refusal."""
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
    flood = ("drive", "http://flood.test/", "--connect", "a.test:80", "--kept", "--clients", "8", "--seconds", "0")
    with agent.asking(*flood) as end:
        until(lambda: _times(shared, name, "flood.test") > KEPT_LINES)
        assert agent.get("http://hidden.test/", "--connect", "a.test:80").last["status"] == 403
        sent = end().last["sent"]
    until(lambda: _times(shared, name, "flood.test") == sent)
    assert _times(shared, name, "hidden.test") == 1
    log = module_peers.client.logs(shared.container(Sibling.ENVOY), stderr=False)
    assert len(log.splitlines()) < KEPT_LINES
    answer = _answer(shared, "--agent", name)
    assert (answer["suppressed"], answer["gaps"]) == ([], [])
    shared.run("--force-recreate")
    assert _answer(shared, "--agent", name)["denials"] == answer["denials"]
    assert shared.current()


def test_what_a_recorder_has_lost(shared: Firewall, module_peers: Peers) -> None:
    """A killed recorder leaves a gap, because what it had counted and not yet logged is lost."""
    agent = shared.agent(module_peers)
    assert agent.get("https://h.test/").kind == "denied"
    until(lambda: "tls h.test" in shown(shared))
    assert _answer(shared)["gaps"] == []
    hand = Hand(module_peers.client, shared, module_peers)
    until(lambda: hand.kill(Sibling.ENVOY, RECORDER))
    until(lambda: _answer(shared)["gaps"])
    assert agent.get("https://later.test/", "--connect", "a.test:443").kind == "denied"
    until(lambda: "tls later.test" in shown(shared))
    (gap,) = _answer(shared)["gaps"]
    assert (gap["sibling"], gap["since"] < gap["until"]) == (Sibling.ENVOY, True)


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


def _answer(firewall: Firewall, *arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = firewall.call("denials", "--format", "json", *arguments).expect().json
    return answer


def _times(firewall: Firewall, agent: str, name: str) -> int:
    refusal = shown(firewall, "--agent", agent).get(f"http {name}")
    return refusal["times"] if refusal else 0
