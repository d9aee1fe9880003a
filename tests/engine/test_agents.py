"""Agents started by the docker CLI with the options that `agent` prints."""

import json
import os
import pty
import secrets
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from docker import APIClient

from clawker_fw.agents.attachment import REFUSAL, attachment
from clawker_fw.agents.docker_options import parse_run
from clawker_fw.cli.running import require_confined
from clawker_fw.engine.docker import connect
from clawker_fw.errors import RefusedError
from clawker_fw.reconcile.pipeline import compare
from devkit import stacks
from devkit.engines import install_client, private_engine
from devkit.firewall import RULES, Firewall, Outcome
from devkit.host import client
from devkit.peers import Peer, Peers
from devkit.waiting import until

REFUSED_BY_THE_CLI = 125
SEARCHED = "corp.test"


@dataclass(frozen=True)
class Site:
    """A stack with an origin, on an engine whose containers have a DNS search domain by default."""

    docker: APIClient
    firewall: Firewall
    peers: Peers

    def shell(self, script: str, firewall: Firewall | None = None) -> Outcome:
        """Run a shell script in which `fw` is the program and `$IMAGE` the agents' image."""
        return (firewall or self.firewall).shell(script, IMAGE=self.peers.image)

    def started(self, script: str) -> Peer:
        """Run a script that starts a container in the background, and return it."""
        return self.peers.adopt(self.shell(script).expect().out.strip())

    def containers(self) -> set[str]:
        """Return the ids of all containers, running or not."""
        return {each["Id"] for each in self.docker.containers(all=True)}

    def volumes(self) -> set[str]:
        return {each["Name"] for each in self.docker.volumes()["Volumes"] or []}


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


def _may_forge(agent: Peer) -> bool:
    _, _, effective = (agent.process() / "status").read_text().partition("CapEff:")
    return bool(int(effective.split()[0], 16) >> 13 & 1)  # CAP_NET_RAW (linux/capability.h)


def _search_domains(agent: Peer) -> list[str]:
    lines = map(str.split, (agent.process() / "root/etc/resolv.conf").read_text().splitlines())
    return [domain for line in lines if line[:1] == ["search"] for domain in line[1:]]


def confined(agent: Peer) -> bool:
    """Whether an agent reaches exactly what the rules allow, without raw sockets or a search domain."""
    return (
        agent.get("https://a.test/").ok
        and agent.get("http://h.test/").ok
        and agent.get("https://denied.test/").kind == "dns-nxdomain"
        and not _may_forge(agent)
        and not _search_domains(agent)
    )


def test_docker_with_flags(site: Site) -> None:
    """`docker run $(clawker-fw agent flags)` starts a confined agent; without them, docker would grant more."""
    agent = site.started("docker run -d $(fw agent flags) $IMAGE /peer wait")
    assert confined(agent)
    assert agent.ask("spoof", str(site.firewall.status()["agent"]["dns"]), "02:42:0a:00:00:01").code == 1
    plain = site.started("docker run -d $IMAGE /peer wait")
    assert _may_forge(plain)
    assert _search_domains(plain) == [SEARCHED]


def test_agent_run(site: Site) -> None:
    """`agent run` starts a confined agent, with the input, output and exit code of its command."""
    assert confined(site.started("fw agent run -d --restart=no $IMAGE /peer wait"))
    assert site.shell("fw agent run --rm $IMAGE /peer get https://a.test/").code == 0
    asked = site.shell('echo \'["get", "https://denied.test/"]\' | fw agent run --rm -i $IMAGE /peer commands')
    assert (asked.code, "dns-nxdomain" in asked.out) == (0, True)
    assert site.shell("fw agent run --rm $IMAGE /peer wait --no-such-option").code == 2


def test_exit_codes_of_docker_run(site: Site, tmp_path: Path) -> None:
    """If docker fails, the exit code and the leftovers are those of `docker run`."""
    before = site.containers()
    for words, code in (
        ("--rm $IMAGE no-such-program", 127),
        ("--rm -d $IMAGE no-such-program", 127),
        ("--rm $IMAGE /", 126),
        ("--pull never no-such-image", 125),
        ("--no-healthcheck --health-cmd true $IMAGE", 125),
    ):
        assert site.shell(f"fw agent run {words}").code == code, words
    assert site.containers() == before
    file = tmp_path / "id"
    named = f"--name taken-{site.firewall.project} --cidfile {file}"
    volumes = site.volumes()
    for removes in ("", "--rm"):
        refused = site.shell(f"fw agent run {named} {removes} -v /data --pid host $IMAGE /peer wait")
        assert (refused.code, "it sees the processes of the host" in refused.err) == (6, True)
        assert (site.containers(), site.volumes(), file.exists()) == (before, volumes, False)
    assert site.shell(f"fw agent run {named} $IMAGE no-such-program").code == 127
    (failed,) = site.containers() - before
    assert file.read_text() == failed
    assert site.shell(f"rm {file}; fw agent run {named} $IMAGE /peer wait").code == 125
    assert site.containers() - before == {failed}
    site.docker.remove_container(failed)


