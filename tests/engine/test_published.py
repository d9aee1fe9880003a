"""Published ports of agents on a real engine: relays lead from the host to one agent, and never outwards."""

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass

import pytest
from docker import APIClient, errors

from clawker_fw.stack import labels
from devkit.engines import PrivateEngine, install_client, private_engine
from devkit.firewall import RULES, Firewall, Outcome
from devkit.host import client
from devkit.peers import Peers
from devkit.processes import processes
from devkit.programs import machine
from devkit.waiting import until
from devkit.world import HOST, Beyond, Internet

SERVER = "/peer origin --http 80,81 --name web"
BRIDGED = "net.bridge.bridge-nf-call-iptables"
"""Whether the host's kernel tracks and filters traffic between containers."""

WEB = "web"


@dataclass(frozen=True)
class Site:
    """A stack on an engine whose published ports are tested from its host."""

    engine: PrivateEngine
    docker: APIClient
    firewall: Firewall
    peers: Peers
    beyond: Beyond

    def shell(self, script: str) -> Outcome:
        """Run a shell script in which `fw` is the program and `$IMAGE` the agents' image."""
        return self.firewall.shell(script, IMAGE=self.peers.image)

    def asked(self, *arguments: str) -> str:
        """Return the answer of a peer that runs on the Docker host."""
        command = Internet.argv(self.beyond, *arguments)
        return subprocess.run(command, capture_output=True, check=False, text=True).stdout

    def get(self, port: int, address: str = "127.0.0.1") -> dict[str, object]:
        """Return an origin's answer to a request from the Docker host, empty if there is none."""
        return _origin(self.asked("get", f"http://{address}:{port}/", "--timeout", "3s"))

    def from_outside(self, port: int, address: str) -> dict[str, object]:
        """Return an origin's answer to a request from another machine with routes to all networks here."""
        command = self.beyond.argv("get", f"http://{address}:{port}/", "--timeout", "3s")
        return _origin(subprocess.run(command, capture_output=True, check=False, text=True).stdout)

    def address_of(self, relay: str) -> str:
        """Return a relay's address on the network that publishes its ports."""
        networks = self.docker.inspect_container(relay)["NetworkSettings"]["Networks"]
        return str(networks[f"{self.firewall.project}-publish"]["IPAddress"])

    def relays(self) -> list[str]:
        """Return the names of all relays, running or not."""
        ours = {"label": labels.RELAY_OF}
        return sorted(each["Names"][0][1:] for each in self.docker.containers(all=True, filters=ours))

    def clean(self) -> bool:
        return self.firewall.call("drift").code == 0


def _origin(said: str) -> dict[str, object]:
    last = json.loads(said.splitlines()[-1])
    return dict(json.loads(last["body"])) if last.get("status") == 200 else {}


