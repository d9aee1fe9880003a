"""Secrets in a real stack: what Envoy adds to requests, who has it, and when it is gone."""

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from clawker_fw.stack.container import HELPER_PATH, SECRETS_AT_REST, VOLUME
from clawker_fw.stack.envoy.signing import INTERMEDIATES, TRUST
from devkit.firewall import RULES, SIBLINGS, Firewall, brought_up
from devkit.hand import SIGNER, Hand
from devkit.peers import KEEPALIVE, Answer, Peer, Peers
from devkit.tools import read_as
from devkit.waiting import until
from devkit.watching import watching
from devkit.whereabouts import Administrator, header_forms, shown

API = {
    "dst": "api.test",
    "path_rules": [{"path": "/v1", "methods": ["GET"]}, {"path": "/bytes", "methods": ["GET"]}],
    "inject": "api",
    "allow_private": True,
}
IN_CLEAR = {"dst": "api.test", "proto": "http", "allow_private": True}
PLAIN = {"dst": "plain.test", "path_rules": [{"path": "/v1"}], "allow_private": True}
NAMES = ["a.test", "api.test", "h.test", "plain.test"]


class Site:
    """A stack whose user has a secret, an origin whose CA the user names, and an agent."""

    def __init__(self, firewall: Firewall, docker: APIClient, peers: Peers, folder: Path) -> None:
        self.firewall, self.docker, self.folder = firewall, docker, folder
        self.hand = Hand(docker, firewall, peers)
        self.origin: Peer = firewall.origin(
            peers, NAMES, "--https", "443", "--http", "80", "--tell", "--name", ",".join(NAMES)
        )
        self.agent: Peer = firewall.agent(peers)
        (folder / "company.pem").write_text(self.origin.said()[0]["certificate"])
        self.token, self.renewed = "", 0.0
        self.renew(f"hidden-{secrets.token_hex(12)}")
        self.declare()

    def declare(self, **fields: object) -> None:
        """Write the user's file, with these additional fields of the secret."""
        entry = {"from": {"file": "token"}, "hosts": ["api.test"], **fields}
        path = self.folder / "secrets.yaml"
        path.write_text(json.dumps({"secrets": {"api": entry}}))
        path.chmod(0o600)

    def renew(self, token: str) -> None:
        """Change the secret at its source."""
        self.token, self.renewed = token, time.time()
        (self.folder / "token").write_text(token)

    def write(self, *rules: dict[str, object]) -> None:
        self.firewall.write(*RULES, *rules, inspection={"ca_file": str(self.folder / "company.pem")})

    def get(self, url: str, *options: str) -> Answer:
        """Make a request as an agent that trusts the root."""
        return self.agent.get(url, "--trust", self.hand.read("envoy")[TRUST].decode(), *options)

    def arrived(self, target: str) -> dict[str, Any]:
        """Return the headers of a request as it arrived."""
        arrived = until(lambda: [each for each in self.origin.said() if each.get("target") == target])
        found: dict[str, Any] = arrived[0]["headers"]
        return found

    def log_folder(self, administrator: Administrator) -> str:
        """Return the folder of the origin's log, which contains the headers sent to it."""
        return f"{administrator.engine_folder}/containers/{self.origin.container}"


