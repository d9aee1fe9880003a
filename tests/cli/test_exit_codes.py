"""Refusals and failures: exit code, error and hint, without any change."""

from pathlib import Path

import pytest

from clawker_fw.cli import session
from clawker_fw.model.stacks import Sibling
from clawker_fw.report.documents import schemas
from clawker_fw.stack import images
from clawker_fw.stack.release import Release
from devkit import stacks
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command

EM_AARCH64 = 183
"""The machine type for arm64 in an ELF file (elf.h)."""


def test_invalid_rules_apply_nothing(command: Command, settings_file: Path, memory: MemoryEngine) -> None:
    """The exit code is 3, the error names the rule's line, and the old rules stay in effect."""
    command("run")
    files = dict(memory.inside("clawker-envoy").files)
    settings_file.write_text("rules:\n  - dst: good.test\n  - dst: https://bad.test\n")
    for verb in ("run", "reload", "drift", "status"):
        outcome = command(verb)
        assert outcome.code == 3
        assert "line 3" in outcome.err
        assert "hint" not in outcome.err or "Traceback" not in outcome.err
    assert dict(memory.inside("clawker-envoy").files) == files


def test_a_foreign_container_is_exit_code_6(command: Command, memory: MemoryEngine) -> None:
    """Every command that needs the stack refuses with exit code 6."""
    blueprint = stacks.blueprint(memory.facts(), "a.test")
    command("run")
    memory.remove("clawker-envoy")
    memory.create_container(stacks.bare_container("clawker-envoy", blueprint))
    for verb in ("run", "drift", "status", "reload", "down"):
        assert command(verb).failure == (6, ["foreign-container"]), verb


@pytest.mark.parametrize("verb", sorted(schemas.ANSWERS.keys() - {"error", "groups"}))
def test_a_failure_is_a_document_of_every_command(verb: str, command: Command) -> None:
    """With JSON requested, there is one document on standard output, even for an unparsable command line."""
    for words in (["--json"], ["--format", "json"], ["--format=json"]):
        outcome = command(*verb.split(), *words, "--nope")
        answer = outcome.valid("error")["error"]
        assert (answer["code"], answer["exit_code"], outcome.code) == ("usage", 2, 2)
        assert "No such option: --nope" in answer["message"]
        assert "error[usage]" in outcome.err
    assert command(*verb.split(), "--nope", CLAWKER_FW_FORMAT="json").valid("error")["error"]["hint"]
    assert not command(*verb.split(), "--format", "text", "--nope", CLAWKER_FW_FORMAT="json").out.startswith("{")


def test_a_failure_in_json_is_the_one_that_people_read(
    command: Command, settings_file: Path, memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same facts and exit code as the text, in one line, as `denials --follow` needs."""
    outcome = command("--project", "other", "denials", "--follow", "--json")
    assert outcome.out.count("\n") == 1
    assert outcome.valid("error")["error"] == {
        "code": "not-up",
        "message": "other is not up, so nothing is on record.",
        "context": [],
        "hint": "Start it with `clawker-fw --project other run`.",
        "exit_code": 6,
    }
    assert command("drfit", "--json").valid("error")["error"]["code"] == "usage"
    assert command("agent", "flags", "--json").valid("error")["error"]["exit_code"] == 6  # docker refuses any JSON
    with monkeypatch.context() as patched:
        patched.setattr(memory, "networks", lambda: 1 / 0)
        assert command("drift", "--json").valid("error")["error"]["code"] == "bug"
    settings_file.write_text("rules:\n  - dst: https://bad.test\n")
    assert "line 2" in command("drift", "--json").valid("error")["error"]["message"]


def test_a_failure_is_no_second_document(command: Command, settings_file: Path) -> None:
    """If a command fails after its answer, the answer stays the only document; `init` has no JSON."""
    command("run")
    settings_file.write_text("rules:\n  - dst: https://bad.test\n")
    assert (found := command("status", "--json")).code == 3
    assert found.answer["verdict"] == "unknown"
    failed = command("init", CLAWKER_FW_FORMAT="json")
    assert (failed.code, failed.out) == (6, "")


def test_a_bug_is_exit_code_70(command: Command, memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is reported as such, and `--debug` shows the traceback."""
    monkeypatch.setattr(memory, "networks", lambda: 1 / 0)
    outcome = command("status")
    assert outcome.code == 70
    assert "ZeroDivisionError" in outcome.err
    assert "Traceback" not in outcome.err


def test_an_engine_of_another_architecture(
    command: Command, settings_file: Path, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundled Envoy is refused with the setting to use; with it, all programs fit the engine."""
    engine = MemoryEngine("arm64")
    monkeypatch.setattr(session, "connect_engine", lambda _: engine)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    refused = command("run")
    assert refused.code == 3
    assert "linux/amd64, and the engine runs linux/arm64" in refused.err
    assert "Set `images.envoy`" in refused.err
    assert engine.networks() == ()

    reference = f"registry.test/envoy@sha256:{'0' * 64}"
    settings_file.write_text(settings_file.read_text() + f"images:\n  envoy: {reference}\n")
    assert command("run").code == 0
    assert command("drift").code == 0
    for sibling in Sibling:
        helper = engine.inside(f"clawker-{sibling}").files["bin/fwctl"]
        assert int.from_bytes(helper.content[18:20], "little") == EM_AARCH64
    theirs = images.bundled(Sibling.COREDNS, release, engine.facts())
    assert theirs.architecture == "arm64"
    assert engine.inside("clawker-coredns").spec.image == theirs.reference
