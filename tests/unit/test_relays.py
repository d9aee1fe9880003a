"""Relays: one for each agent that publishes ports, compared and replaced like other containers."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from clawker_fw.agents.attachment import require_serving
from clawker_fw.agents.docker_options import free_number
from clawker_fw.agents.judge import Confinement
from clawker_fw.errors import NotProvenError, RefusedError
from clawker_fw.model.containers import ContainerSpec, Shape
from clawker_fw.model.differences import Action, Cause, Verdict
from clawker_fw.model.engines import Event
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import converge, pipeline
from clawker_fw.reconcile.apply import RunContext
from clawker_fw.reconcile.pipeline import Comparison
from clawker_fw.reconcile.plan import teardown
from clawker_fw.reconcile.steps import ConvergeOptions, Remove, RemoveNetwork
from clawker_fw.stack import labels, topology
from clawker_fw.stack.topology import Addressing
from clawker_fw.watch.decision import matters, ours
from devkit import stacks
from devkit.memory.engine import MemoryEngine

pytestmark = pytest.mark.usefixtures("up")

ADDRESS = "10.213.1.129"
RELAY = "clawker-relay-0"
LABEL = "0 127.0.0.1::443 127.0.0.1:8080:80"


def published(
    memory: MemoryEngine, name: str = "web", *, label: str = LABEL, address: str = ADDRESS, run: bool = True
) -> str:
    """Create and start an agent as `agent run --publish` does."""
    image = memory.inside("clawker-coredns").spec.image
    shape = Shape(
        (),
        (),
        {"clawker-net": address},
        dns=("10.213.1.53",),
        dns_search=(".",),
        capabilities_dropped=("NET_RAW",),
    )
    agent = memory.create_container(ContainerSpec(name, image, {labels.PUBLISHES: label} if label else {}, shape))
    if run:
        memory.start(agent)
    return agent


def compared(memory: MemoryEngine) -> Comparison:
    return pipeline.compare(memory, stacks.blueprint(memory.facts(), "a.test"))


def run(memory: MemoryEngine) -> Comparison:
    return stacks.converged(memory, stacks.blueprint(memory.facts(), "a.test"))


def found(seen: Comparison) -> list[tuple[str, Cause, Action]]:
    return [(each.field, each.cause, each.action) for each in seen.diff.findings]


def test_a_relay_comes_and_goes_with_its_agent(memory: MemoryEngine) -> None:
    """An agent that publishes ports has a relay until it is removed, also while it is stopped."""
    agent = published(memory)
    seen = compared(memory)
    assert found(seen) == [(f"relays.{RELAY}", Cause.AGENT, Action.PUBLISH)]
    assert (seen.diff.verdicts[Sibling.ENVOY], seen.diff.verdict) == (Verdict.CURRENT, Verdict.DRIFTED)
    before = {name: memory.inside(f"clawker-{name}").id for name in Sibling}
    assert run(memory).diff.verdict is Verdict.CURRENT
    assert {name: memory.inside(f"clawker-{name}").id for name in Sibling} == before
    relay = memory.inside(RELAY)
    assert (relay.status, relay.networks) == (
        "running",
        {"clawker-net": "10.213.1.128", "clawker-publish": "10.214.1.128"},
    )
    assert relay.spec.shape.command == (
        *("relay", "10.213.1.128/23", "10.214.1.128/24", "-", ADDRESS),
        *("80", "443"),
    )
    assert relay.spec.shape.ports == ("127.0.0.1:8080:80/tcp", "127.0.0.1::443/tcp")
    (judged,) = compared(memory).agents
    assert (judged.confinement, judged.published) == (
        Confinement.FENCED,
        ("127.0.0.1:32768:443", "127.0.0.1:8080:80"),
    )
    memory.stop(agent)
    assert found(compared(memory)) == []
    memory.start(agent)
    memory.remove(agent)
    seen = compared(memory)
    assert found(seen) == [(f"relays.{RELAY}", Cause.AGENT, Action.UNPUBLISH)]
    assert seen.diff.verdict is Verdict.CURRENT
    run(memory)
    assert memory.container(RELAY) is None


def _reshaped(**fields: Any) -> Callable[[MemoryEngine], None]:  # noqa: ANN401 - fields of a shape
    def change(memory: MemoryEngine) -> None:
        relay = memory.inside(RELAY)
        relay.spec = replace(relay.spec, shape=replace(relay.spec.shape, **fields))

    return change


def _rewritten(memory: MemoryEngine) -> None:
    relay = memory.inside(RELAY)
    relay.files["bin/fwctl"] = replace(relay.files["bin/fwctl"], content=b"another program")


def _rerouted(memory: MemoryEngine) -> None:
    memory.inside(RELAY).relayed = ("route default via 10.214.1.1 is not ours",)


TAMPERED: dict[str, tuple[Callable[[MemoryEngine], None], str]] = {
    "stopped": (lambda memory: memory.stop(RELAY), f"{RELAY}.status"),
    "taken off": (lambda memory: memory.disconnect("clawker-publish", RELAY), f"{RELAY}.networks.clawker-publish"),
    "other ports": (_reshaped(ports=("0.0.0.0:8080:80/tcp",)), f"{RELAY}.ports"),
    "privileged": (_reshaped(privileged=True), f"{RELAY}.privileged"),
    "another command": (_reshaped(command=("relay", "x")), f"{RELAY}.command"),
    "another program": (_rewritten, f"{RELAY}.bin/fwctl"),
    "another route": (_rerouted, f"{RELAY}.inside"),
    "another network": (
        lambda memory: memory.alter_network("clawker-publish", options={}),
        "network.options.com.docker.network.bridge.enable_ip_masquerade",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_relay_that_was_changed_is_made_again(name: str, memory: MemoryEngine) -> None:
    """Each change is its own finding, keeps no agent from starting, and a run replaces the relay."""
    change, field = TAMPERED[name]
    published(memory)
    run(memory)
    siblings = {each: memory.inside(f"clawker-{each}").id for each in Sibling}
    change(memory)
    seen = compared(memory)
    assert (f"relays.{field}", Cause.TAMPER, Action.PUBLISH) in found(seen)
    assert {(cause, action) for _, cause, action in found(seen)} == {(Cause.TAMPER, Action.PUBLISH)}
    require_serving("clawker", seen.observed, seen.diff)
    assert run(memory).diff.verdict is Verdict.CURRENT
    assert {each: memory.inside(f"clawker-{each}").id for each in Sibling} == siblings


def test_a_relay_of_another_agent_is_made_again(memory: MemoryEngine) -> None:
    """A new agent with the same number gets its own relay."""
    published(memory)
    run(memory)
    first = memory.inside(RELAY).id
    memory.remove("web")
    published(memory, label="0 127.0.0.1:9090:80")
    fields = dict.fromkeys(field for field, *_ in found(compared(memory)))
    assert f"relays.{RELAY}.relay_of" in fields
    assert {cause for _, cause, _ in found(compared(memory))} == {Cause.AGENT}
    run(memory)
    assert memory.inside(RELAY).id != first
    assert memory.inside(RELAY).spec.shape.ports == ("127.0.0.1:9090:80/tcp",)


def test_a_reload_leaves_relays_alone(memory: MemoryEngine) -> None:
    """`reload` only concerns Envoy's and CoreDNS's files: a changed relay does not stop it, and stays."""
    published(memory)
    run(memory)
    memory.stop(RELAY)
    blueprint = stacks.blueprint(memory.facts(), "a.test", "b.test")
    stacks.converged(memory, blueprint, ConvergeOptions(actions=frozenset({Action.COMMIT})))
    assert memory.inside(RELAY).status == "exited"
    seen = pipeline.compare(memory, blueprint)
    assert found(seen) == [(f"relays.{RELAY}.status", Cause.TAMPER, Action.PUBLISH)]


@pytest.mark.parametrize(
    ("label", "address"),
    [
        (LABEL, ""),  # an image may have any label
        (LABEL, "10.213.1.131"),  # the address of number 1
        ("0", ADDRESS),
        ("0 0.0.0.0:22:22 x", ADDRESS),
        ("00 127.0.0.1:8080:80", ADDRESS),
        ("30 127.0.0.1:8080:80", ADDRESS),
        ("-1 127.0.0.1:8080:80", ADDRESS),
        ("0 127.0.0.1:8080:0", ADDRESS),
        ("0 127.0.0.1:8080:65536", ADDRESS),
        ("0 127.0.0.1:8080:80 127.0.0.1:8080:80", ADDRESS),
        ("0 localhost:8080:80", ADDRESS),
    ],
)
def test_a_label_alone_publishes_nothing(label: str, address: str, memory: MemoryEngine) -> None:
    """A label counts only in our exact form, with the address of its number. Otherwise it is a weakness."""
    published(memory, label=label, address=address)
    seen = compared(memory)
    assert found(seen) == []
    (agent,) = seen.agents
    assert "labels" in {each.code for each in agent.weaknesses}
    assert (agent.confinement is Confinement.OPEN) == bool(address)  # the address is the firewall's


def test_two_agents_with_one_number(memory: MemoryEngine) -> None:
    """The running agent has the relay."""
    stopped = published(memory, "a", run=False)
    memory.inside(stopped).networks["clawker-net"] = ""
    running = published(memory, "b", label="0 127.0.0.1:9090:80")
    run(memory)
    assert memory.inside(RELAY).spec.labels[labels.RELAY_OF] == running


def test_a_relay_that_does_not_listen_is_removed(memory: MemoryEngine) -> None:
    """The run reports it with the relay's log, and removes the relay."""

    class Deaf(MemoryEngine):
        def ask_helper(self, container: str, arguments: Any, silence: float, *, sent: bytes = b"") -> object:  # noqa: ANN401
            if arguments[0] == "relayed":
                return {"network": [], "closed": [80]}
            return super().ask_helper(container, arguments, silence, sent=sent)

    memory.__class__ = Deaf
    published(memory)
    with pytest.raises(NotProvenError) as failed:
        run(memory)
    assert failed.value.code == "relay-not-ready"
    assert "no program listens on port 80" in failed.value.context
    assert memory.container(RELAY) is None