@pytest.mark.parametrize("terminal", [True, False])
def test_signals_reach_the_agent(terminal: bool, site: Site) -> None:  # noqa: FBT001 - a column
    """Signals to `agent run` reach the agent, with and without a terminal, and end it."""
    before = site.containers()
    master, slave = pty.openpty()
    command = site.firewall.command("agent", "run", "--rm", *(("-it",) if terminal else ()), site.peers.image)
    words = [*command, "/peer", "wait"]
    process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    try:
        until(lambda: {each["Id"] for each in site.docker.containers()} - before)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        os.close(master)
        os.close(slave)
    assert site.containers() == before


UNCONFINED = {
    "--network elsewhere": "the network elsewhere has a way out",
    "--dns 192.0.2.1": "it uses another DNS server, 192.0.2.1",
    "--ip {service}": "it has the address {service}, which is for parts of the firewall",
    "--ip6 fd00::9": "the engine did not choose its address, fd00::9",
    "--link-local-ip 169.254.1.9": "the engine did not choose its address, 169.254.1.9",
    "--mac-address 02:42:0a:d5:08:0a": "the engine did not choose its address, 02:42:0a:d5:08:0a",
    "--device /dev/null": "it has devices of the host, /dev/null",
    "--device-cgroup-rule 'c 1:3 rwm'": "it has devices of the host, c 1:3 rwm",
    "--privileged": "it is privileged",
    "--cap-add net_admin": "it has NET_ADMIN",
    "--cap-add=ALL": "it has ALL",
    "--cap-add CAP_NET_RAW": "with NET_RAW it can pose as a neighbour",
    "--cap-add SYSLOG": "it has SYSLOG, which Docker does not grant by default",
    "--pid host": "it sees the processes of the host",
    "--pid container:{project}-envoy": "it sees the processes of {project}-envoy, a part of the firewall",
    "--ipc host": "it shares memory with programs of the host",
    "--uts host": "it uses the UTS namespace of the host",
    "--userns host": "it uses the user namespace of the host",
    "--sysctl net.ipv6.conf.all.disable_ipv6=0": "IPv6 is switched on",
    "--sysctl net.ipv4.conf.all.proxy_arp=1": "its network has other settings, net.ipv4.conf.all.proxy_arp",
    "--security-opt systempaths=unconfined": "the host's kernel settings are open to it",
    "--security-opt seccomp=unconfined": "without a seccomp profile",
    "--security-opt apparmor=unconfined": "it has no AppArmor profile",
    "-v {socket}:/s:ro": "{socket} leads to the engine",
    "-v/:/host": "/ leads to the engine",
    "-v {link}:/r": "{link} leads to the engine",
    "--mount type=bind,source=/run,target=/s": "/run leads to the engine",
    "--mount type=volume,dst=/s,volume-opt=type=none,volume-opt=device=/run,volume-opt=o=bind": "/run leads to",
    "--use-api-socket": "leads to the engine",
    "-v {folder}:/s": "it can write {settings}, through /s",
    "--mount type=bind,src={settings},dst=/s,readonly=false": "it can write {settings}, through /s",
    "--volumes-from {project}-envoy": "it has the files of {project}-envoy, a part of the firewall",
    "-l dev.clawker.firewall.sibling=envoy": "it has labels that begin with dev.clawker.",
    "--label-file {labels}": "it has labels that begin with dev.clawker.",
    "--name a.test": "it is called a.test",
    "-h h.test": "it is called h.test",
    "--net-alias a.test": "it is called a.test",
    "--log-driver gelf --log-opt gelf-address=udp://192.0.2.1:1": "what it prints is sent by the log driver gelf",
    "--log-driver syslog --log-opt syslog-address=udp://192.0.2.1:514": "is sent by the log driver syslog",
    "--mount type=volume,dst=/a,volume-opt=type=nfs,volume-opt=o=addr=192.0.2.1,volume-opt=device=:/a": "over nfs",
    "-P": "docker itself would publish a port",
}
"""Options that make a container unconfined, and the message for each."""

CLIENTS_DIFFER = {"--network elsewhere", "--mac-address 02:42:0a:d5:08:0a", "--ip6 fd00::9", "--use-api-socket"}
"""Options that some versions of docker refuse by themselves."""

DOCKER_REFUSES = ("--network host", "--net none", "--network bridge", "--network container:{project}-envoy")
"""Networks that docker refuses in addition to the agent network."""

