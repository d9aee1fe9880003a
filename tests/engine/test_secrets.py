"""Secrets in a real stack: what Envoy puts into requests, who has it, and when it is gone."""

import base64
import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from clawker_fw.stack.envoy.inspection import INTERMEDIATES, TRUST
from clawker_fw.watch.schedule import SPACING
from devkit.firewall import RULES, Firewall
from devkit.hand import SIGNER, Hand
from devkit.peers import Answer, Peer, Peers
from devkit.waiting import until
from devkit.watching import watching

API = {
    "dst": "api.test",
    "path_rules": [{"path": "/v1", "methods": ["GET"]}],
    "inject": "api",
    "allow_private": True,
}
PLAIN = {"dst": "plain.test", "path_rules": [{"path": "/v1"}], "allow_private": True}
NAMES = ["a.test", "api.test", "plain.test"]


class Site:
    """A stack whose user has a secret, an origin whose authority the user names, and an agent."""

    def __init__(self, firewall: Firewall, docker: APIClient, peers: Peers, folder: Path) -> None:
        """Start both."""
        self.firewall, self.docker, self.folder = firewall, docker, folder
        self.hand = Hand(docker, firewall, peers)
        self.origin: Peer = firewall.origin(
            peers, NAMES, "--https", "443", "--http", "80", "--tell", "--name", ",".join(NAMES)
        )
        self.agent: Peer = firewall.agent(peers)
        (folder / "company.pem").write_text(self.origin.said()[0]["certificate"])
        self.token = f"hidden-{secrets.token_hex(12)}"
        self.renew(self.token)
        self.declared = folder / "secrets.yaml"
        self.declared.write_text("secrets: {api: {from: {file: token}, hosts: [api.test]}}\n")
        self.declared.chmod(0o600)

    def renew(self, token: str) -> None:
        """Change the secret where it comes from."""
        (self.folder / "token").write_text(token)

    def write(self, *rules: dict[str, object]) -> None:
        """Write the settings."""
        self.firewall.write(*RULES, *rules, inspection={"ca_file": str(self.folder / "company.pem")})

    def get(self, url: str, *options: str) -> Answer:
        """Make a request as an agent that trusts the root."""
        return self.agent.get(url, "--trust", self.hand.read("envoy")[TRUST].decode(), *options)

    def arrived(self, target: str) -> dict[str, Any]:
        """Return the headers with which a request has arrived."""
        arrived = until(lambda: [each for each in self.origin.said() if each.get("target") == target])
        found: dict[str, Any] = arrived[0]["headers"]
        return found


@pytest.fixture
def site(firewall: Firewall, docker: APIClient, peers: Peers, tmp_path: Path) -> Site:
    """A stack that puts a secret into requests to one host."""
    variables = {"XDG_STATE_HOME": str(tmp_path / "state"), "CLAWKER_FW_SECRETS": str(tmp_path / "secrets.yaml")}
    own = replace(firewall, variables=variables)
    own.run()
    found = Site(own, docker, peers, tmp_path)
    found.write(PLAIN)
    own.run()
    found.write(API, PLAIN)
    own.call("reload").expect()
    return found


def test_a_secret_is_where_the_rule_says_and_nowhere_else(site: Site) -> None:
    """The host that the user names has it, which has proven its name; nobody else has, and nothing shows it."""
    began = time.time()
    assert site.firewall.current(), site.firewall.drift().out
    assert site.get("https://api.test/v1/x", "--header", "Authorization: mine").last["status"] == 200
    assert site.arrived("/v1/x")["Authorization"] == [f"Bearer {site.token}"]
    assert site.get("https://plain.test/v1/y").last["status"] == 200
    assert "Authorization" not in site.arrived("/v1/y")
    for target, method in (("/v2", "GET"), ("/v1/x", "DELETE")):
        assert site.get(f"https://api.test{target}", "--method", method).last["status"] == 403
    assert [each["target"] for each in site.origin.said() if each["event"] == "request"] == ["/v1/x", "/v1/y"]

    listed = site.firewall.call("secrets", "list", "--format", "json").expect().json["secrets"]
    assert [(each["name"], each["state"]) for each in listed] == [("api", "given")]
    needles = {form for value in (site.token, f"Bearer {site.token}") for form in _forms(value)}
    for place, content in _everywhere(site, began):
        assert not any(needle in content for needle in needles), place