def test_down_removes_relays_and_their_network(memory: MemoryEngine) -> None:
    """The relay is removed before the networks, and nothing is left."""
    agent = published(memory)
    seen = run(memory)
    memory.remove(agent)
    plan = teardown(replace(seen.observed, attached={}), "clawker", detach=False)
    steps = list(plan.steps)
    removed = next(at for at, step in enumerate(steps) if isinstance(step, Remove) and step.name == RELAY)
    network = next(
        at for at, step in enumerate(steps) if isinstance(step, RemoveNetwork) and step.name == "clawker-publish"
    )
    assert removed < network
    converge.take_down(memory, "clawker", RunContext(lambda _: None), detach=False)
    assert [each.name for each in memory.listing()] == []
    assert [each.name for each in memory.networks()] == []


def test_a_watcher_looks_when_such_an_agent_is_removed(memory: MemoryEngine) -> None:
    """The watcher compares when an agent with a relay is removed, but not for programs run in it."""
    agent = published(memory)
    own = ours("clawker", run(memory).observed)
    relay = memory.inside(RELAY).id
    assert matters(Event("container", "destroy", ("web",), agent), own)
    assert not matters(Event("container", "exec_start", ("web",), agent, "sh"), own)
    assert matters(Event("container", "die", (RELAY,), relay), own)
    assert not matters(Event("container", "exec_start", (RELAY,), relay, "/fw/bin/fwctl relayed a b"), own)


