"""Agents started with what `agent` prints, by the docker CLI, as a user starts them."""

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker import APIClient

from clawker_fw.agents.attachment import REFUSAL
from devkit.engines import install_client, private_engine
from devkit.firewall import Firewall, Outcome
from devkit.host import client
from devkit.peers import Peer, Peers

REFUSED_BY_THE_CLI = 125
SEARCHED = "corp.test"

RULES = ({"dst": "a.test", "allow_private": True}, {"dst": "h.test", "proto": "http", "allow_private": True})


@dataclass(frozen=True)
class Site:
    """A stack with an origin, on an engine whose containers search a domain by default."""

    docker: APIClient
    firewall: Firewall
    peers: Peers

    def shell(self, script: str, firewall: Firewall | None = None) -> Outcome:
        """Run a shell script in which `fw` is the program and `$IMAGE` the image of agents."""
        return (firewall or self.firewall).shell(script, IMAGE=self.peers.image)

    def started(self, script: str) -> Peer:
        """Run a script that starts a container in the background, and return it."""
        return self.peers.adopt(self.shell(script).expect().out.strip())

    def containers(self) -> set[str]:
        """Return the ids of all containers, running or not."""
        return {each["Id"] for each in self.docker.containers(all=True)}


@pytest.fixture(scope="module")
def site(needs_engine: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One stack for all tests, each of which leaves it current."""
    needs_engine()
    install_client()
    with private_engine(settings={"dns-search": [SEARCHED]}) as engine, closing(client(engine.host)) as docker:
        firewall = Firewall(engine.host, f"test{secrets.token_hex(3)}", tmp_path_factory.mktemp("site"))
        firewall.write(*RULES)
        firewall.run()
        peers = Peers(docker)
        firewall.origin(peers, ["a.test", "h.test", "denied.test"])
        yield Site(docker, firewall, peers)


def confined(agent: Peer) -> bool:
    """Whether an agent reaches exactly what the rules allow, and has no raw sockets and no search domain."""
    return (
        agent.get("https://a.test/").ok
        and agent.get("http://h.test/").ok
        and agent.get("https://denied.test/").kind == "dns-nxdomain"
        and not agent.may_forge()
        and not agent.search_domains()
    )


def test_docker_with_flags(site: Site) -> None:
    """`docker run $(clawker-fw agent flags)` starts a confined agent; without them, docker would grant more."""
    agent = site.started("docker run -d $(fw agent flags) $IMAGE /peer wait")
    assert confined(agent)
    assert agent.ask("spoof", str(site.firewall.status()["agent"]["dns"]), "02:42:0a:00:00:01").code == 1
    plain = site.started("docker run -d $IMAGE /peer wait")
    assert plain.may_forge()
    assert plain.search_domains() == [SEARCHED]


def test_agent_run(site: Site) -> None:
    """`agent run` starts a confined agent; its output and exit code are those of the agent's command."""
    assert confined(site.started("fw agent run -d --restart=no $IMAGE /peer wait"))
    assert site.shell("fw agent run --rm $IMAGE /peer get https://a.test/").code == 0
    denied = site.shell("fw agent run --rm $IMAGE /peer get https://denied.test/")
    assert (denied.code, "dns-nxdomain" in denied.out) == (1, True)
    assert site.shell("fw agent run --rm $IMAGE /peer no-such-verb").code == 2
    before = site.containers()
    assert site.shell("fw agent run --rm --cap-add NET_RAW $IMAGE /peer wait").code == 6
    assert site.containers() == before


def test_proxies_of_docker_are_taken_off(site: Site, tmp_path: Path) -> None:
    """An agent does not get the proxy that docker gives to every other container, unless it was asked for."""
    proxy = "http://192.0.2.1:3128"
    proxies = dict.fromkeys(("httpProxy", "httpsProxy", "allProxy"), proxy) | {"noProxy": "localhost"}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": {"default": proxies}}))
    configured = f"export DOCKER_CONFIG={tmp_path}"

    def given(script: str) -> dict[str, str]:
        agent = site.started(f"{configured}; {script}")
        variables = site.docker.inspect_container(agent.container)["Config"]["Env"] or []
        assert len(variables) == 8
        return {name: value for name, _, value in (each.partition("=") for each in variables) if value}

    assert given("docker run -d $IMAGE /peer wait")["http_proxy"] == proxy
    assert given("docker run -d $(fw agent flags) $IMAGE /peer wait") == {}
    assert given("docker create $(fw agent flags) $IMAGE /peer wait") == {}
    assert given("fw agent run -d $IMAGE /peer wait") == {}
    asked = "http://asked.test:3128"
    assert given(f"fw agent run -d -e HTTP_PROXY={asked} $IMAGE /peer wait") == {"HTTP_PROXY": asked}
    refused = site.shell("fw agent run -d -p 8080:80 $IMAGE /peer wait")
    assert (refused.code, "agent-unreachable" in refused.err) == (6, True)


@pytest.mark.parametrize("verb", ["flags", "flgs"])
def test_docker_refuses_while_the_stack_does_not_serve(site: Site, verb: str, tmp_path: Path) -> None:
    """A shell ignores that `agent flags` has failed, but docker then creates no container at all."""
    before = site.containers()
    site.docker.stop(site.firewall.container("coredns"))
    for script in (
        f"docker run -d $(fw agent {verb}) $IMAGE /peer wait",
        "docker create $(fw agent flags) $IMAGE",
    ):
        done = site.shell(script)
        assert (done.code, done.out) == (REFUSED_BY_THE_CLI, "")
        assert f"unknown flag: {REFUSAL}" in done.err
    assert site.shell("fw agent run $IMAGE /peer wait").code == 6
    assert site.containers() == before
    site.firewall.run()
    absent = Firewall(site.firewall.host, "absent", tmp_path)
    absent.write(*RULES)
    done = site.shell("docker run -d $(fw agent flags) $IMAGE /peer wait", absent)
    assert (done.code, "error[not-up]" in done.err) == (REFUSED_BY_THE_CLI, True)
    assert site.containers() == before
