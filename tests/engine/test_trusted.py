"""Agents on a real engine trust a stack that inspects their TLS, however they are started."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest
from docker import APIClient

from clawker_fw.stack import labels
from devkit.engines import install_client, private_engine
from devkit.firewall import Firewall, Outcome
from devkit.host import client
from devkit.peers import KEEPALIVE, Peer, Peers

INSPECTED = {"dst": "a.test", "allow_private": True, "inspect": True, "insecure_skip_tls_verify": True}
SYSTEM = ("--trust", "system")


@dataclass(frozen=True)
class Site:
    """A stack that inspects a host, and that host."""

    docker: APIClient
    firewall: Firewall
    peers: Peers
    agents: list[Peer] = field(default_factory=list)

    def shell(self, script: str) -> Outcome:
        """Run a shell script in which `fw` is the program and `$IMAGE` the agents' image."""
        return self.firewall.shell(script, IMAGE=self.peers.image)

    def started(self, script: str) -> Peer:
        """Run a script that starts a container in the background, and return it."""
        self.agents.append(self.peers.adopt(self.shell(script).expect().out.strip()))
        return self.agents[-1]

    def volumes(self) -> set[str]:
        """Return the names of the volumes with agents' roots."""
        found = self.docker.volumes(filters={"label": labels.TRUST})["Volumes"]
        return {each["Name"] for each in found or ()}


@pytest.fixture(scope="module")
def site(needs_engine: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    needs_engine()
    install_client()
    with private_engine() as engine, closing(client(engine.host)) as docker:
        firewall = Firewall(engine.host, f"test{secrets.token_hex(3)}", tmp_path_factory.mktemp("site"))
        firewall.write(INSPECTED)
        firewall.run()
        peers = Peers(docker)
        firewall.origin(peers, ["a.test"])
        yield Site(docker, firewall, peers)


@pytest.fixture(autouse=True)
def no_agents(site: Site) -> Iterator[None]:
    """Leave no agent to the next test."""
    yield
    while site.agents:
        site.agents.pop().remove()


@pytest.mark.parametrize("start", ["docker run -d $(fw agent flags)", "fw agent run -d"])
def test_an_agent_trusts_what_it_gets(start: str, site: Site) -> None:
    """The agent's own program verifies the certificate, even on a read-only file system; others refuse it."""
    agent = site.started(f"{start} --read-only $IMAGE /peer wait")
    assert agent.get("https://a.test/", *SYSTEM).ok
    how = site.firewall.status()["agent"]
    other = site.started(f"docker run -d --network {how['network']} --dns {how['dns']} $IMAGE /peer wait")
    assert not other.get("https://a.test/", *SYSTEM).ok
    assert other.get("https://a.test/").ok
    (known,) = (each for each in site.firewall.status()["agents"] if each["id"] == agent.container)
    assert known["state"] == "fenced"


def test_rotation(site: Site) -> None:
    """`certs show` names agents without the new root, which work until it signs; no connection is cut."""
    old = site.started("fw agent run -d $IMAGE /peer wait")
    before = site.firewall.call("certs", "show", "--format", "json").json
    assert before["agents_without_newest_root"] == []
    with old.asking(*KEEPALIVE, "https://a.test/", "--seconds", "0") as ended:
        site.firewall.call("certs", "rotate", "--roots").expect()
        site.firewall.run()
        kept = ended().last
    assert (kept["failed"], kept["connections"]) == (0, 1)
    assert kept["sent"] > 1
    new = site.started("fw agent run -d $IMAGE /peer wait")
    after = site.firewall.call("certs", "show", "--format", "json").json
    assert [each["state"] for each in after["certificates"] if each["state"]] == ["announced", "signs"]
    (name,) = after["agents_without_newest_root"]
    assert f"/{name}" == site.docker.inspect_container(old.container)["Name"]
    assert all(agent.get("https://a.test/", *SYSTEM).ok for agent in (old, new))
    had = site.volumes()
    old.remove()
    site.firewall.run()
    assert len(site.volumes()) < len(had)
    assert new.get("https://a.test/", *SYSTEM).ok


def test_down_removes_all_volumes(site: Site) -> None:
    """No volume with roots is left."""
    assert site.volumes()
    site.firewall.call("down", "--force").expect()
    assert site.volumes() == set()