def test_a_secret_outlives_the_signer_and_not_the_container(site: Site) -> None:
    """Lost, its rule refuses and nothing else does; drift says so, and a run gives it and touches nothing."""
    assert site.get("https://api.test/v1/a").ok
    assert site.hand.kill("envoy", SIGNER)
    assert site.get("https://api.test/v1/b").ok
    until(lambda: not site.firewall.drift().findings)

    site.docker.restart(site.firewall.container("envoy"), timeout=1)
    until(lambda: site.get("https://plain.test/v1/c").ok)
    lost = site.get("https://api.test/v1/d").last
    assert (lost["status"], lost["body"]) == (
        503,
        "clawker-fw: a rule allows this request, but the secret for it is not there\n",
    )
    assert site.firewall.drift().findings == {("envoy", "live", "secrets.api#bearer", "settings", "give")}
    until(lambda: "no-secret" in site.firewall.call("denials", "--format", "json").expect().out)
    steps = site.firewall.run().json["steps"]
    assert [each["kind"] for each in steps] == ["give"]
    assert site.firewall.current()
    assert site.get("https://api.test/v1/e").ok

    site.renew(f"{site.token}-new")
    assert site.firewall.drift().findings == {("envoy", "live", "secrets.api#bearer", "settings", "give")}
    site.firewall.call("secrets", "refresh").expect()
    until(
        lambda: site.get("https://api.test/v1/f").ok and site.arrived("/v1/f")["Authorization"][0].endswith("-new")
    )
    site.firewall.call("secrets", "forget", "api").expect()
    until(lambda: site.get("https://api.test/v1/g").last["status"] == 503)

    site.firewall.run("--force-recreate")
    assert site.firewall.current()
    assert site.get("https://api.test/v1/h").ok
    site.write(PLAIN)
    site.firewall.call("reload").expect()
    assert site.firewall.current()
    assert not site.get("https://api.test/v1/i").ok


def test_a_watcher_gives_a_secret_again(site: Site) -> None:
    """After a restart, and when it changes where it comes from; what it has looked at wakes it no more."""
    with watching(site.firewall, "--interval", "1h") as watched:
        site.docker.restart(site.firewall.container("envoy"), timeout=1)
        until(lambda: site.get("https://api.test/v1/a").last["status"] == 200, 60)
        until(lambda: not site.firewall.drift().findings)
        before = len(watched.decisions)
        site.firewall.drift()
        site.firewall.call("secrets", "list").expect()
        time.sleep(SPACING + 1)
        assert len(watched.decisions) == before
        assert watched.stop() == 0


def test_keys_of_intermediates_are_nowhere_else(site: Site) -> None:
    """They are in one file of Envoy's container, and nothing shows them."""
    began = time.time()
    assert site.get("https://api.test/v1/a").ok
    held = json.loads(site.hand.read("envoy")[INTERMEDIATES])["intermediates"]
    lines = [line.encode() for each in held for line in each["key"].splitlines() if not line.startswith("-")]
    assert lines
    for place, content in _everywhere(site, began):
        if place != f"files of {site.firewall.container('envoy')}":
            assert not any(line in content for line in lines), place


def _forms(text: str) -> Iterator[bytes]:
    yield text.encode()
    for shift in range(3):  # base64 of what has it anywhere within
        whole = base64.b64encode(b"x" * shift + text.encode())
        yield whole[4 * ((shift + 2) // 3) : len(whole) // 4 * 4 - 4]


def _everywhere(site: Site, began: float) -> Iterator[tuple[str, bytes]]:
    """Yield everything that shows what a stack has, and its place."""
    for sibling in ("envoy", "coredns"):
        name = site.firewall.container(sibling)
        yield f"inspect {name}", json.dumps(site.docker.inspect_container(name)).encode()
        yield f"logs {name}", site.docker.logs(name)
        yield f"changes of {name}", json.dumps(site.docker.diff(name)).encode()
        yield f"export of {name}", b"".join(site.docker.export(name))
        yield f"files of {name}", b"".join(site.docker.get_archive(name, "/fw")[0])
    agent = site.agent.container
    yield "inspect of the agent", json.dumps(site.docker.inspect_container(agent)).encode()
    yield "export of the agent", b"".join(site.docker.export(agent))
    yield "the agent's logs", site.docker.logs(agent)
    events = site.docker.events(since=int(began), until=int(time.time()) + 1, decode=True)
    yield "events", json.dumps(list(events)).encode()
    for command in (
        ("drift", "--diff"),
        ("drift", "--format", "json"),
        ("status", "--format", "json"),
        ("config", "--format", "json"),
        ("denials", "--format", "json"),
        ("explain", "https://api.test/v1/x", "--format", "json"),
        ("secrets", "list"),
        ("run", "--dry-run", "--format", "json"),
        ("logs",),
    ):
        said = site.firewall.call(*command)
        yield " ".join(command), f"{said.out}{said.err}".encode()
    found = subprocess.run(
        ["grep", "-rac", site.token, str(site.folder / "state")], capture_output=True, check=False
    )
    yield (
        "the state folder",
        b"" if not any(int(line.rpartition(b":")[2]) for line in found.stdout.split()) else (site.token.encode()),
    )