def test_numbers_of_agents() -> None:
    """The first free number is chosen; a small network has none."""
    assert free_number({0, 1, 3}, 30) == 2
    network = IPv4Network("10.213.0.0/25")  # the addresses are the firewall's own
    assert Addressing(network, network).publishers == 0
    for taken, most in ((set(range(30)), 30), (set(), 0)):
        with pytest.raises(RefusedError):
            free_number(taken, most)


def test_a_foreign_container_with_the_name_of_a_relay(memory: MemoryEngine) -> None:
    """A foreign container with a relay's name, whatever its labels, stays, and everything else is updated."""
    published(memory)
    image = memory.inside("clawker-coredns").spec.image
    ours = {**labels.ownership_labels("clawker"), labels.RELAY_OF: "somebody"}
    for foreign, name in (({}, "b.test"), (ours, "c.test")):
        wanted = stacks.blueprint(memory.facts(), name)
        other = memory.create_container(ContainerSpec(RELAY, image, foreign, Shape((), (), {})))
        with pytest.raises(NotProvenError) as caught:
            stacks.converged(memory, wanted)
        blocked = f"coredns: state relays.{RELAY} (not made by clawker-fw)"
        assert (caught.value.code, caught.value.context) == ("not-proven", (blocked,))
        assert found(pipeline.compare(memory, wanted)) == [(f"relays.{RELAY}", Cause.AGENT, Action.NONE)]
        assert memory.container(other)
        memory.remove(other)
    stacks.converged(memory, wanted)
    assert memory.inside(RELAY).spec.labels[labels.RELAY_OF]


def test_no_free_subnet_for_relays(memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """No free subnet is a difference too, and all other commands work."""
    published(memory)
    monkeypatch.setattr(topology, "_candidates", lambda *_: ())
    seen = compared(memory)
    assert found(seen) == [("relays.network", Cause.AGENT, Action.NONE)]
    assert seen.plan(ConvergeOptions()).empty
    with pytest.raises(NotProvenError, match="still differs"):
        run(memory)
