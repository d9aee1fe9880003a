"""Three engines in one swarm, each kept current by a watcher of one service: printed, deployed, changed."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devkit.firewall import RULES
from devkit.rollout import SERVICE, Fleet
from devkit.stacks import change_bootstrap, change_corefile, copied_release
from devkit.swarm import Node, swarm
from devkit.waiting import until

SUBNET = {"network": {"subnet": "10.213.0.0/23"}}
DRAIN = {"drain_timeout": "2s"}
ADDED = {"dst": "added.test", "allow_private": True}
SMALL = 2
"""The node whose engine has little room."""


@pytest.fixture(scope="module")
def fleet(needs_engine: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A swarm of three, without a service yet."""
    needs_engine()
    with swarm(3, disks={SMALL: "1500m"}) as made:
        found = Fleet(made, tmp_path_factory.mktemp("fleet"))
        found.on(made.manager).write(*RULES, **SUBNET, **DRAIN)
        yield found


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A later release, which replaces both siblings."""
    folder = tmp_path_factory.mktemp("later")
    release = copied_release(folder)
    change_corefile(release)
    change_bootstrap(release)
    return folder


def test_every_node_becomes_current(fleet: Fleet) -> None:
    """A service that was deployed runs on each node, and is healthy where the stack is proven to be current."""
    fleet.load()
    created = fleet.deploy()
    print(f"all three are current {created.seconds:.1f} s after the service was created")
    for node in fleet.swarm.nodes:
        assert fleet.on(node).current(), node.name
        assert json.loads(fleet.inside(node, "drift", "--format", "json"))["verdict"] == "current"
        assert json.loads(fleet.inside(node, "healthy", "unix:/run/clawker-fw/watch.sock"))["healthy"]
    assert created.nodes == {each.id for each in fleet.swarm.nodes}


def _fill(node: Node, left: int) -> Path:
    """Fill the file system of an engine's data, but for so many octets."""
    path = node.engine.root / str(node.engine.folder / "data" / "fill").lstrip("/")
    with path.open("wb") as file:
        room = os.statvfs(path)
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - left)
    return path


def test_a_full_node_stops_a_rollout(fleet: Fleet, later: Path) -> None:
    """A release that one node has no room for goes nowhere: the others go back, and the swarm names the node."""
    small = fleet.swarm.nodes[SMALL]
    filling = _fill(small, 100 << 20)
    with pytest.raises(AssertionError, match="on node3: (.|\n)*no space left on device"):
        fleet.load(later)
    rolled = fleet.deploy(later)
    assert rolled.state == "rollback_completed", rolled
    failed = re.findall(r"^(node\d) Shutdown Rejected .*(No such image.*)$", fleet.swarm.told(SERVICE), re.MULTILINE)
    assert {name for name, _ in failed} == {small.name}, fleet.swarm.told(SERVICE)
    for node in fleet.swarm.nodes:
        assert fleet.on(node).current(), f"{node.name} is not as before"
    filling.unlink()


@pytest.mark.alone
def test_a_release_and_rules_go_from_node_to_node(fleet: Fleet, later: Path) -> None:
    """A release and a rule that have changed reach one node after the other, and no agent notices."""
    fleet.load(later)
    fleet.put_load()
    before = {each["Spec"]["Name"] for each in fleet.swarm.manager.docker.configs()}
    fleet.on(fleet.swarm.manager).write(*RULES, ADDED, **SUBNET, **DRAIN)
    rolled = fleet.deploy(later)
    assert rolled.state == "completed", (rolled, fleet.swarm.told(SERVICE))
    print(f"all three have another release and other rules after {rolled.seconds:.1f} s")
    assert rolled.was_ring_by_ring, rolled.tasks
    assert len({each["Spec"]["Name"] for each in fleet.swarm.manager.docker.configs()} - before) == 1
    for node in fleet.swarm.nodes:
        assert fleet.on(node, later).current(), node.name
        assert not fleet.on(node).current(), "the release is another one"
    for name, summary in fleet.take_load().items():
        assert summary["failed"] == 0, (name, summary)
        assert summary["sent"] > 100, (name, summary)


@pytest.mark.thorough
@pytest.mark.alone
def test_a_rule_alone(fleet: Fleet, later: Path) -> None:
    """A rule that has changed is live on all nodes soon, without a new container and without a failed request."""
    fleet.put_load()
    siblings = [node.docker.inspect_container("clawker-envoy")["Id"] for node in fleet.swarm.nodes]
    fleet.on(fleet.swarm.manager).write(*RULES, **SUBNET, **DRAIN)
    rolled = fleet.deploy(later)
    print(f"all three have another rule after {rolled.seconds:.1f} s")
    assert rolled.state == "completed", (rolled, fleet.swarm.told(SERVICE))
    assert [node.docker.inspect_container("clawker-envoy")["Id"] for node in fleet.swarm.nodes] == siblings
    assert all(fleet.on(node, later).current() for node in fleet.swarm.nodes)
    for name, summary in fleet.take_load().items():
        assert summary["failed"] == 0, (name, summary)


@pytest.mark.thorough
@pytest.mark.alone
def test_a_manager_that_dies(fleet: Fleet, later: Path) -> None:
    """Without the leader, every node goes on enforcing, and others watching; a rollout goes on, and reaches it later."""
    fleet.put_load()
    dead, *others = fleet.swarm.nodes
    dead.engine.kill()
    fleet.on(others[0]).write(*RULES, ADDED, **SUBNET, **DRAIN)
    try:
        until(lambda: "Leader" in others[0].call("node", "ls", check=False), 60, every=0.5)
        for node in others:
            assert json.loads(fleet.inside(node, "healthy", "unix:/run/clawker-fw/watch.sock"))["healthy"]
    finally:
        summaries = {}
        for node in others:
            summaries[node.name] = fleet.agents.pop(node.name).stop().last
        dead.engine.start()
    for name, summary in summaries.items():
        assert summary["failed"] == 0, (name, summary)