@pytest.fixture(scope="module")
def site(needs_engine: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One stack for all tests, each of which leaves it current and without agents other than `web`."""
    needs_engine()
    install_client()
    with (
        private_engine() as engine,
        closing(client(engine.host)) as docker,
        ExitStack() as stack,
    ):
        engine.run_in_network(["sysctl", "-w", f"{BRIDGED}=0"])
        beyond = Beyond(engine, tmp_path_factory.mktemp("said"), machine(), stack, routed=True)
        firewall = Firewall(engine.host, f"test{secrets.token_hex(3)}", tmp_path_factory.mktemp("site"))
        firewall.write(*RULES)
        firewall.run()
        yield Site(engine, docker, firewall, Peers(docker), beyond)


@pytest.fixture
def web(site: Site) -> str:
    """An agent with two published ports, one at a chosen host port, which stays until a test removes it."""
    for found in site.docker.containers(filters={"name": f"^/{WEB}$"}):
        return str(found["Id"])
    script = f"fw agent run -d --rm --name {WEB} -p 18080:80 -p 81 $IMAGE {SERVER}"
    return site.shell(script).expect().out.strip()


@pytest.fixture
def nobody(site: Site) -> None:
    with suppress(errors.NotFound):
        site.docker.remove_container(WEB, force=True, v=True)
        site.firewall.run()
    assert site.relays() == []


def test_a_published_port_leads_to_the_agent(site: Site, web: str) -> None:
    """It is reachable only from the host, on loopback; `status` names each port, and the agent is confined."""
    seen = site.get(18080)
    (agent,) = site.firewall.status()["agents"]
    assert (seen["name"], seen["address"], seen["port"]) == ("web", agent["address"], 80)
    assert (agent["id"], agent["state"]) == (web, "fenced")
    given, chosen = agent["published"]
    assert given == "127.0.0.1:18080:80"
    assert site.get(int(chosen.split(":")[1]))["port"] == 81
    (relay,) = site.relays()
    assert site.get(80, site.address_of(relay))["name"] == "web"
    assert [site.get(18080, HOST), site.from_outside(18080, HOST)] == [{}, {}]
    assert site.from_outside(80, site.address_of(relay)) == {}
    assert site.clean()


@pytest.mark.usefixtures("web")
def test_a_relay_carries_nothing_outwards(site: Site) -> None:
    """A relay has routes only to its two networks, and agents can't connect to it."""
    (name,) = site.relays()
    inside = site.docker.inspect_container(name)
    networks = inside["NetworkSettings"]["Networks"]
    pid = int(inside["State"]["Pid"])
    routes = ("nsenter", f"--net={next(processes(site.docker, name))}/ns/net", "ip", "route")
    assert "default" not in subprocess.run(routes, capture_output=True, check=True, text=True).stdout
    for target in ("192.0.2.1:443", "198.51.100.7:80"):
        tried = subprocess.run(
            site.beyond.argv("probe-tcp", target, "--timeout", "1s", process=pid), capture_output=True, check=False
        )
        assert tried.returncode == 1
    agent = site.firewall.agent(site.peers)
    places = {each["IPAddress"] for each in networks.values()}
    assert len(places) == 2
    assert not any(agent.ask("probe-tcp", f"{each}:{port}").ok for each in places for port in (80, 81, 22))
    assert agent.ask("probe-tcp", f"{site.firewall.status()['agent']['dns']}:53").ok
    agent.remove()


def test_relays_are_kept_apart(site: Site, web: str) -> None:
    """A relay reaches no other relay and no other agent, although the Docker host reaches them.

    Other machines are answered at the port of the other agent, which has an address for everyone.
    """
    run = f"fw agent run -d --rm -p 0.0.0.0:18082:80 $IMAGE {SERVER.replace('web', 'other')}"
    other = site.shell(run).expect().out
    assert (site.from_outside(18082, HOST)["name"], site.from_outside(18080, HOST)) == ("other", {})
    assert site.clean()
    first, second = site.relays()
    assert (site.get(18080)["name"], site.get(18082)["name"]) == ("web", "other")
    pids = {name: int(site.docker.inspect_container(name)["State"]["Pid"]) for name in (first, second)}
    agents = f"{site.firewall.project}-net"
    own, others = (
        site.docker.inspect_container(each.strip())["NetworkSettings"]["Networks"][agents]["IPAddress"]
        for each in (web, other)
    )

    def reaches(address: str) -> bool:
        tried = site.beyond.argv("probe-tcp", f"{address}:80", "--timeout", "1s", process=pids[first])
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0

    assert [reaches(each) for each in (own, others, site.address_of(second))] == [True, False, False]
    site.docker.remove_container(other.strip(), force=True, v=True)
    site.firewall.run()


@pytest.mark.usefixtures("web")
def test_no_published_port_has_the_kernel_track_what_is_bridged(site: Site) -> None:
    """Otherwise one agent could fill the host's connection table, as it could on other networks."""

    def tracked() -> str:
        return site.engine.run_in_network(["sysctl", "-n", BRIDGED]).stdout.strip()

    assert (len(site.relays()), tracked()) == (1, "0")
    apart = {"com.docker.network.bridge.enable_icc": "false"}
    try:
        network = site.docker.create_network("apart", options=apart)["Id"]
        assert tracked() == "1"  # the control
        site.docker.remove_network(network)
    finally:
        site.engine.run_in_network(["sysctl", "-w", f"{BRIDGED}=0"])


@pytest.mark.usefixtures("web")
def test_replaced_siblings_cut_nothing(site: Site) -> None:
    """A connection through the relay survives the replacement of both containers."""
    load = ("drive", "--kept", "http://127.0.0.1:18080/", "--seconds", "10", "--interval", "20ms")
    (relay,) = site.relays()
    before = site.docker.inspect_container(relay)["Id"]
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(site.asked, *load)
        site.firewall.draining("0").run("--force-recreate")
    last = json.loads(loading.result().splitlines()[-1])
    assert last["sent"] > 100
    assert (last["failed"], last["connections"], last["polite_closes"]) == (0, 1, 0), json.dumps(last)
    assert site.docker.inspect_container(relay)["Id"] == before


@pytest.mark.usefixtures("nobody")
def test_the_end_of_an_agent_is_that_of_its_relay(site: Site) -> None:
    """`agent run` removes the relay with its agent; for a background agent, the next run or agent does."""
    done = site.shell("fw agent run --rm -p 18080:80 $IMAGE /peer ping 127.0.0.1")
    assert done.code == 0
    assert site.relays() == []
    site.shell(f"fw agent run -d --rm --name gone -p 18080:80 $IMAGE {SERVER}").expect()
    site.docker.remove_container("gone", force=True, v=True)
    assert (len(site.relays()), site.firewall.call("drift").code) == (1, 0)
    site.shell(f"fw agent run -d --rm --name next -p 18080:80 $IMAGE {SERVER}").expect()
    assert (len(site.relays()), site.clean(), site.get(18080)["name"]) == (1, True, "web")
    site.docker.remove_container("next", force=True, v=True)
    site.firewall.run()
    assert (site.relays(), site.clean()) == ([], True)


@pytest.mark.usefixtures("nobody")
def test_an_agent_that_is_started_again(site: Site) -> None:
    """A restarted agent has its address and its relay again, even if other agents came meanwhile."""
    agent = site.shell(f"fw agent run -d --name again -p 18080:80 $IMAGE {SERVER}").expect().out.strip()
    site.docker.stop(agent, timeout=1)
    assert (site.get(18080), site.clean()) == ({}, True)
    others = [site.firewall.agent(site.peers) for _ in range(3)]
    site.docker.start(agent)
    until(lambda: site.get(18080).get("name") == "web")
    for each in others:
        each.remove()
    site.docker.remove_container(agent, force=True, v=True)
    site.firewall.run()
