"""The editing commands for rules on a real engine."""

from devkit.firewall import Firewall
from devkit.peers import Peers
from devkit.waiting import until


def test_a_rule_is_added_and_removed_live(up: Firewall, peers: Peers) -> None:
    """An agent reaches the new name once `rules allow` has ended, and no longer after `rules remove`."""
    up.origin(peers, ["h.test", "new.test"])
    agent = up.agent(peers)
    before, envoy = up.settings.read_text(), up.status()["siblings"][0]["since"]
    assert agent.get("http://h.test/").ok
    assert agent.get("http://new.test/").kind == "dns-nxdomain"

    added = up.call("rules", "allow", "http://new.test", "--private", "--format", "json").expect().json
    assert [each["outcome"] for each in added["rules"]] == ["added"]
    assert added["reload"]["verdict"] == "current"
    assert agent.get("http://new.test/").ok

    up.call("rules", "deny", "new.test").expect()
    until(lambda: agent.get("http://new.test/").kind == "dns-nxdomain")
    up.call("rules", "remove", "new.test", "--action", "deny").expect()
    until(lambda: agent.get("http://new.test/").ok)

    removed = up.call("rules", "remove", "new.test", "--format", "json").expect().json
    assert [each["outcome"] for each in removed["rules"]] == ["removed"]
    until(lambda: agent.get("http://new.test/").kind == "dns-nxdomain")
    assert agent.get("http://h.test/").ok
    assert up.settings.read_text() == before
    assert up.current()
    assert up.status()["siblings"][0]["since"] == envoy
