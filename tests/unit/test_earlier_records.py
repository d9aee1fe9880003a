"""Fields that an earlier release did not record never count as tampering."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from clawker_fw.agents.attachment import require_serving
from clawker_fw.model.containers import Mount, Shape
from clawker_fw.model.differences import Verdict
from clawker_fw.reconcile import pipeline
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.stack import labels
from clawker_fw.stack.container import ATTEMPT, COMMITTED, program_of
from clawker_fw.stack.envoy.sibling import LISTENERS
from clawker_fw.stack.files import public
from clawker_fw.stack.name_list import POLICY
from devkit import stacks
from devkit.memory.engine import MemoryEngine

ENVOY, COREDNS = "clawker-envoy", "clawker-coredns"
NET = "clawker-net"


@pytest.fixture(scope="session")
def wanted_next(tmp_path_factory: pytest.TempPathFactory) -> Blueprint:
    """The desired state of a newer release."""
    changed = stacks.copied_release(tmp_path_factory.mktemp("newer"))
    stacks.change_file(changed.package / "stack/coredns.py", lambda text: text + b"# another build\n")
    return stacks.blueprint(MemoryEngine().facts(), "a.test", release=changed)


@pytest.fixture
def newer(up: Blueprint, wanted_next: Blueprint) -> Blueprint:
    """The desired state of a newer release, while the stack of another release is up."""
    assert wanted_next != up
    return wanted_next


def forget(memory: MemoryEngine, container: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a container's record, as if another release had created it."""
    inside = memory.inside(container)
    record = json.loads(inside.spec.labels[labels.APPLIED])
    change(record)
    inside.spec = replace(inside.spec, labels={**inside.spec.labels, labels.APPLIED: json.dumps(record)})


def shaped(engine: MemoryEngine, container: str, **changes: Any) -> None:  # noqa: ANN401 - any field
    inside = engine.inside(container)
    inside.spec = replace(inside.spec, shape=replace(inside.spec.shape, **changes))
    inside.program = program_of(inside.spec.shape)


def require_upgrade(memory: MemoryEngine, newer: Blueprint, *found: tuple[str, str]) -> None:
    """Require these differences, all as upgrades, agents allowed to start, and a `run` that removes them."""
    findings = stacks.found(memory, newer)
    assert {(layer, field) for _, layer, field, *_ in findings} >= set(found)
    assert {cause for *_, cause, _ in findings} == {"upgrade"}
    seen = pipeline.compare(memory, newer)
    require_serving("clawker", seen.observed, seen.diff)
    assert stacks.converged(memory, newer).diff.verdict is Verdict.CURRENT


OTHERS: dict[type, Any] = {bool: True, int: 7, str: "other", tuple: ("other",)}


def other(shape: Shape, field: str) -> Any:  # noqa: ANN401 - any field
    value = getattr(shape, field)
    match field, value:
        case "mounts", _:
            return (Mount("bind", "/x", "/"),)
        case _, None | bool():
            return not value
        case "healthcheck", _:
            return None
    return OTHERS.get(type(value), {"other": "1"})


FIELDS = [each.name for each in fields(Shape) if each.name != "networks"]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_the_record_lacks(field: str, memory: MemoryEngine, newer: Blueprint) -> None:
    """A field missing from another release's record is an upgrade; a recorded one that differs is tampering."""
    value = other(memory.inside(ENVOY).spec.shape, field)
    shaped(memory, ENVOY, **{field: value})
    assert ("envoy", "shape", field, "tamper", "replace") in stacks.found(memory, newer)
    forget(memory, ENVOY, lambda record: record["shape"].pop(field))
    require_upgrade(memory, newer, ("shape", field))


def test_this_release_s_record_has_every_field(memory: MemoryEngine, up: Blueprint) -> None:
    """A missing field in a record of this release is tampering, and so is the field's difference."""
    shaped(memory, ENVOY, memory_swap=-1)
    forget(memory, ENVOY, lambda record: record["shape"].pop("memory_swap"))
    assert stacks.found(memory, up) == {("envoy", "shape", "memory_swap", "tamper", "replace")}


def test_an_unreadable_record_speaks_of_nothing(memory: MemoryEngine, newer: Blueprint) -> None:
    """Without a readable record, differences of the shape are tampering, whichever release created it."""
    shaped(memory, ENVOY, memory_swap=-1)
    forget(memory, ENVOY, lambda record: record.pop("shape"))
    findings = stacks.found(memory, newer)
    assert ("envoy", "shape", "memory_swap", "tamper", "replace") in findings
    assert ("envoy", "labels", labels.APPLIED, "tamper", "replace") in findings


PLACES = {
    "a boot file": (COREDNS, "boot/Corefile", "boot/Corefile"),
    "a hot file": (ENVOY, LISTENERS, "hot/"),
    "a copy of a hot file": (ENVOY, f"good/{LISTENERS}", "hot/"),
    "a record of the helper": (ENVOY, COMMITTED, "state/"),
}


