"""The watcher and open agents: what it reports, and which agents it acts on."""

from dataclasses import replace
from functools import partial
from ipaddress import IPv4Network
from typing import NoReturn

import pytest

from clawker_fw.errors import EngineError
from clawker_fw.model.containers import Mount
from clawker_fw.model.differences import Verdict
from clawker_fw.model.networks import NetworkSpec
from clawker_fw.stack.topology import INHIBIT_IPV4
from clawker_fw.watch.reactions import OnOpen
from clawker_fw.watch.schedule import SPACING
from devkit import stacks
from devkit.watched import Watched


def join(watched: Watched, name: str, *, privileged: bool = False, mounts: tuple[Mount, ...] = ()) -> None:
    bare = stacks.bare_container(name, watched.wanted, "clawker-net")
    shape = replace(
        bare.shape,
        dns=("10.213.1.53",),
        capabilities_dropped=("NET_RAW",),
        privileged=privileged,
        mounts=mounts,
    )
    watched.engine.start(watched.engine.create_container(replace(bare, shape=shape)))


def actions(watched: Watched) -> list[str]:
    return [f"{moment:g} {each.agent.name} {each.action}" for moment, each in watched.opened]


def test_an_open_agent_is_reported_once(watched: Watched) -> None:
    """Repeated comparisons give one record, and each verdict is `open`."""
    join(watched, "fine")
    watched.until(70, (10, partial(join, watched, "loose", privileged=True)))
    assert actions(watched) == ["11 loose warn"]
    assert [(moment, each.verdict) for moment, each in watched.decisions] == [
        (0, Verdict.CURRENT),
        (11, Verdict.OPEN),
        (41, Verdict.OPEN),
    ]
    assert watched.engine.inside("loose").status == "running"


@pytest.mark.parametrize("order", [OnOpen.DETACH, OnOpen.STOP])
def test_an_order_is_carried_out_on_the_open_agent_alone(order: OnOpen, watched: Watched) -> None:
    """The open agent is detached or stopped, the others stay, and the next comparison is clean."""
    watched.on_open = order
    join(watched, "fine")
    join(watched, "loose", privileged=True)
    watched.until(25)
    assert actions(watched) == [f"0 loose {order}"]
    assert [(moment, each.verdict) for moment, each in watched.decisions][:2] == [
        (0, Verdict.OPEN),
        (SPACING, Verdict.CURRENT),
    ]
    loose, fine = watched.engine.inside("loose"), watched.engine.inside("fine")
    assert (loose.status, "clawker-net" in loose.networks) == (
        ("exited", True) if order is OnOpen.STOP else ("running", False)
    )
    assert (fine.status, "clawker-net" in fine.networks) == ("running", True)