HARMLESS = (
    "",
    "-it --rm --name other.test --hostname a --network-alias db -e A=1 -w /work -u 1000:1000 --read-only --init",
    "-v /srv:/work:ro -v {settings}:/s:ro -v work:/var/run/docker.sock --tmpfs /tmp",
    "--mount type=bind,src={folder},dst=/s,readonly --mount type=volume,dst=/data",
    "--cap-drop ALL --cap-add SYS_PTRACE --cap-add=cap_chown --security-opt no-new-privileges",
    "--ipc private --sysctl kernel.shm_rmid_forced=1 --sysctl net.ipv6.conf.all.disable_ipv6=1",
    "--expose 80 --restart always --memory 64m --cpus=1",
    "--log-driver local --log-opt max-size=1m",
    "--log-driver syslog",
    "--log-driver syslog --log-opt syslog-address=udp://127.0.0.1:514",
    "--health-cmd true --health-interval 1s -l role=agent --add-host a:192.0.2.1 --cgroupns private",
)


def test_what_an_agent_may_be_created_with(site: Site, tmp_path: Path) -> None:
    """Every option that loosens an agent shows in the engine's records; the others do not."""
    site.docker.create_network("elsewhere")
    (tmp_path / "labels").write_text("role=agent\n  dev.clawker.purpose=firewall\n")
    (tmp_path / "link").symlink_to("/run")
    names = {
        "project": site.firewall.project,
        "service": str(site.firewall.status()["agent"]["dns"]),
        "socket": site.firewall.host.removeprefix("unix://"),
        "settings": str(site.firewall.settings),
        "folder": str(site.firewall.folder),
        "link": str(tmp_path / "link"),
        "labels": str(tmp_path / "labels"),
    }
    with closing(connect(site.firewall.host, None, {})) as engine:
        blueprint = stacks.blueprint(engine.facts(), *RULES, project=site.firewall.project)
        seen = compare(engine, replace(blueprint, files=(site.firewall.settings,)))
        flags = attachment(seen.desired).flags

        def refused(line: str) -> str | None:
            """Create a container with these options, and return the reason of a refusal, if any."""
            words = parse_run([*shlex.split(line.format(**names)), site.peers.image, "/peer", "wait"]).create
            command = ["docker", "--host", site.firewall.host, "create", *flags, *words]
            created = subprocess.run(command, capture_output=True, text=True, check=False)
            if created.returncode:
                return f"docker: {created.stderr}"
            container = created.stdout.split()[-1]
            try:
                require_confined(engine, seen, container)
            except RefusedError as error:
                return error.message
            finally:
                site.docker.remove_container(container, v=True)
            return None

        found = {line: refused(line) or "" for line in UNCONFINED}
        wrong = {
            line: why
            for line, why in found.items()
            if UNCONFINED[line].format(**names) not in why
            and not (line in CLIENTS_DIFFER and why.startswith("docker: "))
        }
        assert wrong == {}
        assert {line: refused(line) for line in HARMLESS} == dict.fromkeys(HARMLESS)
        assert [line for line in DOCKER_REFUSES if not (refused(line) or "").startswith("docker: ")] == []


def test_proxies_of_docker_are_taken_off(site: Site, tmp_path: Path) -> None:
    """Agents do not get docker's default proxy unless it was requested."""
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
    refused = site.shell("fw agent run -d -P $IMAGE /peer wait")
    assert (refused.code, "agent-unreachable" in refused.err) == (6, True)


def _refuses_json(site: Site) -> bool:
    """Whether docker takes the beginning of a JSON answer for an image name, which it can't be."""
    lines = (
        "docker run -d $(fw agent flags --json) $IMAGE /peer wait",
        "docker create $(fw agent flags --json) $IMAGE",
    )
    done = [site.shell(each) for each in lines]
    return all(each.code and not each.out and "invalid reference format" in each.err for each in done)


def test_docker_refuses_while_the_stack_does_not_serve(site: Site, tmp_path: Path) -> None:
    """A shell ignores the failure of `agent flags`, but docker then creates no container."""
    before = site.containers()
    site.docker.stop(site.firewall.container("coredns"))
    for script in (
        "docker run -d $(fw agent flags) $IMAGE /peer wait",
        "docker run -d $(fw agent flgs) $IMAGE /peer wait",
    ):
        done = site.shell(script)
        assert (done.code, done.out) == (REFUSED_BY_THE_CLI, "")
        assert f"unknown flag: {REFUSAL}" in done.err
    assert _refuses_json(site)
    assert site.shell("fw agent run $IMAGE /peer wait").code == 6
    assert site.containers() == before
    site.firewall.run()
    assert _refuses_json(site)
    for broken in ("exit 127", "kill -9 $$"):  # as after an upgrade of Python: nothing is printed
        done = site.shell(
            f"gone() {{ sh -c '{broken}'; }}; flags=$(gone) && docker run -d $flags $IMAGE /peer wait"
        )
        assert (done.code != 0, done.out) == (True, "")
    assert site.containers() == before
    absent = Firewall(site.firewall.host, "absent", tmp_path)
    absent.write(*RULES)
    done = site.shell("docker run -d $(fw agent flags) $IMAGE /peer wait", absent)
    assert (done.code, "error[not-up]" in done.err) == (REFUSED_BY_THE_CLI, True)
    assert site.containers() == before
