"""A user's main job, from nothing to nothing, on typical hosts, judged by the forbidden server's logs."""

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from devkit import prepared
from devkit.engines import FORWARDING, PrivateEngine, install_client, private_engine
from devkit.firewall import Firewall
from devkit.host import client
from devkit.hosts import HOSTS, Host
from devkit.peers import Peer, Peers
from devkit.waiting import until
from devkit.witness import Witnesses
from devkit.world import NAMESERVER, WORLD, Beyond

TCP_PORT, UDP_PORT = 2222, 5300

RULES: tuple[dict[str, Any], ...] = (
    {"dst": "pub.test"},
    {"dst": "plain.test", "proto": "http"},
    {"dst": "stream.test", "proto": "tcp", "port": TCP_PORT},
    {"dst": "talk.test", "proto": "udp", "port": UDP_PORT},
)

ALLOWED = ("https://pub.test/", "http://plain.test/", f"http://stream.test:{TCP_PORT}/")

REQUESTS_PER_SECOND = 50

BACK_SECONDS = 30
"""Seconds until agents must be served after a restart of the engine."""


@dataclass
class MainJob:
    """The main job on one engine, in a simulated internet beyond its host."""

    engine: PrivateEngine
    docker: APIClient
    world: Beyond
    firewall: Firewall
    peers: Peers

    def perform(self, agents_need: str) -> None:
        """Perform every step. `agents_need` is an option without which `agent run` refuses, or empty."""
        self.run()
        self.agents()
        self.agent_run(agents_need)
        self.replacement()
        self.restart()
        self.withdrawal()
        self.down()

    def perform_without_way_out(self, cause: str) -> None:
        """Bring the stack up without internet access: `doctor` names the cause."""
        warned = {each["code"] for each in self.firewall.run().json["warnings"]}
        assert ("no-forwarding" in warned) is not self.docker.info()["IPv4Forwarding"], warned
        self.firewall.drift().expect()
        agent = self.firewall.agent(self.peers)
        assert not agent.get("https://pub.test/", "--timeout", "2s").ok, "there is a way out"
        checks = self.firewall.call("doctor", "--format", "json").json["checks"]
        told = {each["name"]: each["advice"] for each in checks if each["health"] == "failed"}
        assert cause in " ".join(told.values()), told
        self.down()

    def run(self) -> None:
        """From nothing to current, also according to `status` and `doctor`."""
        warned = {each["code"] for each in self.firewall.run().json["warnings"]}
        assert "no-forwarding" not in warned
        assert self.firewall.run().json["changed"] is False
        status = self.firewall.status()
        assert status["verdict"] == "current", status
        checks = self.firewall.call("doctor", "--format", "json").expect().json["checks"]
        assert [each for each in checks if each["health"] == "failed"] == []

    def agents(self) -> None:
        """An agent reaches what the rules allow, by each protocol, and nothing else."""
        agent = self.firewall.agent(self.peers)
        assert until(lambda: self.serves(agent)), "agents are not served"
        envoy = self.envoy()
        witnesses = Witnesses([self.world.origin, self.world.names])

        def refused(*command: str) -> None:
            witnesses.refused(lambda: agent.ask(*command), agent, "https://pub.test")

        refused("get", "https://denied.test/")
        refused("get", "https://denied.test/", "--connect", envoy)
        refused("get", "http://denied.test/", "--connect", envoy)
        refused("get", f"http://stream.test:{TCP_PORT + 1}/", "--timeout", "2s")
        refused("probe-tcp", f"{WORLD}:443", "--timeout", "500ms")
        refused("resolve", "refused.test", "--server", f"{envoy}:{UDP_PORT}", "--timeout", "500ms")

    def envoy(self) -> str:
        return str(self.firewall.status()["siblings"][0]["address"])

    def serves(self, agent: Peer) -> bool:
        """Whether an agent reaches everything allowed."""
        said = ("resolve", "heard.test", "--server", f"talk.test:{UDP_PORT}", "--timeout", "2s")
        return all(agent.get(url, "--timeout", "2s").ok for url in ALLOWED) and agent.ask(*said).ok

    def agent_run(self, need: str) -> None:
        """`agent run` starts an agent with the docker CLI, and its exit code is the agent's."""
        if need:
            told = self.firewall.shell("fw agent run --rm $IMAGE /peer", IMAGE=self.peers.image).expect(6).err
            assert f"`{need}`" in told, told
        run = f"fw agent run --rm {need} $IMAGE /peer"
        started = f"{run} get https://pub.test/"
        answer = self.firewall.shell(started, IMAGE=self.peers.image).expect()
        assert json.loads(answer.out.splitlines()[-1])["status"] == 200, answer.out
        refused = f"{run} get https://denied.test/"
        assert self.firewall.shell(refused, IMAGE=self.peers.image).code != 0

    def replacement(self) -> None:
        """Both containers are replaced twice under load, and no request fails.

        The second time, they have addresses again that neighbours have cached.
        """
        rate = str(REQUESTS_PER_SECOND)
        load = self.firewall.agent(self.peers, "load", "--rate", rate, "--seconds", "0", *ALLOWED)
        until(lambda: any(line["done"] for line in load.said()))
        for _ in range(2):
            self.firewall.run("--force-recreate")
        summary = load.stop().last
        assert (summary["failed"], summary["sent"] > 0) == (0, True), summary

    def restart(self) -> None:
        """After a restart of the engine, agents are served, and nothing has drifted."""
        agent = self.firewall.agent(self.peers)
        self.docker.update_container(agent.container, restart_policy={"Name": "always"})
        self.engine.restart()
        assert until(lambda: self.serves(agent), BACK_SECONDS), "agents are not served after a restart"
        assert until(self.firewall.current, BACK_SECONDS), "the stack has drifted after a restart"

    def withdrawal(self) -> None:
        """A removed rule no longer allows its host, and no container is replaced."""
        agent, before = self.firewall.agent(self.peers), self.docker.containers()
        self.firewall.call("rules", "remove", "plain.test").expect()
        Witnesses([self.world.origin]).refused(
            lambda: agent.get("http://plain.test/", "--connect", self.envoy()), agent, "https://pub.test"
        )
        assert {each["Id"] for each in before} <= {each["Id"] for each in self.docker.containers()}

    def down(self) -> None:
        """Nothing of the stack is left."""
        self.peers.remove_all()
        self.firewall.call("down").expect()
        assert self.docker.containers(all=True) == []
        assert {each["Name"] for each in self.docker.networks()} <= {"bridge", "host", "none"}
        assert not self.docker.volumes()["Volumes"]


