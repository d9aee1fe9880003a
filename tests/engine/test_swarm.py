"""Engines in a swarm of two nodes (three with `--thorough`), each with the watcher of `examples/swarm`."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devkit import program_image
from devkit.firewall import RULES, SIBLINGS, Firewall
from devkit.peers import Peer, Peers
from devkit.stacks import CHECKOUT, change_bootstrap, change_corefile, copied_release
from devkit.swarm import Node, Swarm, swarm
from devkit.waiting import until

SERVICE = "fw_watch"
NAMES = ("a.test", "h.test")
EXAMPLE = CHECKOUT / "examples" / "swarm" / "stack.yaml"
ATTACHED = "work-net"
IN_TESTS = f"""
version: "3.9"
services:
  watch:
    command: [watch, --heal, all, --listen, "unix:/run/clawker-fw/watch.sock", --attach, {ATTACHED}]
    healthcheck: {{start_period: 20s}}
    deploy:
      update_config: {{monitor: 1s, delay: 1s}}
      rollback_config: {{monitor: 1s, delay: 1s}}
"""
"""User changes in a file beside the example: shorter times, and a network for tasks of services."""

LOAD = ("load", "--rate", "40", "--seconds", "0", "https://a.test/", "http://h.test/")
RESOLVER = "10.213.1.53"
PAGE = "unix:/run/clawker-fw/watch.sock"
SUBNET = {"network": {"subnet": "10.213.0.0/23"}}
DRAIN = {"drain_timeout": "2s"}
ADDED = {"dst": "added.test", "allow_private": True}
SMALL = 2
"""The node whose engine has little room."""

ENDS = {"completed", "paused", "rollback_completed", "rollback_paused"}
PATIENCE = 180.0


@dataclass(frozen=True, slots=True)
class Rolled:
    """The result of a rollout: its final state, and its tasks in the order of their start."""

    state: str
    message: str
    tasks: tuple[Any, ...]

    @property
    def nodes(self) -> set[str]:
        """The ids of the nodes with a running task, which means a healthy container."""
        return {each["NodeID"] for each in self.tasks if each["Status"]["State"] == "running"}


@dataclass
class Fleet:
    """One stack on each node of a swarm, with the same settings. A `release` is another program's folder."""

    swarm: Swarm
    folder: Path
    agents: dict[str, Peer] = field(default_factory=dict)

    def on(self, node: Node, release: Path | None = None) -> Firewall:
        """Return the stack of a node, as seen by the program outside the swarm."""
        return Firewall(node.engine.host, "clawker", self.folder, release)

    def load(self, release: Path | None = None) -> None:
        """Build a release's image, once, and load it into all engines."""
        image = self.folder / f"{release.name if release else 'this'}.tar"
        if not image.exists():
            docker = self.swarm.manager.docker
            name = program_image.build_later(docker, release) if release else program_image.build(docker)
            self.swarm.manager.call("save", "--output", str(image), name)
        self.swarm.on_each(lambda node: node.call("load", "--input", str(image)))

    def deploy(self, release: Path | None = None) -> Rolled:
        """Deploy the example with the settings and a release, and wait until the rollout ends."""
        manager = self.swarm.manager
        before = self._update()
        self._deploy(manager, program_image.LATER if release else program_image.NAME)
        if before is None:
            until(lambda: len(self.running()) == len(self.swarm.nodes), PATIENCE, every=0.2)
            return Rolled("created", "", self._tasks())
        until(lambda: (self._update() or before).get("StartedAt") != before.get("StartedAt"), PATIENCE, every=0.2)
        until(lambda: (self._update() or {}).get("State") in ENDS, PATIENCE, every=0.2)
        ended = self._update() or {}
        return Rolled(str(ended["State"]), str(ended["Message"]), self._tasks())

    def _deploy(self, manager: Node, image: str) -> None:
        settings = self.on(manager).settings
        variables = {
            "IMAGE": manager.call("image", "inspect", "--format", "{{.Id}}", image),
            "DIGEST": hashlib.sha256(settings.read_bytes()).hexdigest()[:16],
        }
        with tempfile.TemporaryDirectory() as folder:
            stack, further = Path(folder, EXAMPLE.name), Path(folder, "further.yaml")
            shutil.copy(EXAMPLE, stack)
            shutil.copy(settings, folder)
            further.write_text(IN_TESTS)
            files = ("--compose-file", str(stack), "--compose-file", str(further))
            manager.call("stack", "deploy", "--resolve-image", "never", *files, "fw", variables=variables)

    def _update(self) -> dict[str, Any] | None:
        """Return the state of the swarm's last update, empty before there is a service."""
        found = self.swarm.manager.docker.services({"name": SERVICE})  # type: ignore[no-untyped-call]
        return dict(found[0].get("UpdateStatus") or {}) if found else None

    def _tasks(self) -> tuple[Any, ...]:
        return tuple(sorted(self.swarm.tasks(SERVICE), key=lambda each: str(each["CreatedAt"])))

    def running(self) -> set[str]:
        """Return the ids of the nodes on which the service is healthy according to the swarm."""
        found = [each for each in self._tasks() if each["DesiredState"] == each["Status"]["State"] == "running"]
        return {each["NodeID"] for each in found}

    def put_load(self) -> None:
        """Start an origin and an agent on each node that makes requests all the time."""
        for node in self.swarm.nodes:
            peers, firewall = Peers(node.docker), self.on(node)
            firewall.origin(peers, NAMES)
            self.agents[node.name] = firewall.agent(peers, *LOAD)
        for agent in self.agents.values():
            until(lambda agent=agent: any(line.get("done") for line in agent.said()))  # type: ignore[misc]

    def take_load(self) -> dict[str, Any]:
        """Stop the agents, and return the summary of each by its node."""
        found = {name: agent.stop().last for name, agent in self.agents.items()}
        self.agents.clear()
        return found

    def inside(self, node: Node, *arguments: str, program: str = "clawker-fw") -> str:
        """Run a program in the watcher's container of a node, and return its answer."""
        listed = node.call("ps", "--quiet", "--filter", f"name={SERVICE}", "--filter", "status=running")
        return node.call("exec", listed.splitlines()[0], program, *arguments, check=False)


