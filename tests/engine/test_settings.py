"""Settings on a real engine: a file that an agent can write, and one that is empty for a while."""

from typing import Any

import pytest
from docker import APIClient

from devkit.firewall import Firewall
from devkit.peers import Peers
from devkit.waiting import until
from devkit.watching import watching

OFTEN = ("--interval", "1s")


@pytest.fixture
def up(lent: Firewall) -> Firewall:
    """A stack that is up and current, and need not be new."""
    return lent


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
