"""`ps`, `logs` and `config`: what there is on the engine, what the siblings write, what the settings mean."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import jsonschema
import pytest

from clawker_fw.errors import EngineError, NotFoundError
from devkit.memory.engine import MemoryEngine
from devkit.stacks import CHECKOUT
from tests.cli.conftest import Command
from tests.cli.test_status import join


def test_ps_lists_every_stack_with_its_own_settings(
    command: Command, memory: MemoryEngine, settings_file: Path, tmp_path: Path
) -> None:
    """Each stack is compared with the file that it was made from, wherever the command runs."""
    assert command("ps").out == "There is no stack on this engine. Start one with `clawker-fw run`.\n"
    command("run")
    other = tmp_path / "other.yaml"
    other.write_text("project: other\nrules:\n  - dst: b.test\n")
    assert command("--config", str(other), "run").code == 0
    join(memory, "loose", privileged=True)
    other.write_text("project: other\nrules: []\n")
    found = {each["project"]: each for each in command("ps", "--format", "json").valid("ps")["stacks"]}
    assert (found["clawker"]["verdict"], found["clawker"]["open_agents"]) == ("open", ["loose"])
    assert (found["other"]["verdict"], found["other"]["live_rules"]) == ("drifted", 1)
    assert found["clawker"]["settings"] == str(settings_file)
    assert found["other"]["running"] == ["envoy", "coredns"]
    other.unlink()
    gone = command("ps", "--format", "json").valid("ps")["stacks"][1]
    assert (gone["verdict"], gone["live_rules"]) == ("unknown", 1)
    assert "does not exist" in gone["reason"]
    out = command("ps").out
    assert out.splitlines()[1].split()[:3] == ["clawker", "open", "2"]


def test_logs(command: Command, memory: MemoryEngine) -> None:
    """Lines of both siblings, with their times; or of one, or only the last, or as JSON."""
    command("run")
    memory.inside("clawker-envoy").log = ["one", "two \x1b[2J"]
    memory.inside("clawker-coredns").log = ["three"]
    stamp = "2026-01-01T00:00:00.000Z"
    assert sorted(command("logs").out.splitlines()) == [
        f"{stamp}  clawker-coredns  three",
        f"{stamp}  clawker-envoy  one",
        f"{stamp}  clawker-envoy  two \\x1b[2J",
    ]
    assert command("logs", "coredns").out == f"{stamp}  clawker-coredns  three\n"
    assert command("logs", "envoy", "--tail", "1").out == f"{stamp}  clawker-envoy  two \\x1b[2J\n"
    document = json.loads(command("logs", "coredns", "--format", "json").out)
    schema = json.loads((CHECKOUT / "docs" / "schemas" / "logs.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["line"] == "three"


def test_logs_as_they_come(command: Command, memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go on with what is written, until the sibling is gone."""
    command("run")
    envoy, reading = memory.inside("clawker-envoy"), memory.log
    envoy.log = ["one"]
    begun = threading.Event()

    @contextmanager
    def log(container: str, lines: int | None, **how: bool) -> Iterator[Iterator[list[bytes]]]:
        with reading(container, lines, **how) as arriving:
            begun.set()
            yield arriving

    def later() -> None:
        assert begun.wait(20)
        envoy.log.append("two")
        memory.remove("clawker-envoy")

    monkeypatch.setattr(memory, "log", log)

    thread = threading.Thread(target=later)
    thread.start()
    lines = command("logs", "envoy", "--follow").out.splitlines()
    thread.join()
    assert [line.split()[-1] for line in lines] == ["one", "two"]


def test_logs_of_an_engine_that_fails(
    command: Command, memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written before is shown; then there is one error, the engine's, and exit code 4."""
    command("run")
    reading = memory.log
    memory.inside("clawker-envoy").log = ["one"]

    @contextmanager
    def log(container: str, lines: int | None, **how: bool) -> Iterator[Iterator[list[bytes]]]:
        def arriving() -> Iterator[list[bytes]]:
            with reading(container, lines, errors=how["errors"]) as written:
                yield from written
            raise EngineError("engine-unreachable", "The engine did not answer when asked to read the log.")

        yield arriving()

    monkeypatch.setattr(memory, "log", log)
    outcome = command("logs", "envoy", "--follow")
    assert (outcome.code, outcome.out.split()[-1]) == (4, "one")
    assert outcome.err.startswith("error[engine-unreachable]: The engine did not answer")
    assert "Traceback" not in outcome.err


def test_logs_of_a_sibling_that_is_gone_since(
    command: Command, memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that was replaced between two requests has no more lines, which is no error."""
    command("run")

    def gone(container: str, *_: object, **__: object) -> NoReturn:
        raise NotFoundError("not-found", f"There is no container {container}.")

    monkeypatch.setattr(memory, "log", gone)
    outcome = command("logs", "--follow")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_logs_without_a_stack_or_of_something_else(command: Command) -> None:
    """There is nothing to show, and that is an error."""
    assert command("logs").code == 6
    assert "error[not-up]" in command("logs").err
    assert command("logs", "nginx").code == 2
    assert command("logs", "--tail", "-1").code == 2


def test_config_says_where_each_value_comes_from(command: Command, settings_file: Path) -> None:
    """A default, a line of the file, a variable, or an option; nothing is asked of the engine."""
    settings_file.write_text("rules: []\nlimits:\n  connections: 7\nproject: mine\n")
    given = {"CLAWKER_FW_OTEL__INFRA_PORT": "4320"}
    outcome = command("config", "--format", "json", **given)
    found = {each["key"]: each for each in outcome.valid("config")["settings"]}
    places = {key: (found[key]["value"], found[key]["origin"], found[key]["place"]) for key in found}
    assert places["limits.connections"] == (7, "file", "clawker-fw.yaml, line 3")
    assert places["limits.queries_per_second"] == (1000, "default", None)
    assert places["otel.infra_port"] == (4320, "environment", "CLAWKER_FW_OTEL__INFRA_PORT")
    assert places["project"] == ("mine", "file", "clawker-fw.yaml, line 4")
    out = command("--project", "mine", "config", **given).out
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("  project")] == ["--project"]
    assert "limits.connections" in out


def test_config_of_settings_that_are_wrong_is_their_error(command: Command, settings_file: Path) -> None:
    """The same error as everywhere."""
    settings_file.write_text("rules: []\nlimts: {}\n")
    outcome = command("config")
    assert outcome.code == 3
    assert "Did you mean `limits`?" in outcome.err
