"""Names with an address of their own, on a real engine: what is forwarded as it is."""

import json

from devkit.firewall import Firewall
from devkit.peers import Answer, Peer, Peers
from devkit.waiting import until

PORT = "9000"
NAMES = ("one.test", "two.test")
OPAQUE = tuple({"dst": name, "proto": "tcp", "port": int(PORT), "allow_private": True} for name in NAMES)


def address(agent: Peer, name: str) -> str:
    """Return the address that an agent gets for a name."""
    (found,) = agent.ask("resolve", name).last["answers"]
    return str(found)


def asked(agent: Peer, name: str, *options: str) -> Answer:
    """Request a page over TLS, which is TCP like any other here."""
    return agent.get(f"https://{name}:{PORT}/", *options)


def test_each_name_leads_to_its_own_host(up: Firewall, peers: Peers) -> None:
    """Through changes of the rules, a restart and a replacement; and a removed rule closes its address at once."""
    for name in NAMES:
        up.origin(peers, [name], "--https", PORT, "--name", name)
    agent = up.agent(peers)
    up.write(*OPAQUE)
    up.call("reload").expect()
    up.drift().expect()
    places = {name: address(agent, name) for name in NAMES}
    assert len(set(places.values())) == 2

    def reached() -> bool:
        """Whether each name leads to its host, also when the agent sends the other one's name to its address."""
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