@contextmanager
def main_job(host: Host, folder: Path) -> Iterator[MainJob]:
    """Yield the main job on a host, and clean up afterwards."""
    with (
        private_engine(
            host.kind,
            dns=[NAMESERVER],
            settings=host.settings,
            sysctls={**FORWARDING, **host.sysctls},
            commands=[shlex.split(command) for command in host.before],
            programs=host.programs,
        ) as engine,
        closing(client(engine.host)) as docker,
        ExitStack() as stack,
    ):
        install_client()
        said = folder / "said"
        said.mkdir()
        world = Beyond(engine, said, docker.version()["Arch"], stack, routed=host.routed)
        resolver = folder / "resolv.conf"
        resolver.write_text(f"nameserver {NAMESERVER}\n")
        # The program runs on the engine's host, as for most people: in its network, with its name server.
        mounted = (
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind "$0" /etc/resolv.conf && exec "$@"',
            str(resolver),
        )
        firewall = Firewall(engine.host, "clawker", folder, within=engine.network_argv(*mounted))
        firewall.write(*RULES)
        peers = Peers(docker)
        stack.callback(peers.remove_all)
        stack.enter_context(prepared.in_use(firewall.within))
        yield MainJob(engine, docker, world, firewall, peers)


@pytest.mark.parametrize(
    "host_",
    [pytest.param(host, id=host.name, marks=[pytest.mark.thorough] if host.thorough else []) for host in HOSTS],
)
def test_main_job(host_: Host, needs_engine: Callable[..., None], tmp_path: Path) -> None:
    """Everything works, from `run` to `down`; without internet access, the program says so."""
    needs_engine(host_.kind)
    with main_job(host_, tmp_path) as job:
        if host_.closing or not host_.keeps_in:
            job.perform(host_.agents_need)
        job.engine.run_in_network(shlex.split(host_.closing or "true"))
        if host_.keeps_in:
            job.perform_without_way_out(host_.keeps_in)
