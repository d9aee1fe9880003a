"""A watcher on a real engine repairs a stack, and touches nothing else."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from clawker_fw.engine.docker import connect
from clawker_fw.reconcile.observe import observe
from clawker_fw.stack.envoy.sibling import LISTENERS
from clawker_fw.watch.decision import ours
from devkit import stacks
from devkit.engines import PrivateEngine
from devkit.firewall import RULES, Firewall, upgraded
from devkit.hand import Hand
from devkit.host import client
from devkit.peers import Peers
from devkit.waiting import until
from devkit.watching import Watching, watching

ENVOY, COREDNS = "envoy", "coredns"
NEVER = ("--interval", "1h")
"""Options with which only events cause comparisons."""

NOTICED_SECONDS = 3.0
"""Seconds until a comparison: one without writes to the file, half of one between checks, and load."""


@pytest.fixture(scope="module")
def watched(shared: Firewall) -> Iterator[Watching]:
    with watching(shared, *NEVER) as found:
        yield found
        assert found.stop() == 0


@pytest.fixture
def hand(docker: APIClient, shared: Firewall, peers: Peers, watched: Watching) -> Hand:
    """A user who tampers with a stack that a watcher keeps current."""
    del watched
    return Hand(docker, shared, peers)


TAMPERS: dict[str, Callable[[Hand], object]] = {
    # the contract suite tests the event of each kind; `devkit.tampering` has the other changes
    "removed coredns": lambda hand: hand.take_away(COREDNS),
    "envoy without egress": lambda hand: hand.docker.disconnect_container_from_network(
        hand.name(ENVOY), f"{hand.firewall.project}-egress"
    ),
    "lost image": lambda hand: hand.docker.remove_image(hand.inspect(ENVOY)["Config"]["Image"], force=True),
    "listeners": lambda hand: hand.write(ENVOY, LISTENERS, b'{"resources": []}'),
}


@pytest.mark.parametrize("name", TAMPERS)
def test_what_somebody_does_is_healed(name: str, hand: Hand, watched: Watching) -> None:
    """An event causes the repair of tampering within seconds, and the result is verified."""
    before = len(watched.decisions)
    TAMPERS[name](hand)
    healed = watched.healed(since=before)
    assert healed["trigger"] == "event"
    until(hand.firewall.current)


def test_a_run_beside_the_watcher(hand: Hand, watched: Watching) -> None:
    """A `run` and the watcher take turns, and one stack is left."""
    hand.firewall.draining("0").run("--force-recreate", "--lock-wait", "30s")
    until(hand.firewall.current)
    until(lambda: watched.decisions[-1]["verdict"] == "current")
    found = hand.docker.containers(all=True, filters={"name": hand.firewall.project})
    names = sorted(name for each in found for name in each["Names"])
    assert names == [f"/{hand.firewall.project}-coredns", f"/{hand.firewall.project}-envoy"]


def test_a_container_that_does_not_run_yet_is_known_by_its_network(shared: Firewall, docker: APIClient) -> None:
    """Engines report a container's future network, so even a late start is noticed."""
    image = docker.inspect_container(shared.container(COREDNS))["Image"]
    made = docker.create_container(
        image, host_config=docker.create_host_config(network_mode=f"{shared.project}-net"), entrypoint=["/none"]
    )
    try:
        with closing(connect(shared.host, None, {})) as engine:
            seen = observe(engine, shared.project)
        assert made["Id"] in ours(shared.project, seen).waiting
    finally:
        docker.remove_container(made["Id"], v=True)


def test_a_saved_rule_is_live_within_seconds(up: Firewall, peers: Peers) -> None:
    """The interval is an hour, so the watcher must notice the saved file, and applies it."""
    up.origin(peers, ["saved.test"])
    agent = up.agent(peers)
    assert not agent.get("http://saved.test/").ok
    with watching(up, *NEVER, "--heal", "all") as found:
        saved, before = time.monotonic(), len(found.decisions)
        up.write(*RULES, {"dst": "saved.test", "proto": "http", "allow_private": True})
        healed = found.healed(since=before)
        assert agent.get("http://saved.test/").ok
        assert healed["trigger"] == "event"
        assert healed["read"] - healed["seconds"] - saved < NOTICED_SECONDS
        assert found.stop() == 0


def test_an_upgrade_under_a_watcher_ends_it(up: Firewall, docker: APIClient, tmp_path: Path) -> None:
    """The watcher reports the reason, and leaves the stack to the new code."""
    release = stacks.copied_release(tmp_path / "own")
    own = upgraded(up, tmp_path / "own")
    with watching(own, *NEVER) as found:
        stacks.change_file(release.package / "__init__.py", lambda text: text + b"# newer\n")
        docker.kill(up.container(ENVOY))
        assert found.process.wait(120) == 6
    assert [each["code"] for each in found.records if each["event"] == "error"] == ["release-changed"]
    assert not docker.inspect_container(up.container(ENVOY))["State"]["Running"]


@pytest.fixture(scope="module")
def remote(private: PrivateEngine, tmp_path_factory: pytest.TempPathFactory) -> Firewall:
    """A stack on an engine that may be restarted and killed. Each test leaves it current."""
    firewall = Firewall(private.host, "clawker", tmp_path_factory.mktemp("remote"))
    firewall.write("a.test")
    firewall.run()
    return firewall


def test_a_program_that_crashes_is_left_to_the_engine(private: PrivateEngine, remote: Firewall) -> None:
    """The container's restart policy restarts it, and nothing is replaced."""
    firewall = remote
    with watching(firewall, *NEVER) as found, closing(client(private.host)) as sdk:
        for sibling in (ENVOY, COREDNS):
            before, compared = sdk.inspect_container(firewall.container(sibling)), len(found.decisions)
            _kill_in(private, before["State"]["Pid"])
            found.wait(_is_current, since=compared)
            until(firewall.current)
            after = sdk.inspect_container(firewall.container(sibling))
            assert after["Id"] == before["Id"]
            assert after["State"]["StartedAt"] != before["State"]["StartedAt"]
        assert found.stop() == 0


def _kill_in(engine: PrivateEngine, process: int) -> None:
    inside = ["nsenter", f"--target={engine.init}", "--pid", "--mount"]
    subprocess.run([*inside, "sh", "-c", f"kill -KILL {process}"], check=True)


def test_an_engine_that_is_killed(private: PrivateEngine, remote: Firewall) -> None:
    """The watcher waits for the engine, compares as soon as it answers, and repairs as before."""
    firewall = remote
    with watching(firewall, *NEVER) as found, closing(client(private.host)) as sdk:
        private.kill()
        private.start()
        before = len(found.decisions)
        found.wait(_is_current, since=max(1, before - 1))
        until(firewall.current)
        before = len(found.decisions)
        sdk.kill(firewall.container(ENVOY))
        found.healed(since=before)
        until(firewall.current)
        assert found.stop() == 0


def _is_current(decision: dict[str, Any]) -> bool:
    return bool(decision["verdict"] == "current")