@pytest.fixture(scope="module")
def fleet(
    needs_engine: Callable[..., None], tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Fleet]:
    needs_engine()
    with swarm(2 if pytestconfig.getoption("--thorough") == 1 else 3, disks={SMALL: "1500m"}) as made:
        found = Fleet(made, tmp_path_factory.mktemp("fleet"))
        found.on(made.manager).write(*RULES, **SUBNET, **DRAIN)
        yield found


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A later release that replaces both containers."""
    folder = tmp_path_factory.mktemp("later")
    release = copied_release(folder)
    change_corefile(release)
    change_bootstrap(release)
    return folder


def test_every_node_becomes_current(fleet: Fleet) -> None:
    """A deployed service runs on each node, and is healthy where the stack is verified as current."""
    fleet.load()
    created = fleet.deploy()
    for node in fleet.swarm.nodes:
        assert fleet.on(node).current(), node.name
        assert json.loads(fleet.inside(node, "drift", "--format", "json"))["verdict"] == "current"
        assert json.loads(fleet.inside(node, PAGE, program="clawker-fw-healthy"))["healthy"]
    assert created.nodes == {each.id for each in fleet.swarm.nodes}


def test_tasks_of_a_service_become_agents(fleet: Fleet) -> None:
    """On an internal swarm network, a task reaches nothing; attached, it reaches what the rules allow."""
    manager, config = fleet.swarm.manager, f"{ATTACHED}-config"
    options = ("--opt", "com.docker.network.bridge.inhibit_ipv4=true", "--subnet", "10.215.0.0/24")
    fleet.swarm.on_each(lambda node: node.call("network", "create", "--config-only", *options, config))
    whole = ("--driver", "bridge", "--scope", "swarm", "--internal", "--config-from", config)
    manager.call("network", "create", *whole, ATTACHED)
    image = fleet.swarm.on_each(lambda node: Peers(node.docker).image)[0]
    order = ("--detach", "--no-resolve-image", "--mode", "global", "--name", "work", "--cap-drop", "NET_RAW")
    manager.call("service", "create", *order, "--network", ATTACHED, "--dns", RESOLVER, image, "/peer", "wait")
    for node in fleet.swarm.nodes:
        firewall = fleet.on(node)
        firewall.origin(Peers(node.docker), ["h.test", "denied.test"])
        (agent,) = until(lambda firewall=firewall: agents_of(firewall))  # type: ignore[misc]
        assert agent["state"] == "fenced", agent
        task = Peer(node.docker, agent["id"], agent["name"])
        assert task.get("http://h.test/").ok
        assert task.get("http://denied.test/").kind == "dns-nxdomain"
        assert firewall.call("drift").code == 0, "the agents of services count"
    manager.call("service", "rm", "work")


def agents_of(firewall: Firewall) -> Any:  # noqa: ANN401 - JSON
    """Return the usable agents of a stack, as `status` shows them."""
    return [each for each in firewall.status()["agents"] if each["address"]]


def configs_of(fleet: Fleet) -> set[str]:
    return set(fleet.swarm.manager.call("config", "ls", "--format", "{{.Name}}").split())


def _fill(node: Node, left: int) -> Path:
    """Fill the engine's data file system, except for this many bytes."""
    path = node.engine.root / str(node.engine.folder / "data" / "fill").lstrip("/")
    with path.open("wb") as file:
        room = os.statvfs(path)
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - left)
    return path


