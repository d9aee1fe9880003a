"""Groups of agents on a real engine: each has a stack of its own, and one watcher keeps all of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker import APIClient

from clawker_fw.watch.healthy import ask
from devkit.firewall import Firewall, brought_up
from devkit.peers import Peers
from devkit.waiting import until
from devkit.watching import Watching, watching

REACHED = {"": {"a.test"}, "web": {"a.test", "w.test"}, "work": {"r.test"}}
"""The names that the agents of each group may reach, "" above the groups."""


def rule(name: str) -> dict[str, object]:
    return {"dst": name, "proto": "http", "allow_private": True}


GROUPS = {"web": {"rules": [rule("w.test")]}, "work": {"inherit": False, "rules": [rule("r.test")]}}


def write(firewall: Firewall, **more: object) -> None:
    """Write the settings as people do, so that rules can be edited in place."""
    firewall.settings.write_text(yaml.safe_dump({"rules": [rule("a.test")], "groups": {**GROUPS, **more}}))


def answers(firewall: Firewall, command: str) -> dict[str, Any]:
    """Return a command's answer about each stack, by group."""
    found = firewall.call(command, "--format", "json").json["stacks"]
    return {each["group"] or "": each for each in found}


def stack_of(firewall: Firewall, group: str) -> str:
    return f"{firewall.project}-{group}" if group else firewall.project


def started(docker: APIClient, stack: str) -> list[tuple[str, str]]:
    found = [docker.inspect_container(f"{stack}-{sibling}") for sibling in ("envoy", "coredns")]
    return [(each["Id"], each["State"]["StartedAt"]) for each in found]


@pytest.fixture(scope="module")
def grouped(host: str, docker: APIClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firewall]:
    folder = tmp_path_factory.mktemp("groups")
    with brought_up(host, docker, folder, rule("a.test"), groups=GROUPS) as firewall:
        yield firewall


def test_an_agent_reaches_what_its_own_group_may(grouped: Firewall, peers: Peers) -> None:
    """Each origin's log has the requests of its own group's agents to the hosts of its rules, and no others."""
    names, status = sorted(set().union(*REACHED.values())), answers(grouped, "status")
    for group, allowed in REACHED.items():
        origin = peers.origin(f"{stack_of(grouped, group)}-egress", names, "--http", "80", "--tell")
        how = status[group]["agent"]
        agent = peers.agent(how["network"], how["dns"])
        assert {name for name in names if agent.get(f"http://{name}/").ok} == allowed
        assert {line["host"] for line in origin.said() if line["event"] == "request"} == allowed


def test_groups_do_not_meet(grouped: Firewall, peers: Peers) -> None:
    """No agent reaches another group's Envoy or agents, whose own agents reach both."""
    peers.origin(f"{stack_of(grouped, 'work')}-egress", ["r.test"], "--http", "80")
    status = answers(grouped, "status")
    here, there = (
        peers.agent(how["network"], how["dns"], "origin", "--http", "80")
        for how in (status[group]["agent"] for group in ("web", "work"))
    )
    envoy, agent = status["work"]["siblings"][0]["address"], there.address(f"{stack_of(grouped, 'work')}-net")
    for place in (envoy, agent):
        assert there.get("http://r.test/", "--connect", place).ok
        assert not here.get("http://r.test/", "--connect", place, "--timeout", "1s").ok


def test_a_rule_of_one_group_touches_no_other(grouped: Firewall, docker: APIClient) -> None:
    """The containers of the others stay as they are, and what they have applied as well."""
    others = [stack_of(grouped, group) for group in ("", "work")]
    before, applied = [started(docker, stack) for stack in others], answers(grouped, "status")
    write(grouped)
    grouped.call("rules", "allow", "https://new.example", "--group", "web").expect()
    assert "new.example" in grouped.call("rules", "list", "--group", "web").out
    assert [started(docker, stack) for stack in others] == before
    after = answers(grouped, "status")
    assert {group: after[group]["siblings"] == applied[group]["siblings"] for group in after} == {
        "": True,
        "web": False,
        "work": True,
    }
    assert grouped.current()


def test_one_watcher_keeps_all_groups(grouped: Firewall, docker: APIClient, peers: Peers, tmp_path: Path) -> None:
    """It heals a group's stack, creates that of a new group, and leaves that of a removed one, with a word."""
    page, above = f"unix:{tmp_path / 'watch.sock'}", started(docker, grouped.project)
    with watching(grouped, "--interval", "1h", "--heal", "all", "--listen", page) as watched:
        until(lambda: _health(page)["healthy"])
        docker.remove_container(f"{stack_of(grouped, 'web')}-coredns", force=True, v=True)
        until(lambda: _healed(watched, stack_of(grouped, "web")))
        assert b'clawker_fw_heals_total{action="create",group="web",outcome="done"} 1.0' in ask_for(page)
        write(grouped, new={})
        until(lambda: [each["group"] for each in _health(page)["stacks"]] == [None, "new", "web", "work"])
        until(lambda: _health(page)["healthy"], 60)
        write(grouped)
        until(lambda: [each["group"] for each in _health(page)["stacks"]] == [None, "web", "work"])
        left = stack_of(grouped, "new")
        until(lambda: any(left in word for each in watched.decisions for word in each.get("warnings", ())))
        assert started(docker, grouped.project) == above
        assert watched.stop() == 0
    agent = peers.agent(f"{left}-net", "127.0.0.1")
    refused = grouped.call("run", "--remove-orphans")
    assert (refused.code, left in refused.err) == (6, True)
    agent.remove()
    grouped.call("run", "--remove-orphans").expect()
    assert not docker.containers(all=True, filters={"name": left})
    assert "left-over" not in grouped.call("drift", "--format", "json").out


def _health(page: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads(ask(page)[1])


def ask_for(page: str) -> bytes:
    return ask(page, "/metrics")[1].encode()


def _healed(watched: Watching, stack: str) -> bool:
    return any(each.get("stack") == stack and each.get("outcome") == "done" for each in watched.decisions)
