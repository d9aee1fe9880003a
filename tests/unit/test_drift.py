"""Every way a sibling can differ, made by hand or by an upgrade: seen by `drift` in its layer, closed by `run`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clawker_fw import pipeline
from clawker_fw.engine.memory import MemoryEngine
from clawker_fw.errors import RefusedError
from clawker_fw.model import Mount, Sibling, Verdict
from clawker_fw.reconcile.desired import Blueprint
from clawker_fw.stack import coredns, labels, listeners
from clawker_fw.stack.release import Release
from devkit import stacks

RULES = ("a.test", ".wild.test", {"dst": "h.test", "proto": "http"})


@pytest.fixture
def wanted(memory: MemoryEngine, release: Release) -> Blueprint:
    """A stack that is up and current."""
    blueprint = stacks.blueprint(memory.facts(), *RULES, release=release)
    assert stacks.converged(memory, blueprint).diff.verdict is Verdict.CURRENT
    return blueprint


def test_drift_straight_after_run_is_clean(memory: MemoryEngine, wanted: Blueprint) -> None:
    """Same inputs, same bytes."""
    assert stacks.found(memory, wanted) == set()


Tamper = Callable[[MemoryEngine], None]


def shape(**fields: object) -> Tamper:
    """Return a tamper that changes fields of Envoy's shape, as recreating it by hand would."""

    def tamper(memory: MemoryEngine) -> None:
        inside = memory.inside("clawker-envoy")
        inside.spec = replace(inside.spec, shape=replace(inside.spec.shape, **fields))  # type: ignore[arg-type]

    return tamper


def files(container: str, **changes: bytes | None) -> Tamper:
    """Return a tamper that changes or deletes files in a container's volume."""

    def tamper(memory: MemoryEngine) -> None:
        for path, content in changes.items():
            if content is None:
                del memory.inside(container).files[path]
            else:
                memory.inside(container).files[path] = content

    return tamper


def relabel(label: str, value: str | None) -> Tamper:
    """Return a tamper that changes or removes a label of CoreDNS."""

    def tamper(memory: MemoryEngine) -> None:
        inside = memory.inside("clawker-coredns")
        kept = {key: text for key, text in inside.spec.labels.items() if key != label}
        inside.spec = replace(inside.spec, labels=kept | ({label: value} if value is not None else {}))

    return tamper


def live(resource: str, version: str) -> Tamper:
    """Return a tamper after which a process serves something else than what lies on its disk."""
    container = "clawker-coredns" if resource == "zone" else "clawker-envoy"
    return lambda memory: memory.inside(container).live.update({resource: version})


def disconnect(network: str, container: str) -> Tamper:
    """Return a tamper that takes a sibling off a network."""
    return lambda memory: memory.disconnect(network, container)


def lose_service_address(memory: MemoryEngine) -> None:
    """Take the service address away inside the container, leaving the claim in its volume."""
    inside = memory.inside("clawker-coredns")
    inside.addresses -= set(inside.addresses) - set(inside.networks.values())


def other_image(memory: MemoryEngine) -> None:
    """Have CoreDNS run from another image."""
    memory.inside("clawker-coredns").image = "sha256:" + "0" * 64


E, C = "envoy", "coredns"