def test_nobody_is_stopped_for_what_another_agent_may_have_made(
    watched: Watched, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A link that another agent may have made makes an agent open, but the watcher does not act on it."""
    folder = tmp_path_factory.mktemp("settings")
    file = folder / "clawker-fw.yaml"
    file.write_text("rules: []")
    link = tmp_path_factory.mktemp("shared") / "data"
    link.symlink_to(folder)
    watched.wanted = replace(watched.wanted, files=(file,), engine=replace(watched.wanted.engine))
    facts = replace(watched.engine.facts(), endpoint="unix:///x/my.sock")
    watched.engine.facts = lambda: facts  # type: ignore[method-assign]
    watched.on_open = OnOpen.STOP
    join(watched, "victim", mounts=(Mount("bind", "/data", str(link)),))
    join(watched, "writer", mounts=(Mount("bind", "/data", str(folder)),))
    watched.until(25)
    assert "0 victim warn" in actions(watched)
    assert "0 writer stop" in actions(watched)
    assert watched.engine.inside("victim").status == "running"


@pytest.mark.parametrize("order", [OnOpen.DETACH, OnOpen.STOP])
def test_whoever_uses_the_network_of_an_agent_can_only_be_stopped(order: OnOpen, watched: Watched) -> None:
    """It has no network to detach; the agent whose network it shares is left alone."""
    watched.on_open = order
    join(watched, "agent")
    join(watched, "joined", privileged=True)
    joined, agent = watched.engine.inside("joined"), watched.engine.inside("agent")
    watched.engine.join("joined", "agent")
    watched.until(5)
    assert actions(watched) == [f"0 joined {'stop' if order is OnOpen.STOP else 'warn'}"]
    assert agent.status == "running"
    assert joined.status == ("exited" if order is OnOpen.STOP else "running")


def presences(watched: Watched) -> list[str]:
    """Return which agents came and left, as text."""
    return [f"{moment:g} {each.agent.name} {each.change}" for moment, each in watched.present]


def test_agents_come_move_and_leave(watched: Watched) -> None:
    """Each change is reported once, with the agent's address."""
    join(watched, "first")

    def move() -> None:
        watched.engine.inside("first").networks["clawker-net"] = "10.213.0.99"

    watched.until(
        100,
        (10, partial(join, watched, "second")),
        (40, move),
        (50, lambda: watched.engine.remove("second")),
    )
    assert presences(watched) == ["0 first came", "11 second came", "41 first moved", "71 second left"]
    moved = watched.present[2][1]
    assert (moved.agent.address, bool(moved.before)) == ("10.213.0.99", True)
    watched.until(5)  # another watcher
    assert presences(watched) == ["0 first came"]


def test_an_engine_that_goes_away_takes_no_agent_with_it(watched: Watched) -> None:
    """Agents on an unreachable engine are not reported as gone."""
    join(watched, "agent")
    connect = watched.connect

    def fail() -> NoReturn:
        raise EngineError("engine-unreachable", "The engine does not answer.")

    def go() -> None:
        watched.connect = fail
        watched.engine.go_away()

    def come() -> None:
        watched.connect = connect

    watched.until(100, (10, go), (20, come))
    assert presences(watched) == ["0 agent came"]


def test_an_engine_that_refuses_is_reported(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed action is an error record, is retried at the next comparison, and does not stop healing."""

    def refuse(*_: object) -> None:
        raise EngineError("engine-error", "The engine could not stop it.")

    watched.on_open = OnOpen.STOP
    join(watched, "loose", privileged=True)
    monkeypatch.setattr(watched.engine, "stop", refuse)
    watched.until(35)
    assert [each.error for _, each in watched.opened] == ["The engine could not stop it."] * 2


def task(watched: Watched, name: str, network: str = "services") -> None:
    """Start a container as a swarm starts a task."""
    bare = stacks.bare_container(name, watched.wanted, network)
    shape = replace(bare.shape, dns=("10.213.1.53",), capabilities_dropped=("NET_RAW",))
    watched.engine.start(watched.engine.create_container(replace(bare, shape=shape)))


def services(watched: Watched, *, internal: bool) -> None:
    subnet = IPv4Network("172.30.2.0/24")
    watched.engine.create_network(
        NetworkSpec("services", subnet, subnet[1], subnet, internal, {INHIBIT_IPV4: "true"}, {})
    )


def test_a_network_with_a_way_out_attaches_nobody(watched: Watched) -> None:
    """Containers on an external network would be open, so none is attached; that is reported once."""
    services(watched, internal=False)
    task(watched, "loose")
    watched.attach = "services"
    watched.until(70)
    ((moment, refused),) = watched.admitted
    assert (moment, refused.container.name) == (0, "loose")
    assert "has a way out" in refused.error
    assert set(watched.engine.inside("loose").networks) == {"services"}


def test_a_failed_attachment_is_tried_again(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next comparison retries, and the error is reported once."""
    services(watched, internal=True)
    task(watched, "early")
    watched.attach = "services"
    connect, failures = watched.engine.connect, iter([True, True, False])

    def sometimes(network: str, container: str, address: str) -> None:
        if next(failures):
            raise EngineError("engine-error", "No.")
        connect(network, container, address)

    monkeypatch.setattr(watched.engine, "connect", sometimes)
    watched.until(70)
    assert [each.error for _, each in watched.admitted] == ["No.", ""]
