"""Names with virtual addresses on a real engine, for forwarded traffic."""

import json

from devkit.firewall import Firewall
from devkit.peers import Answer, Peer, Peers
from devkit.waiting import until

PORT = "9000"
NAMES = ("one.test", "two.test")
OPAQUE = tuple({"dst": name, "proto": "tcp", "port": int(PORT), "allow_private": True} for name in NAMES)


def address(agent: Peer, name: str) -> str:
    (found,) = agent.ask("resolve", name).last["answers"]
    return str(found)


def asked(agent: Peer, name: str, *options: str) -> Answer:
    """Request a page over TLS, which is forwarded like any TCP."""
    return agent.get(f"https://{name}:{PORT}/", *options)


def test_each_name_leads_to_its_own_host(up: Firewall, peers: Peers) -> None:
    """Names keep their hosts through rule changes, a restart and a replacement; a removed rule closes at once."""
    for name in NAMES:
        up.origin(peers, [name], "--https", PORT, "--name", name)
    agent = up.agent(peers)
    up.write(*OPAQUE)
    up.call("reload").expect()
    up.drift().expect()
    places = {name: address(agent, name) for name in NAMES}
    assert len(set(places.values())) == 2

    def reached() -> bool:
        """Whether each name leads to its host, even if the agent sends the other one's name to its address."""
        answers = {name: asked(agent, name) for name in NAMES}
        answers |= {
            name: asked(agent, other, "--connect", f"{address(agent, name)}:{PORT}")
            for name, other in zip(NAMES, reversed(NAMES), strict=True)
            if answers[name].ok
        }
        return all(
            answer.ok and json.loads(answer.last["body"])["name"] == name for name, answer in answers.items()
        )

    assert reached()
    up.write(*OPAQUE, "another.test", {"dst": "a.test", "proto": "ssh"})
    up.call("reload").expect()
    assert {name: address(agent, name) for name in NAMES} == places
    peers.client.restart(up.container("envoy"), timeout=1)
    until(reached, 20)  # a wrong neighbour entry would take half a minute
    assert {name: address(agent, name) for name in NAMES} == places
    up.draining("1s").run("--force-recreate")
    assert reached()
    up.drift().expect()
    assert {address(agent, name) for name in NAMES}.isdisjoint(places.values())
    up.write(OPAQUE[1])
    kept = address(agent, "one.test")
    up.call("reload").expect()
    assert asked(agent, "one.test").kind == "dns-nxdomain"
    assert asked(agent, "one.test", "--connect", f"{kept}:{PORT}").kind == "connect-refused"
    assert asked(agent, "two.test").ok