@pytest.fixture(scope="module")
def stack(
    host: str, docker: APIClient, module_peers: Peers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A stack that adds a secret to requests to one host, for all tests."""
    folder = tmp_path_factory.mktemp("site")
    with brought_up(host, docker, folder, *RULES) as firewall:
        firewall.variables = {
            "XDG_STATE_HOME": str(folder / "state"),
            "CLAWKER_FW_SECRETS": str(folder / "secrets.yaml"),
        }
        firewall.run()
        found = Site(firewall, docker, module_peers, folder)
        found.write(PLAIN)
        firewall.run()
        found.write(API, IN_CLEAR, PLAIN)
        firewall.call("reload").expect()
        yield found


@pytest.fixture
def site(stack: Site) -> Site:
    """The stack made current again, with a new secret."""
    stack.declare()
    stack.write(API, IN_CLEAR, PLAIN)
    stack.renew(f"hidden-{secrets.token_hex(12)}")
    stack.firewall.draining("0").run()
    return stack


def test_a_secret_is_where_the_rule_says_and_nowhere_else(site: Site) -> None:
    """Only the verified host that the user names gets the secret; nothing shows it, or intermediates' keys."""
    began, before = time.time(), len(site.origin.said())
    assert site.firewall.current(), site.firewall.drift().out
    assert site.get("https://api.test/v1/x", "--header", "Authorization: mine").last["status"] == 200
    assert site.arrived("/v1/x")["Authorization"] == [f"Bearer {site.token}"]
    assert site.get("https://plain.test/v1/y").last["status"] == 200
    assert "Authorization" not in site.arrived("/v1/y")
    assert site.get("http://api.test/v1/z").last["status"] == 200
    assert "Authorization" not in site.arrived("/v1/z")
    for target, method in (("/v2", "GET"), ("/v1/x", "DELETE")):
        assert site.get(f"https://api.test{target}", "--method", method).last["status"] == 403
    said = [each["target"] for each in site.origin.said()[before:] if each["event"] == "request"]
    assert said == ["/v1/x", "/v1/y", "/v1/z"]

    listed = site.firewall.call("secrets", "list", "--format", "json").expect().json["secrets"]
    assert [(each["name"], each["state"]) for each in listed] == [("api", "given")]
    held = json.loads(site.hand.read("envoy")[INTERMEDIATES])["intermediates"]
    keys = [line.encode() for each in held for line in each["key"].splitlines() if not line.startswith("-")]
    assert keys
    for place, content in _everywhere(site, began):
        assert not any(needle.encode() in content for needle in header_forms(site.token)), place
        if place != f"files of {site.firewall.container('envoy')}":
            assert not any(line in content for line in keys), place

    (site.folder / "token").write_text(f"{site.token}\n{site.token}")
    failed = site.firewall.call("--debug", "reload").expect(3)
    assert "Traceback" in failed.err
    assert not any(needle in f"{failed.out}{failed.err}" for needle in header_forms(site.token))


def test_a_secret_is_in_two_processes_and_on_no_disk(site: Site, peers: Peers) -> None:
    """Only Envoy and the signer have the secret in memory; the agent, packets, files and volumes do not."""
    administrator, marker = Administrator(site.firewall.host, site.docker), f"marker-{secrets.token_hex(8)}"
    networks = [f"{site.firewall.project}-{end}" for end in ("net", "egress")]
    secret, siblings = header_forms(site.token), [site.firewall.container(each) for each in SIBLINGS]
    with administrator.capturing(*networks) as captured:
        agent, echoed = (
            site.firewall.agent(peers, *KEEPALIVE, f"https://api.test{target}", "--seconds", "0")
            for target in (f"/bytes?size=9&{marker}", f"/v1/{marker}")
        )
        for target in (f"/bytes?size=9&{marker}", f"/v1/{marker}"):
            assert site.arrived(target)["Authorization"] == [f"Bearer {site.token}"]
        assert site.get(f"http://h.test/{marker}", "--header", f"X-Marker: {marker}").ok
        quiet = administrator.search(
            [*secret, marker], containers=[agent.container, *siblings], since=site.renewed, engine=True
        )
        # A host that echoes its request gives the secret away: the same search finds it in an agent's memory.
        told = administrator.search(secret, containers=[echoed.container], since=site.renewed)

    at = {place for needle, place in quiet if needle in secret}
    holders = {" ".join(each.split()[2:4]) for each in at if each.startswith("memory of ")}
    assert holders == {"/usr/local/bin/envoy --config-path", f"{HELPER_PATH} sign"}
    assert any(needle == marker and place.startswith("memory of /peer drive") for needle, place in quiet)
    assert any(place.startswith("memory of /peer drive") for _, place in told)
    assert {each.rpartition("/")[0] for each in at if each.startswith("/")} == {site.log_folder(administrator)}

    for network, packets in captured.items():
        assert marker.encode() in packets, f"what is sent in clear is not seen on {network}"
        assert b"api.test" in packets, f"TLS is not seen on {network}"
        assert not any(form.encode() in packets for form in secret), network


def test_a_secret_outlives_the_signer_and_not_the_container(site: Site) -> None:
    """A lost secret disables only its rule; drift says so, and a run sends it again and changes nothing else."""
    assert site.get("https://api.test/v1/a").ok
    until(lambda: site.hand.kill("envoy", SIGNER))
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
    site.firewall.call("reload").expect()
    until(
        lambda: site.get("https://api.test/v1/f").ok and site.arrived("/v1/f")["Authorization"][0].endswith("-new")
    )
    site.firewall.call("secrets", "forget", "api").expect()
    until(lambda: site.get("https://api.test/v1/g").last["status"] == 503)

    site.firewall.draining("0").run("--force-recreate")
    assert site.firewall.current()
    assert site.get("https://api.test/v1/h").ok
    site.write(PLAIN)
    site.firewall.call("reload").expect()
    assert site.firewall.current()
    assert not site.get("https://api.test/v1/i").ok


def test_a_watcher_gives_a_secret_again(site: Site) -> None:
    """A restart wakes the watcher, which sends the secret again."""
    with watching(site.firewall, "--interval", "1h") as watched:
        site.docker.restart(site.firewall.container("envoy"), timeout=1)
        until(lambda: site.get("https://api.test/v1/a").last["status"] == 200, 60)
        until(lambda: not site.firewall.drift().findings)
        assert watched.stop() == 0


def test_a_secret_at_rest_outlives_the_container(site: Site) -> None:
    """If the user asks for it, the secret is in one file on the disk, unreadable for others, until removed."""
    administrator, secret = Administrator(site.firewall.host, site.docker), header_forms(site.token)
    envoy, api = site.firewall.container("envoy"), "https://api.test/v1/rested"

    def on_the_disk() -> set[str]:
        """Return the secret's places on the disk, without the log of the host that received it."""
        found = administrator.search(secret, containers=[envoy], since=site.renewed, engine=True)
        files = {place for _, place in found if place.startswith("/")}
        return {each for each in files if not each.startswith(site.log_folder(administrator))}

    def places() -> set[str]:
        (volume,) = (
            each["Source"] for each in site.hand.inspect("envoy")["Mounts"] if each["Destination"] == VOLUME
        )
        process = administrator.process(envoy)
        return {f"{volume}/{SECRETS_AT_REST}", f"/proc/{process}/root{VOLUME}/{SECRETS_AT_REST}"}

    give = {("envoy", "live", "secrets.api#bearer", "settings", "give")}
    site.declare(at_rest=True)
    assert site.firewall.drift().findings == give
    assert [each["kind"] for each in site.firewall.run().json["steps"]] == ["give"]
    assert site.firewall.current()
    (listed,) = site.firewall.call("secrets", "list", "--format", "json").expect().json["secrets"]
    assert (listed["at_rest"], listed["state"]) == (True, "given")
    assert on_the_disk() == places()
    assert site.token in str(read_as(site.docker, "65531:65531", envoy, f"{VOLUME}/{SECRETS_AT_REST}"))
    for user in ("0:0", "65532:65532", "65530:65530", "12345678:65531"):
        assert read_as(site.docker, user, envoy, f"{VOLUME}/{SECRETS_AT_REST}") is None, user

    for signal in ("KILL", ""):
        if signal:
            site.docker.kill(envoy, signal=signal)
        site.docker.restart(envoy, timeout=1)
        until(lambda: site.get(api).last["status"] == 200, 30)
    assert site.arrived("/v1/rested")["Authorization"] == [f"Bearer {site.token}"]
    until(site.firewall.current)
    site.hand.alter("envoy", SECRETS_AT_REST, mode=0o644)
    assert site.firewall.drift().findings == {("envoy", "boot", SECRETS_AT_REST, "tamper", "replace")}
    site.firewall.draining("0").run()
    assert site.firewall.current()
    assert on_the_disk() == places()  # the replaced container's volume is gone with it

    site.firewall.call("secrets", "forget", "api").expect()
    assert on_the_disk() == set()
    site.docker.restart(envoy, timeout=1)
    until(lambda: site.get("https://plain.test/v1/rested").ok)
    assert site.get(api).last["status"] == 503
    site.firewall.run()
    site.declare()
    assert site.firewall.drift().findings == give
    site.firewall.run()
    assert site.firewall.current()
    assert on_the_disk() == set()
    assert site.get(api).ok


def _everywhere(site: Site, began: float) -> Iterator[tuple[str, bytes]]:
    """Yield everything that shows a stack's content, and its place."""
    siblings = [site.firewall.container(sibling) for sibling in SIBLINGS]
    yield from shown(site.docker, [*siblings, site.agent.container], began)
    for name in siblings:
        yield f"files of {name}", b"".join(site.docker.get_archive(name, "/fw")[0])
    for command in (
        ("drift", "--diff"),
        ("drift", "--format", "json"),
        ("--debug", "drift"),
        ("status", "--format", "json"),
        ("config", "--format", "json"),
        ("denials", "--format", "json"),
        ("explain", "https://api.test/v1/x", "--format", "json"),
        ("secrets", "list"),
        ("run", "--dry-run", "--format", "json"),
    ):
        said = site.firewall.call(*command)
        yield " ".join(command), f"{said.out}{said.err}".encode()
    for path in (site.folder / "state").rglob("*"):
        if path.is_file():
            yield f"the state folder: {path.name}", path.read_bytes()
