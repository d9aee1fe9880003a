"""Many hosts: which there are, what a swarm's manager says of its nodes, and how all are asked at once."""

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from clawker_fw.engine.locate import EngineLocation
from clawker_fw.errors import EngineError
from clawker_fw.fleet import hosts, swarm
from clawker_fw.fleet.hosts import NodeState, ask_all
from clawker_fw.model import Swarm, SwarmNode, SwarmTask
from tests.unit.test_locate import write_context


def context(folder: Path, name: str, host: str) -> None:
    """Write a docker context, as `docker context create` does."""
    write_context(folder, name, {"docker": {"Host": host, "SkipTLSVerify": False}} if host else {})


@pytest.fixture
def contexts(tmp_path: Path) -> Mapping[str, str]:
    """The variables of a docker CLI with four contexts: two of the same engine, and one without an engine."""
    real, link = tmp_path / "real.sock", tmp_path / "link.sock"
    link.symlink_to(real)
    context(tmp_path, "build-10", "ssh://build-10")
    context(tmp_path, "build-9", f"unix://{real}")
    context(tmp_path, "again", f"unix://{link}")
    context(tmp_path, "kubernetes", "")
    return {"DOCKER_CONFIG": str(tmp_path), "DOCKER_HOST": "ssh://build-10"}


def test_all_contexts_are_hosts_each_engine_once(contexts: Mapping[str, str]) -> None:
    """A context of the same engine as another is told and left out, and one that names no engine has a row."""
    found = hosts.all_contexts(contexts)
    assert [each.name for each in found.hosts] == ["again", "build-10", "kubernetes"]
    assert [(each.name, each.same_as) for each in found.left_out] == [
        ("build-9", "again"),
        ("default", "build-10"),
    ]
    (broken,) = (each for each in found.hosts if each.place is None)
    assert broken.trouble is not None
    assert broken.trouble.code == "context-unusable"


def test_named_hosts(contexts: Mapping[str, str]) -> None:
    """What is named is a host, once, also if another name is of the same engine; an unknown name is an error."""
    found = hosts.named(["build-9", "again", "build-9"], ["ssh://root@c:22", "ssh://root@c:22"], contexts)
    assert [each.name for each in found.hosts] == ["again", "build-9", "ssh://root@c:22"]
    assert [each.place.source for each in found.hosts if each.place][-1] == "--host"
    assert found.left_out == ()
    with pytest.raises(EngineError, match="no docker context called 'nobody'"):
        hosts.named(["nobody"], [], contexts)
    with pytest.raises(EngineError, match="not the address"):
        hosts.named([], ["https://nobody"], contexts)


def node(name: str, address: str, state: str = "ready", *, itself: bool = False) -> SwarmNode:
    """Return a node."""
    return SwarmNode(f"{address}-{name}", name, address, state, "active", "worker", itself)


MANAGER = EngineLocation("unix:///var/run/docker.sock", "the default")


def test_nodes_are_reached_by_contexts_or_over_ssh() -> None:
    """The manager is asked itself; a context for a node's name or address is used, else ssh to its address."""
    named = EngineLocation("tcp://two:2376", "docker context prod-two")
    addressed = EngineLocation("ssh://me@10.0.0.3:2200", "docker context three")
    nodes = (
        node("one", "10.0.0.1", itself=True),
        node("two", "10.0.0.2"),
        node("three", "10.0.0.3"),
        node("four", "10.0.0.4"),
        node("five", "fd00::5"),
        node("six", ""),
    )
    found = swarm.nodes(Swarm(nodes, ()), "clawker", MANAGER, [named, addressed, MANAGER])
    places = {
        each.name: each.place.address if each.place else each.trouble and each.trouble.code for each in found
    }
    assert places == {
        "one": MANAGER.address,
        "two": named.address,
        "three": addressed.address,
        "four": "ssh://10.0.0.4",
        "five": "ssh://[fd00::5]",
        "six": "node-without-address",
    }


def test_what_the_manager_knows_of_a_node() -> None:
    """A node that is away is a row at once; the watcher's word counts only while the node is there."""
    nodes = (node("a", "10.0.0.1"), node("a", "10.0.0.2"), node("gone", "10.0.0.3", "down"))
    tasks = tuple(
        SwarmTask(each.id, "fw_watch", project, "running", "2026-01-01T00:00:00Z", "started")
        for each, project in zip(nodes, ("clawker", "other", ""), strict=True)
    )
    first, second, gone = swarm.nodes(Swarm(nodes, tasks), "clawker", MANAGER, [])
    assert [first.name, second.name] == ["a (10.0.0.1-a)", "a (10.0.0.2-a)"]
    assert first.node == NodeState("ready", "active", "worker", "running", "2026-01-01T00:00:00Z", "started")
    assert first.node.proven
    assert second.node is not None
    assert second.node.watcher is None
    assert gone.trouble is not None
    assert (gone.place, gone.trouble.code) == (None, "node-away")
    assert gone.node is not None
    assert (gone.node.watcher, gone.node.proven) == ("running", False)


def test_each_host_has_its_own_answer_in_order() -> None:
    """Hosts that hang cost their own answers alone: others wait neither for them nor for their turns."""
    hanging, many = {1, 20}, 40

    def ask(host: int) -> str:
        if host in hanging:
            threading.Event().wait()
        return f"answer {host}"

    found = ask_all(range(many), ask, lambda host: f"late {host}", 2)
    assert found == [f"late {host}" if host in hanging else f"answer {host}" for host in range(many)]
