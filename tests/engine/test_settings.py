"""Settings on a real engine: a file that an agent can write, and one that is empty for a while."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from devkit.firewall import Firewall
from devkit.peers import Peers
from devkit.waiting import until
from devkit.watching import watching

OFTEN = ("--interval", "1s", "--drain-timeout", "1s")


@pytest.fixture
def up(lent: Firewall) -> Firewall:
    """A stack that is up and current, and need not be new."""
    return lent


@contextmanager
def attached(docker: APIClient, peers: Peers, network: str, *binds: str) -> Iterator[str]:
    """Start an agent with these mounts on a network, as with `docker run -v`."""
    host = docker.create_host_config(binds=list(binds), network_mode=network)
    agent = docker.create_container(peers.image, ["/peer", "wait"], host_config=host)["Id"]
    docker.start(agent)
    try:
        yield docker.inspect_container(agent)["Name"].removeprefix("/")
    finally:
        docker.remove_container(agent, force=True, v=True)


def test_status_says_that_the_settings_are_open(
    up: Firewall, docker: APIClient, peers: Peers, tmp_path: Path
) -> None:
    """Each form of writable mount is reported; read-only ones and those off the agent network are not."""
    link = tmp_path / "link"
    link.symlink_to(up.folder)
    forms = (up.folder, up.folder.parent, up.settings, link)
    network = f"{up.project}-net"
    with ExitStack() as harmless:
        for form in forms:
            harmless.enter_context(attached(docker, peers, network, f"{form}:/work:ro"))
            harmless.enter_context(attached(docker, peers, f"{up.project}-egress", f"{form}:/work"))
        assert up.status()["settings"]["open"] == []
        assert "can write" not in up.call("run").expect().err
    with ExitStack() as harmful:
        agents = [harmful.enter_context(attached(docker, peers, network, f"{form}:/work")) for form in forms]
        found = up.status()["settings"]["open"]
        named = sorted((each["container"], each["target"], each["file"]) for each in found)
        assert named == sorted((agent, "/work", str(up.settings)) for agent in agents)
        text = up.call("status").expect().out
        assert [agent for agent in agents if f"{agent} can write {up.settings}" not in text] == []
        for verb in ("run", "reload"):
            warned = [line for line in up.call(verb).expect().err.splitlines() if "can write" in line]
            assert [agent for agent in agents if not any(agent in line for line in warned)] == []


def unused(decision: dict[str, Any]) -> str:
    """Return the code of the error for which the settings are not applied, or an empty string."""
    return str(decision.get("settings_unused", {}).get("code", ""))


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
