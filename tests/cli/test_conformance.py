"""`conformance`: what is tried, what counts as held, and that nothing is left behind."""

from pathlib import Path

from clawker_fw.engine.memory import MemoryEngine
from clawker_fw.model import ContainerSpec, Shape
from tests.cli.conftest import Command

HOLDING = {
    "allowed": "an answer",
    "tunnel-allowed": "no record",
    "ipv6-allowed": "no record",
    "transfer": "refused",
    "chaos": "refused",
    "other-resolver": "network is unreachable",
    "internet-udp": "network is unreachable",
    **{f"port-{port}": "connection refused" for port in (9901, 53, 9153, 8080)},
}
"""What a stack that confines answers, where that is not the in-memory engine's usual."""


def test_everything_holds(command: Command, memory: MemoryEngine) -> None:
    """Each attempt is shown with what came of it, the exit code is 0, and the container is gone."""
    command("run")
    memory.attempted = HOLDING
    before = [each.name for each in memory.listing()]
    outcome = command("conformance", "--format", "json")
    document = outcome.valid("conformance")
    assert [each["id"] for each in document["attempts"] if not each["held"]] == []
    assert (outcome.code, document["held"]) == (0, True)
    assert [each["id"] for each in document["attempts"] if each["control"]] == ["allowed"]
    assert [each.name for each in memory.listing()] == before
    assert command("conformance").out.endswith(
        f"clawker: {len(document['attempts'])} of {len(document['attempts'])} held\n"
    )


def test_a_way_around_is_shown(command: Command, memory: MemoryEngine) -> None:
    """What did not hold is named, and the exit code is 1."""
    command("run")
    memory.attempted = {**HOLDING, "gateway": "a gateway answers: 10.213.0.1", "sni": "a host answered"}
    outcome = command("conformance", "--format", "json")
    assert outcome.code == 1
    assert [each["id"] for each in outcome.valid("conformance")["attempts"] if not each["held"]] == [
        "gateway",
        "sni",
    ]
    assert "BROKEN" in command("conformance").out


def test_without_a_stack_or_with_a_changed_one_nothing_is_tried(command: Command, memory: MemoryEngine) -> None:
    """What a stack in this state lets through says nothing."""
    assert "error[not-up]" in command("conformance").err
    command("run")
    memory.stop("clawker-envoy")
    outcome = command("conformance")
    assert outcome.code == 6
    assert "error[not-serving]" in outcome.err


def test_a_container_of_somebody_else_is_left_alone(command: Command, memory: MemoryEngine) -> None:
    """One of ours, from a trial that was killed, is removed."""
    command("run")
    memory.attempted = HOLDING
    image = memory.inside("clawker-coredns").image
    theirs = memory.create_container(ContainerSpec("clawker-conformance", image, {}, Shape((), (), {})))
    outcome = command("conformance")
    assert outcome.code == 6
    assert "error[foreign-container]" in outcome.err
    memory.remove(theirs)
    labels = {
        key: text for key, text in memory.inside("clawker-coredns").spec.labels.items() if "firewall." not in key
    }
    memory.create_container(ContainerSpec("clawker-conformance", image, labels, Shape((), (), {})))
    assert command("conformance").code == 0


def test_settings_without_a_single_name_have_no_control(
    command: Command, memory: MemoryEngine, settings_file: Path
) -> None:
    """Then everything else is tried all the same."""
    settings_file.write_text("rules:\n  - dst: .a.test\n")
    command("run")
    memory.attempted = HOLDING
    document = command("conformance", "--format", "json").valid("conformance")
    assert document["held"]
    assert not any(each["control"] for each in document["attempts"])
