"""Settings on a real engine: a file that an agent can write, and one that is empty for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from clawker_fw.stack.policy import POLICY
from devkit.firewall import Firewall
from devkit.peers import Peers
from devkit.waiting import until
from devkit.watching import watching

OFTEN = ("--interval", "1s", "--drain-timeout", "1s")


@contextmanager
def attached(docker: APIClient, peers: Peers, network: str, *binds: str) -> Iterator[str]:
    """Start an agent with these mounts on a network, as with `docker run -v`."""
    image = docker.inspect_container(peers.start("wait", network="none").container)["Config"]["Image"]
    agent = docker.create_container(
        image, ["/peer", "wait"], host_config=docker.create_host_config(binds=list(binds), network_mode=network)
    )["Id"]
    docker.start(agent)
    try:
        yield docker.inspect_container(agent)["Name"].removeprefix("/")
    finally:
        docker.remove_container(agent, force=True, v=True)


@pytest.mark.parametrize("kind", ["folder", "above", "file", "link"])
def test_status_says_that_the_settings_are_open(
    kind: str, up: Firewall, docker: APIClient, peers: Peers, tmp_path: Path
) -> None:
    """Each form of writable mount is reported; read-only ones and those off the agent network are not."""
    network = f"{up.project}-net"
    link = tmp_path / "link"
    link.symlink_to(up.folder)
    where = {"folder": up.folder, "above": up.folder.parent, "file": up.settings, "link": link}[kind]
    with (
        attached(docker, peers, network, f"{where}:/work:ro"),
        attached(docker, peers, f"{up.project}-egress", f"{where}:/work"),
    ):
        assert up.status()["settings"]["open"] == []
        assert "settings_open" not in up.call("run").expect().err
    with attached(docker, peers, network, f"{where}:/work") as agent:
        (found,) = up.status()["settings"]["open"]
        assert (found["container"], found["target"], found["file"]) == (agent, "/work", str(up.settings))
        assert f"{agent} can write {up.settings}" in up.call("status").expect().out
        for verb in ("run", "reload"):
            assert "event=settings_open" in up.call(verb).expect().err


def unused(decision: dict[str, Any]) -> str:
    """Return the code of the error for which the settings are not applied, or an empty string."""
    return str(decision.get("settings_unused", {}).get("code", ""))


def test_a_watcher_does_not_apply_what_an_agent_could_have_written(
    up: Firewall, docker: APIClient, peers: Peers
) -> None:
    """A change is reported and not applied, and the old rules stay in force, until a person runs `reload`."""
    network = f"{up.project}-net"
    with attached(docker, peers, network, f"{up.folder}:/work"), watching(up, "--heal", "all", *OFTEN) as watched:
        up.write("evil.test")
        reported = watched.wait(lambda each: unused(each) == "settings-open")
        assert "is mounted at /work" in str(reported["settings_unused"])
        assert reported["level"] == "error"
        before = len(watched.decisions)
        docker.kill(up.container("envoy"))
        watched.healed(since=before)
        assert ("coredns", "hot", POLICY, "settings", "commit") in up.drift().findings
        before = len(watched.decisions)
        up.call("reload").expect()
        watched.wait(lambda each: not unused(each) and each["verdict"] == "open", since=before)
        assert up.current()


def test_a_watcher_applies_what_no_agent_could_have_written(up: Firewall, docker: APIClient, peers: Peers) -> None:
    """Positive control: with a read-only mount, the same change is applied."""
    network = f"{up.project}-net"
    binds = f"{up.folder}:/work:ro"
    with attached(docker, peers, network, binds), watching(up, "--heal", "all", *OFTEN) as watched:
        up.write("other.test")
        watched.healed()
        assert up.current()


def test_an_emptied_file_cuts_nobody(up: Firewall, docker: APIClient, peers: Peers) -> None:
    """Agents are served, and a stopped sibling is started; `rules: []` is applied."""
    up.origin(peers, ["h.test"])
    agent = up.agent(peers)
    with watching(up, "--heal", "all", *OFTEN) as watched:
        assert agent.get("http://h.test/").ok
        before = len(watched.decisions)
        up.settings.write_text("")
        watched.wait(lambda each: each.get("code") == "settings-invalid", since=before)
        docker.stop(up.container("coredns"))
        healed = watched.healed(since=before)
        assert (healed["verdict"], unused(healed)) == (None, "settings-invalid")
        until(lambda: agent.get("http://h.test/").ok)
        up.write()
        until(lambda: not agent.get("http://h.test/").ok)