MATRIX = [
    (lambda m: m.stop("clawker-envoy"), (E, "state", "status", "tamper", "start")),
    (lambda m: m.pause("clawker-coredns"), (C, "state", "status", "tamper", "unpause")),
    (lambda m: m.remove("clawker-coredns"), (C, "state", "container", "tamper", "create")),
    (disconnect("clawker-egress", "clawker-envoy"), (E, "state", "networks.clawker-egress", "tamper", "replace")),
    (disconnect("clawker-net", "clawker-envoy"), (E, "state", "networks.clawker-net", "tamper", "replace")),
    (disconnect("clawker-net", "clawker-coredns"), (C, "state", "networks.clawker-net", "tamper", "replace")),
    (lose_service_address, (C, "state", "service_address", "tamper", "claim")),
    (relabel(labels.OTEL_INFRA_PORT, "1"), (C, "labels", labels.OTEL_INFRA_PORT, "upgrade", "replace")),
    (relabel(labels.STACK_BUILD_SHA, None), (C, "labels", labels.STACK_BUILD_SHA, "tamper", "replace")),
    (relabel(labels.INFRA_CERTS_READY, None), (C, "labels", labels.INFRA_CERTS_READY, "tamper", "replace")),
    (other_image, (C, "image", "id", "tamper", "replace")),
    (shape(command=("serve", "--", "/bin/sh")), (E, "shape", "command", "tamper", "replace")),
    (shape(entrypoint=("/bin/sh",)), (E, "shape", "entrypoint", "tamper", "replace")),
    (shape(environment=("LD_PRELOAD=/x",)), (E, "shape", "environment", "tamper", "replace")),
    (shape(mounts=(Mount("bind", "/x", "/"),)), (E, "shape", "mounts", "tamper", "replace")),
    (shape(capabilities_added=("SYS_ADMIN",)), (E, "shape", "capabilities_added", "tamper", "replace")),
    (shape(capabilities_dropped=()), (E, "shape", "capabilities_dropped", "tamper", "replace")),
    (shape(privileged=True), (E, "shape", "privileged", "tamper", "replace")),
    (shape(sysctls={"net.ipv4.ip_forward": "1"}), (E, "shape", "sysctls", "tamper", "replace")),
    (shape(memory=0), (E, "shape", "memory", "tamper", "replace")),
    (shape(pids=0), (E, "shape", "pids", "tamper", "replace")),
    (shape(user="1000"), (E, "shape", "user", "tamper", "replace")),
    (shape(read_only=False), (E, "shape", "read_only", "tamper", "replace")),
    (shape(security_options=()), (E, "shape", "security_options", "tamper", "replace")),
    (shape(devices=("/dev/mem",)), (E, "shape", "devices", "tamper", "replace")),
    (shape(ports=("80/tcp",)), (E, "shape", "ports", "tamper", "replace")),
    (shape(pid_mode="host"), (E, "shape", "pid_mode", "tamper", "replace")),
    (shape(ipc_mode="host"), (E, "shape", "ipc_mode", "tamper", "replace")),
    (shape(tmpfs={}), (E, "shape", "tmpfs", "tamper", "replace")),
    (shape(restart="no"), (E, "shape", "restart", "tamper", "replace")),
    (shape(healthcheck=None), (E, "shape", "healthcheck", "tamper", "replace")),
    (shape(log={"driver": "none"}), (E, "shape", "log", "tamper", "replace")),
    (files("clawker-coredns", **{"boot/Corefile": b". { forward . 8.8.8.8 }"}),
     (C, "boot", "boot/Corefile", "tamper", "replace")),
    (files("clawker-envoy", **{"boot/bootstrap.yaml": None}),
     (E, "boot", "boot/bootstrap.yaml", "tamper", "replace")),
    (files("clawker-envoy", **{"boot/extra": b"x"}), (E, "boot", "boot/extra", "tamper", "replace")),
    (files("clawker-envoy", **{"bin/fwctl": b"x"}), (E, "boot", "bin/fwctl", "tamper", "replace")),
    (files("clawker-envoy", **{listeners.LISTENERS: b"{}"}), (E, "hot", listeners.LISTENERS, "tamper", "commit")),
    (files("clawker-envoy", **{"hot/rds/http-80.json": None}),
     (E, "hot", "hot/rds/http-80.json", "tamper", "commit")),
    (files("clawker-envoy", **{"hot/rds/extra.json": b"{}"}),
     (E, "hot", "hot/rds/extra.json", "tamper", "commit")),
    (files("clawker-coredns", **{coredns.ZONE: b"-> /etc/passwd"}), (C, "hot", coredns.ZONE, "tamper", "commit")),
    (live("zone", "older"), (C, "live", "zone", "tamper", "commit")),
    (live("lds/listeners", "older"), (E, "live", "lds/listeners", "tamper", "commit")),
    (live("rds/http-80", ""), (E, "live", "rds/http-80", "tamper", "commit")),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "finding"), MATRIX, ids=[" ".join(finding[:3]) for _, finding in MATRIX])
def test_each_tamper_is_seen_and_closed(
    tamper: Tamper, finding: tuple[str, str, str, str, str], memory: MemoryEngine, wanted: Blueprint
) -> None:
    """`drift` names its layer, field, cause and action, and nothing else; `run` closes it."""
    tamper(memory)
    assert stacks.found(memory, wanted) == {finding}
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT
    assert stacks.found(memory, wanted) == set()


def test_a_leftover_is_drift(memory: MemoryEngine, wanted: Blueprint) -> None:
    """What a run that did not end has left behind is named, and taken away."""
    spec = memory.inside("clawker-envoy").spec
    networks = {"clawker-net": "10.213.8.11", "clawker-egress": "10.214.0.139"}
    left = replace(spec, name="clawker-envoy-next", shape=replace(spec.shape, networks=networks))
    memory.create_container(left)
    field = "leftover.clawker-envoy-next"
    assert stacks.found(memory, wanted) == {("envoy", "state", field, "upgrade", "retire")}
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT
    assert memory.containers({"clawker-envoy-next"}) == ()


def test_a_program_that_does_not_answer_is_unknown(memory: MemoryEngine, wanted: Blueprint) -> None:
    """What could not be read is never called current; `run` makes it anew."""
    memory.inside("clawker-envoy").silent = "connection refused"
    seen = pipeline.look(memory, wanted)
    assert seen.diff.verdicts == {Sibling.ENVOY: Verdict.UNKNOWN, Sibling.COREDNS: Verdict.CURRENT}
    assert seen.diff.verdict is Verdict.UNKNOWN
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT


def test_a_network_that_differs_inside_is_seen(memory: MemoryEngine, wanted: Blueprint) -> None:
    """Routes that no longer guard are drift, though every file is in place."""
    memory.inside("clawker-envoy").network_differences = ("rule 100: from 10.214.0.148 lookup 101 is missing",)
    assert stacks.found(memory, wanted) == {("envoy", "live", "network", "tamper", "replace")}
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT


