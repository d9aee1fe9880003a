"""What `run` says of the way out: it tries a host once, where the engine is on this machine."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clawker_fw.diagnose import way_out
from clawker_fw.model import Trial, TrialStep
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command

NO_ANSWER = Trial((TrialStep("handshake", "10.213.0.20:40000", 0.1, ok=False, status=0, outcome="no answer"),))


@pytest.fixture
def listening() -> Iterator[int]:
    """The port of a server on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def here(memory: MemoryEngine, settings_file: Path, listening: int) -> MemoryEngine:
    """An engine on this machine, which reaches the one host that the rules allow."""
    memory.sources_checked = True
    settings_file.write_text(f"rules:\n  - {{dst: localhost, force: true, port: {listening}}}\n")
    return memory


def answering(memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch, trial: Trial) -> list[str]:
    """Let every attempt of an agent end in the same way, and return the list of what has been tried."""
    tried: list[str] = []

    def note(_: str, name: str, protocol: str, port: int) -> Trial:
        tried.append(f"{protocol}://{name}:{port}")
        return trial

    monkeypatch.setattr(memory, "trial", note)
    return tried


def codes(command: Command) -> set[str]:
    """Return the codes of the warnings of a `run`."""
    return {each["code"] for each in command.json("run")["warnings"]}


def test_run_warns_once_where_this_machine_gets_out_and_agents_do_not(
    here: MemoryEngine, command: Command, monkeypatch: pytest.MonkeyPatch, listening: int
) -> None:
    """The run that makes Envoy tries and says what may keep packets in; one that changes nothing tries nothing."""
    tried = answering(here, monkeypatch, NO_ANSWER)
    outcome = command("run", "--format", "json")
    assert outcome.code == 0
    (warning,) = outcome.answer["warnings"]
    assert warning["code"] == "no-way-out"
    assert f"Agents don't reach localhost:{listening} (no answer), but this machine does." in warning["message"]
    assert "iptables -S DOCKER-USER" in warning["message"]
    assert tried == [f"https://localhost:{listening}"]
    assert codes(command) == set()
    assert len(tried) == 1
    assert "no-way-out" in command("run", "--force-recreate").out


def test_a_way_out_is_not_warned_of(here: MemoryEngine, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that succeeds leaves no warning."""
    step = TrialStep("handshake", "10.213.0.20:40000", 0.1, ok=True, status=0, outcome="completed")
    tried = answering(here, monkeypatch, Trial((step,)))
    assert codes(command) == set()
    assert len(tried) == 1


@pytest.mark.parametrize("case", ["elsewhere", "unreached", "forwards nothing"])
def test_nothing_is_tried_that_would_prove_nothing(
    here: MemoryEngine, command: Command, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """An engine elsewhere, a host that does not answer us either, and an engine that has said why: no attempt."""
    tried = answering(here, monkeypatch, NO_ANSWER)
    if case == "elsewhere":
        here.sources_checked = None
    elif case == "unreached":
        monkeypatch.setattr(way_out, "reaches", lambda *_: False)
    else:
        here.has = replace(here.has, forwards=False)
    assert codes(command) == ({"no-forwarding"} if "forwards" in case else set())
    assert tried == []
