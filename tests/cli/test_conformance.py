"""`conformance`: its attempts, their verdicts, and cleanup."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clawker_fw.diagnose.conformance import run
from clawker_fw.model.containers import ContainerSpec, Mount, Shape
from clawker_fw.reconcile.lock import holder, start_time
from clawker_fw.stack.container import VOLUME
from clawker_fw.stack.labels import LOCK_PROCESS
from devkit import stacks
from devkit.memory.engine import MemoryEngine
from devkit.memory.helper import service_address
from tests.cli.conftest import Command, record

HOLDING = {
    "allowed": "an answer",
    "tunnel-allowed": "no record",
    "ipv6-allowed": "no record",
    "transfer": "refused",
    "chaos": "refused",
    "other-resolver": "network is unreachable",
    "internet-udp": "network is unreachable",
    "page-name": "an answer",
    "page": "HTTP 200",
    "page-method": "HTTP 405",
    "page-path": "HTTP 404",
    "page-query": "HTTP 404",
    "page-helper": "connection refused",
    **{f"port-{port}": "connection refused" for port in (9901, 53, 9153, 8080)},
}
"""Answers of a confining stack, where they differ from the in-memory engine's defaults."""


def test_everything_holds(command: Command, memory: MemoryEngine) -> None:
    """Each attempt is shown with its result, the exit code is 0, and the container is gone."""
    command("run")
    memory.attempted = HOLDING
    before = [each.name for each in memory.listing()]
    outcome = command("conformance", "--format", "json")
    document = outcome.answer
    assert [each["id"] for each in document["attempts"] if not each["held"]] == []
    assert (outcome.code, document["held"]) == (0, True)
    assert [each["id"] for each in document["attempts"] if each["control"]] == ["allowed", "page-name", "page"]
    assert [each.name for each in memory.listing()] == before
    shown, attacks = command("conformance").out, len(document["attempts"]) - 3
    assert re.search(r"^  held +control  An allowed name resolves +an answer$", shown, re.MULTILINE)
    assert re.search(r"^  held +attack   TLS without a server name", shown, re.MULTILINE)
    assert shown.startswith(f"clawker: {attacks} of {attacks} attacks were stopped, 3 of 3 controls got through\n")


INSPECTED = """rules:
  - dst: a.test
    path_rules: [{path: /v1, methods: [GET]}]
    git: {acme/site: read}
"""


def test_hosts_are_attacked_whose_tls_is_looked_into(
    command: Command, memory: MemoryEngine, settings_file: Path
) -> None:
    """Attempts with controls; an attack answered by anything other than Envoy has not held."""
    settings_file.write_text(INSPECTED)
    command("run")
    bad = dict.fromkeys(("escaped-slash", "twice-escaped"), "HTTP 400 of Envoy")
    other = dict.fromkeys(("host", "absolute", "two-hosts"), "HTTP 421 of Envoy")
    answers = {f"inspected-{name}": outcome for name, outcome in {**bad, **other}.items()}
    answers |= {"inspected-stranger": "access denied", "inspected-allowed": "HTTP 404 of a host"}
    memory.attempted = {**HOLDING, **answers}
    document = command.json("conformance")
    tried = {each["id"]: each for each in document["attempts"]}
    assert [each["id"] for each in tried.values() if not each["held"]] == []
    assert {"inspected-path", "inspected-method", "inspected-trace", "inspected-push", "inspected-dots"} < {*tried}
    controls = [each["id"] for each in tried.values() if each["control"]]
    assert controls == ["allowed", "page-name", "page", "inspected", "inspected-allowed"]
    memory.attempted |= {
        "inspected": "another certificate",
        "inspected-path": "HTTP 403 of a host",
        "inspected-allowed": "HTTP 503 of Envoy",
    }
    outcome = command("conformance", "--format", "json")
    broken = [each["id"] for each in outcome.answer["attempts"] if not each["held"]]
    assert (outcome.code, broken) == (1, ["inspected", "inspected-allowed", "inspected-path"])


def test_without_a_stack_or_with_a_changed_one_nothing_is_tried(command: Command, memory: MemoryEngine) -> None:
    """Results from a stack in this state would mean nothing."""
    assert "error[not-up]" in command("conformance").err
    command("run")
    memory.stop("clawker-envoy")
    assert command("conformance").failure == (6, ["not-serving"])