def test_a_release_and_rules_go_from_node_to_node(fleet: Fleet, later: Path) -> None:
    """A changed release and rule reach one node after the other, and no agent notices."""
    fleet.load(later)
    fleet.put_load()
    before = configs_of(fleet)
    fleet.on(fleet.swarm.manager).write(*RULES, ADDED, **SUBNET, **DRAIN)
    rolled = fleet.deploy(later)
    assert rolled.state == "completed", (rolled, fleet.swarm.told(SERVICE))
    for earlier, later_task in zip(rolled.tasks, rolled.tasks[1:], strict=False):
        assert later_task["CreatedAt"] >= earlier["Status"]["Timestamp"], (
            "it was begun before the other was healthy"
        )
    assert len(configs_of(fleet) - before) == 1
    for node in fleet.swarm.nodes:
        assert fleet.on(node, later).current(), node.name
        assert not fleet.on(node).current(), "the release is another one"
    for name, summary in fleet.take_load().items():
        assert summary["failed"] == 0, (name, summary)
        assert summary["sent"] > 100, (name, summary)


@pytest.mark.thorough
@pytest.mark.alone
def test_a_leader_that_dies_and_comes_back(fleet: Fleet, later: Path) -> None:
    """Without its leader, all firewalls keep running, the others watch and change, and the dead one catches up."""
    fleet.load(later)
    fleet.put_load()
    dead = next(each for each in fleet.swarm.nodes if each.leads)
    others = [each for each in fleet.swarm.nodes if each is not dead]
    enforcing = [dead.docker.inspect_container(f"clawker-{each}")["State"]["Pid"] for each in SIBLINGS]
    dead.engine.kill()
    until(lambda: any(each.leads for each in others), 60, every=0.5)
    # a rollout that begins before the swarm has noticed waits for the node
    until(lambda: "Down" in others[0].call("node", "ls", "--format", "{{.Status}}"), 60, every=0.5)
    for node in others:
        assert json.loads(fleet.inside(node, PAGE, program="clawker-fw-healthy"))["healthy"], node.name
    fleet.on(others[0]).write(*RULES, **SUBNET, **DRAIN)
    rolled = fleet.deploy(later)
    assert rolled.state == "completed", (rolled, fleet.swarm.told(SERVICE))
    assert rolled.nodes >= {each.id for each in others}
    assert all(fleet.on(node, later).current() for node in others)

    assert all((dead.engine.root / "proc" / str(each)).exists() for each in enforcing), "its siblings have ended"
    dead.engine.start()
    until(lambda: fleet.running() == {each.id for each in fleet.swarm.nodes}, 120, every=0.5)
    assert fleet.on(dead, later).current()
    fleet.agents.pop(dead.name)  # its engine was down, so its agents had no answers
    for name, summary in fleet.take_load().items():
        assert summary["failed"] == 0, (name, summary)


@pytest.mark.thorough
def test_going_back(fleet: Fleet) -> None:
    """Earlier rules return by a rollback, and an earlier release by a deployment."""
    fleet.swarm.manager.call("service", "rollback", "--detach=false", SERVICE)
    rolled = fleet.deploy()
    assert rolled.state == "completed", (rolled, fleet.swarm.told(SERVICE))
    assert all(fleet.on(node).current() for node in fleet.swarm.nodes)


@pytest.mark.thorough
def test_a_node_that_does_not_become_current(fleet: Fleet, later: Path) -> None:
    """A watcher that can't replace its containers is unhealthy, so all nodes roll back; its containers stay."""
    fleet.load(later)
    small = fleet.swarm.nodes[SMALL]
    siblings = [small.docker.inspect_container(f"clawker-{each}")["Id"] for each in SIBLINGS]
    filling = _fill(small, 8 << 20)
    try:
        rolled = fleet.deploy(later)
    finally:
        filling.unlink()
    assert rolled.state == "rollback_completed", (rolled, fleet.swarm.told(SERVICE))
    # the swarm asked it to end, which it did normally
    ended = re.findall(r"^(node\d) Shutdown (?:Complete|Failed) ", fleet.swarm.told(SERVICE), re.MULTILINE)
    assert set(ended) == {small.name}, fleet.swarm.told(SERVICE)
    assert [small.docker.inspect_container(f"clawker-{each}")["Id"] for each in SIBLINGS] == siblings
    assert all(fleet.on(node).current() for node in fleet.swarm.nodes)