@pytest.mark.parametrize("place", PLACES)
def test_modes_that_the_record_lacks(place: str, memory: MemoryEngine, newer: Blueprint) -> None:
    """A mode missing from another release's record is an upgrade; a recorded one that differs is tampering."""
    container, path, recorded = PLACES[place]
    files = memory.inside(container).files
    files.setdefault(path, files[path.removeprefix("good/")])
    files[path] = replace(files[path], mode=0o666)
    assert {cause for _, _, field, cause, _ in stacks.found(memory, newer) if field == path} == {"tamper"}
    forget(memory, container, lambda record: record["attributes"].pop(recorded))
    require_upgrade(memory, newer, ("boot" if path.startswith("boot") else "hot", path))


def test_a_resource_that_the_commit_lacks(memory: MemoryEngine, newer: Blueprint) -> None:
    """One more verified resource, or another digest, is not tampering with the last applied files."""
    files = memory.inside(COREDNS).files
    record = json.loads(files[COMMITTED].content)
    record["live"] = {}
    files[COMMITTED] = public(json.dumps(record).encode())
    require_upgrade(memory, newer, ("hot", COMMITTED))


@pytest.mark.parametrize(
    ("path", "content"), [("state/unknown.json", b"{}"), (ATTEMPT, b"another form"), ("boot/unknown", b"")]
)
def test_a_record_of_another_release(path: str, content: bytes, memory: MemoryEngine, newer: Blueprint) -> None:
    """Another release's `fwctl` may keep unknown records in its folder; unknown files elsewhere are tampering."""
    memory.inside(COREDNS).files[path] = public(content)
    if path.startswith("state/"):
        require_upgrade(memory, newer, ("boot", path))
    else:
        assert ("coredns", "boot", path, "tamper", "replace") in stacks.found(memory, newer)


def test_a_commit_of_other_files_is_tampering(memory: MemoryEngine, newer: Blueprint) -> None:
    """An applied-files record that lists other files than the volume's is tampering."""
    files = memory.inside(COREDNS).files
    record = json.loads(files[COMMITTED].content)
    record["files"] = [each for each in record["files"] if f"hot/{each['path']}" != POLICY]
    files[COMMITTED] = public(json.dumps(record).encode())
    assert ("coredns", "hot", COMMITTED, "tamper", "commit") in stacks.found(memory, newer)


def test_a_label_that_is_new(memory: MemoryEngine, newer: Blueprint) -> None:
    """A label that another release did not know is an upgrade; a known one that differs is tampering."""
    inside = memory.inside(ENVOY)
    kept = {name: text for name, text in inside.spec.labels.items() if name != labels.OTEL_INFRA_PORT}
    inside.spec = replace(inside.spec, labels=kept)
    assert ("envoy", "labels", labels.OTEL_INFRA_PORT, "tamper", "replace") in stacks.found(memory, newer)
    forget(memory, ENVOY, lambda record: record["labels"].remove(labels.OTEL_INFRA_PORT))
    require_upgrade(memory, newer, ("labels", labels.OTEL_INFRA_PORT))


def test_networks_say_what_they_were_made_with(memory: MemoryEngine, newer: Blueprint) -> None:
    """A network is untampered if it matches its record, or differs only where the record is silent."""
    (network,) = (each for each in memory.networks() if each.name == NET)
    field = f"networks.{NET}.options"
    record = json.loads(network.labels[labels.APPLIED])

    def found(**changes: object) -> set[str]:
        memory.alter_network(NET, **changes)
        return {cause for _, _, name, cause, _ in stacks.found(memory, newer) if name == field}

    option = "com.docker.network.bridge.enable_icc"
    other_options = {**network.options, option: "false"}
    assert found(options=other_options) == {"tamper"}
    for changed in (
        {**record, f"options.{option}": "false"},
        {key: record[key] for key in record if option not in key},
    ):
        relabelled = {**network.labels, labels.APPLIED: json.dumps(changed)}
        assert found(options=other_options, labels=relabelled) == {"upgrade"}
    for unreadable in ("{", "[]"):
        assert found(labels={**network.labels, labels.APPLIED: unreadable}) == {"tamper"}


def test_a_network_without_an_option_has_its_default(memory: MemoryEngine, newer: Blueprint) -> None:
    """A network of a release that set fewer options stays, unless the engine added a different value."""
    (network,) = (each for each in memory.networks() if each.name == NET)
    mode = "com.docker.network.bridge.gateway_mode_ipv4"
    record = json.loads(network.labels[labels.APPLIED])
    fewer = {name: text for name, text in record.items() if mode not in name}
    labelled = {**network.labels, labels.APPLIED: json.dumps(fewer)}
    options = {name: text for name, text in network.options.items() if name != mode}
    memory.alter_network(NET, options=options, labels=labelled)
    finding = ("coredns", "shape", f"networks.{NET}.options", "upgrade", "recreate-networks")
    before = stacks.found(memory, newer)
    assert finding not in before
    memory.alter_network(NET, options={**options, mode: "routed"})
    assert stacks.found(memory, newer) == {*before, finding}