def test_a_container_of_somebody_else_is_left_alone(
    command: Command, memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign container stays; our own, left by a killed trial, is removed once no trial can be running."""
    monkeypatch.setattr(run, "_WITHIN", 1.0)
    command("run")
    memory.attempted = HOLDING
    image = memory.inside("clawker-coredns").image
    theirs = memory.create_container(ContainerSpec("clawker-conformance", image, {}, Shape((), (), {})))
    assert command("conformance").failure == (6, ["foreign-container"])
    memory.remove(theirs)
    labels = {
        key: text for key, text in memory.inside("clawker-coredns").spec.labels.items() if "firewall." not in key
    }
    memory.create_container(stacks.never_started("clawker-conformance", image, labels))
    assert command("conformance").code == 0


TRIAL = "10.213.1.60"
"""The address of `conformance` on the in-memory engine's agent network."""


def test_its_own_attempts_are_nobody_s_refusals(command: Command, memory: MemoryEngine) -> None:
    """`denials` and `status` leave them out and say so, without advice to allow them."""
    command("run")
    memory.attempted = HOLDING
    at: list[str] = []
    start = memory.start

    def seen(container: str) -> None:
        start(container)
        at.extend(memory.inside(container).networks.values())

    memory.start = seen  # type: ignore[method-assign]  # to look at the container while it is there
    assert command("conformance").code == 0
    assert at == [TRIAL]
    resolver, proxy = memory.inside("clawker-coredns"), memory.inside("clawker-envoy")
    resolver.logged_at = proxy.logged_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000000000Z"
    source = f"{TRIAL}:40000"
    resolver.log.append(record(source=source, protocol="dns", name="a.example", port=53, reason="no-rule"))
    proxy.log.append(record(source=source, protocol="tcp", name="", port=9901, reason="no-rule", suppressed=3))
    assert command("denials").out == (
        "Nothing was refused.\n5 refusals to `clawker-fw conformance` are left out; "
        "`clawker-fw denials --agent clawker-conformance` shows them.\n"
    )
    document = command.json("denials")
    assert (document["denials"], document["suppressed"], document["tried"]) == ([], [], 5)
    asked = ("--agent", "clawker-conformance")
    shown = command.json("denials", *asked)
    assert {each["agent"] for each in shown["denials"]} == {"clawker-conformance"}
    assert shown["suppressed"] == [{"agent": "clawker-conformance", "address": TRIAL, "times": 3}]
    assert (len(shown["denials"]), shown["tried"]) == (2, 0)
    assert {each["remedy"]["command"] for each in shown["denials"]} == {None}
    assert "Nothing has to be allowed" in command("denials", *asked).out
    status = command.json("status")
    assert status["refusals"] == []
    assert "a.example" not in command("status").out


def killed(memory: MemoryEngine, process: str = "999999999 1") -> None:
    """Leave behind the container of a killed `conformance`."""
    resolver = memory.inside("clawker-coredns")
    labels = {key: text for key, text in resolver.spec.labels.items() if "firewall." not in key}
    by = {**holder(), LOCK_PROCESS: process}
    shape = Shape(
        (),
        (),
        {"clawker-net": TRIAL},
        mounts=(Mount("volume", VOLUME),),
        dns=(service_address(resolver),),
        capabilities_dropped=("NET_RAW",),
    )
    memory.start(
        memory.create_container(ContainerSpec("clawker-conformance", resolver.image, {**labels, **by}, shape))
    )


@pytest.mark.parametrize("changed", [False, True])
def test_what_a_killed_one_leaves_goes_with_the_next_run(
    changed: bool,  # noqa: FBT001 - a parameter
    command: Command,
    memory: MemoryEngine,
    settings_file: Path,
) -> None:
    """`status` names the container until the next run or `down` removes it. A running one is left alone."""
    command("run")
    killed(memory)
    down = command("down")
    assert (down.code, "stop and remove clawker-conformance" in down.err) == (0, True)
    assert memory.listing() == ()
    assert not [each.name for each in memory.networks() if each.name.startswith("clawker")]
    command("run")
    killed(memory)
    assert command("drift").code == 0
    left = command.json("status")["leftovers"]["containers"]
    assert left == ["clawker-conformance"]
    if changed:
        settings_file.write_text("rules:\n  - dst: b.test\n")
    assert command("run").code == 0
    assert memory.container("clawker-conformance") is None
    killed(memory, process=f"{os.getppid()} {start_time(os.getppid())}")
    assert command.json("status")["leftovers"]["containers"] == []
    assert command("run").code == 0
    assert memory.container("clawker-conformance")


def test_settings_without_a_single_name_have_no_control_for_one(
    command: Command, memory: MemoryEngine, settings_file: Path
) -> None:
    """Everything else is still tried, with the page about refusals as a control."""
    settings_file.write_text("rules:\n  - dst: .a.test\n")
    command("run")
    memory.attempted = HOLDING
    document = command.json("conformance")
    assert document["held"]
    assert [each["id"] for each in document["attempts"] if each["control"]] == ["page-name", "page"]