@pytest.mark.parametrize(
    ("change", "layers"),
    [
        ({"otel": {"infra_port": 4320}}, {("envoy", "labels"), ("coredns", "labels")}),
        ({"drain_timeout": 5}, set()),
    ],
)
def test_a_changed_setting_is_an_upgrade(
    change: dict[str, Any], layers: set[tuple[str, str]], memory: MemoryEngine, wanted: Blueprint
) -> None:
    """What a sibling is changes with the settings that it is made of, and with no others."""
    changed = stacks.blueprint(memory.facts(), *RULES, release=wanted.release, **change)
    findings = stacks.found(memory, changed)
    assert {(sibling, layer) for sibling, layer, *_ in findings} == layers
    assert {cause for *_, cause, _ in findings} <= {"upgrade"}
    assert stacks.converged(memory, changed).diff.verdict is Verdict.CURRENT


def test_a_changed_rule_is_an_upgrade_committed_live(memory: MemoryEngine, wanted: Blueprint) -> None:
    """Rules change without a new container."""
    before = {name: memory.inside(name).id for name in ("clawker-envoy", "clawker-coredns")}
    changed = stacks.blueprint(memory.facts(), "b.test", {"dst": "c.test", "port": 8443}, release=wanted.release)
    findings = stacks.found(memory, changed)
    assert {(cause, action) for *_, cause, action in findings} == {("upgrade", "commit")}
    assert ("envoy", "hot", "hot/rds/http-8443.json", "upgrade", "commit") in findings
    assert stacks.converged(memory, changed).diff.verdict is Verdict.CURRENT
    assert {name: memory.inside(name).id for name in before} == before
    stacks.converged(memory, wanted)
    assert "hot/rds/http-8443.json" not in memory.inside("clawker-envoy").files


def append(path: str) -> Callable[[Release], None]:
    """Return a change of a release that makes one of its programs other bytes."""
    return lambda release: stacks.change_file(release.package / path, lambda old: old + b"\0")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (stacks.change_corefile, ("coredns", "boot", "boot/Corefile", "upgrade", "replace")),
        (stacks.change_bootstrap, ("envoy", "boot", "boot/bootstrap.yaml", "upgrade", "replace")),
        (
            append("bin/fwctl-linux-amd64"),
            ("coredns", "boot", "bin/fwctl", "upgrade", "replace"),
        ),
        (
            lambda release: stacks.change_file(
                release.package / "bin/coredns-linux-amd64", lambda old: old + b"\0"
            ),
            ("coredns", "image", "id", "upgrade", "replace"),
        ),
    ],
)
def test_an_upgraded_release_is_seen_by_content(
    change: Callable[[Release], None],
    expected: tuple[str, str, str, str, str],
    memory: MemoryEngine,
    wanted: Blueprint,  # noqa: ARG001 - the stack that is up
    tmp_path: Path,
) -> None:
    """Whatever file of the firewall a release changes, its own layer and the build SHA of both siblings say so."""
    upgraded = stacks.copied_release(tmp_path)
    change(upgraded)
    changed = stacks.blueprint(memory.facts(), *RULES, release=upgraded)
    findings = stacks.found(memory, changed)
    assert expected in findings
    assert {sibling for sibling, layer, *_ in findings if layer == "labels"} == {"envoy", "coredns"}
    assert {cause for *_, cause, _ in findings} == {"upgrade"}
    assert stacks.converged(memory, changed).diff.verdict is Verdict.CURRENT


def test_a_changed_subnet_waits_for_the_agents(memory: MemoryEngine, wanted: Blueprint) -> None:
    """A network is never remade under an agent; without agents it is."""
    agent = memory.create_container(stacks.bare_container("agent", wanted, "clawker-net"))
    memory.start(agent)
    changed = stacks.blueprint(memory.facts(), *RULES, release=wanted.release, network={"subnet": "10.99.0.0/20"})
    field = "networks.clawker-net.subnet"
    assert ("coredns", "shape", field, "upgrade", "recreate-networks") in stacks.found(memory, changed)
    with pytest.raises(RefusedError) as caught:
        stacks.converged(memory, changed)
    assert caught.value.code == "network-in-use"
    assert "attached: agent" in caught.value.context
    assert stacks.found(memory, wanted) == set()
    memory.remove(agent)
    assert stacks.converged(memory, changed).diff.verdict is Verdict.CURRENT


@pytest.mark.parametrize("name", ["clawker-envoy", "clawker-coredns", "clawker-envoy-next"])
def test_a_foreign_container_is_refused_and_left_alone(name: str, memory: MemoryEngine, wanted: Blueprint) -> None:
    """A container with our name and without our labels is not ours to touch, or to read."""
    memory.remove(name)
    foreign = memory.create_container(stacks.bare_container(name, wanted))
    with pytest.raises(RefusedError) as caught:
        stacks.converged(memory, wanted)
    assert caught.value.code == "foreign-container"
    assert memory.inside(name).id == foreign
