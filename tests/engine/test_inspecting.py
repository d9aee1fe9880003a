"""Inspected TLS in a real stack: agents trust our root, and each request follows the rules."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from docker import APIClient

from clawker_fw.stack.envoy.signing import INTERMEDIATES, TRUST
from devkit.firewall import RULES, SIBLINGS, Firewall
from devkit.hand import Hand
from devkit.peers import Answer, Peer, Peers

PATHS = {
    "dst": "i.test",
    "path_rules": [{"path": "/v1", "methods": ["GET"]}, {"path": "/v1/private", "action": "deny"}],
    "allow_private": True,
    "insecure_skip_tls_verify": True,
}
"""A rule with paths. Test origins have self-signed certificates."""

BELOW = {**PATHS, "dst": ".w.test", "path_rules": [{"path": "/"}]}
NAMES = ["a.test", "i.test", "x.w.test", "strict.test"]


class Site:
    """A stack whose rules inspect nothing yet, an origin that reports its requests, and an agent."""

    def __init__(self, firewall: Firewall, docker: APIClient, peers: Peers) -> None:
        self.firewall = firewall
        self.hand = Hand(docker, firewall, peers)
        self.origin: Peer = firewall.origin(peers, NAMES, "--https", "443", "--tell")
        self.agent: Peer = firewall.agent(peers)

    def rules(self, *rules: dict[str, object]) -> None:
        """Change the rules of the running stack, without a replacement."""
        before = self.made()
        self.firewall.write(*RULES, *rules)
        self.firewall.call("reload").expect()
        assert self.firewall.current(), self.firewall.drift().out
        assert self.made() == before

    def made(self) -> list[str]:
        return [self.hand.inspect(each)["Id"] for each in SIBLINGS]

    @property
    def trust(self) -> str:
        return self.hand.read("envoy")[TRUST].decode()

    def get(self, url: str, *options: str) -> Answer:
        """Make a request as an agent that trusts only this root."""
        return self.agent.get(url, "--trust", self.trust, *options)

    def reached(self) -> list[str]:
        """Return the targets of requests that reached the origin."""
        return [each["target"] for each in self.origin.said() if each["event"] == "request"]


@pytest.fixture
def site(firewall: Firewall, docker: APIClient, peers: Peers, tmp_path: Path) -> Site:
    """The stack, with its roots in a folder of the test."""
    own = replace(firewall, variables={"XDG_STATE_HOME": str(tmp_path / "state")})
    own.run()
    return Site(own, docker, peers)


def test_the_first_rule_with_paths_is_a_reload(site: Site) -> None:
    """Allowed requests reach the host, refused ones do not, and other hosts are served as before."""
    assert site.trust == ""
    assert json.loads(site.hand.read("envoy")[INTERMEDIATES]) == {"intermediates": []}
    site.rules(PATHS, BELOW, {"dst": "strict.test", "inspect": True, "allow_private": True})

    assert site.get("https://i.test/v1/x").last["status"] == 200
    for target, method in (("/v2", "GET"), ("/v1/private/x", "GET"), ("/v1/x", "POST")):
        refused = site.get(f"https://i.test{target}", "--method", method).last
        assert (refused["status"], refused["body"].splitlines()[0][:11]) == (403, "clawker-fw:")
    assert site.get("https://x.w.test/below").last["status"] == 200
    assert site.get("https://i.test/v1/x", "--host", "a.test").last["status"] == 421
    assert site.get("https://strict.test/strict").last["status"] == 503  # it does not prove its name
    assert site.reached() == ["/v1/x", "/below"]
    assert site.get("https://a.test/").kind == "tls"  # its own certificate, which the firewall does not check
    assert site.agent.get("https://a.test/plain").ok
    assert site.get("https://other.w.test/").kind != ""

    said = site.firewall.call("denials", "--format", "json").expect().json
    denied = {(each["name"], each["method"], each["path"]): each for each in said["denials"]}
    assert denied["i.test", "POST", "/v1/x"]["reason"] == "path", said
    assert denied["i.test", "POST", "/v1/x"]["remedy"]["command"], said
    for target, *expected in (("/v1/tried", True, None, 200), ("/v2", False, "path", 403)):
        tried = site.firewall.call("explain", f"https://i.test{target}", "--live", "--format", "json").json["live"]
        last = tried["steps"][-1]
        assert [tried["passed"], tried["reason"], last["status"]] == expected
        assert (last["step"], tried["contradicts"]) == ("request", False)

    proven = site.firewall.call("explain", "https://i.test", "--live")
    assert (proven.code, "GET /v1 was sent, which the rule allows." in proven.out) == (0, True), proven
    assert site.reached()[-2:] == ["/v1/tried", "/v1"]
    unproven = site.firewall.call("explain", "https://strict.test", "--live", "--format", "json")
    assert (unproven.code, unproven.json["live"]["reason"]) == (1, "host-not-trusted"), unproven

    document = site.firewall.call("conformance", "--format", "json").expect().json
    outcomes = {each["id"]: each["outcome"] for each in document["attempts"] if "inspected" in each["id"]}
    assert outcomes["inspected"] == "a certificate of the stack"
    assert outcomes["inspected-path"] == outcomes["inspected-method"] == "HTTP 403 of Envoy", outcomes

    site.rules()
    assert site.trust == ""
    assert site.agent.get("https://i.test/v1/x").kind != ""
    assert site.reached() == ["/v1/x", "/below", "/plain", "/v1/tried", "/v1", "/v1"]
