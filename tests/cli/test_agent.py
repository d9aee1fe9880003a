"""The commands that attach agents, and what they say when they can't."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.agents.attachment import REFUSAL
from devkit.memory.engine import MemoryEngine
from devkit.stacks import CHECKOUT
from tests.cli.conftest import Command

FLAGS = "--network clawker-net --dns 10.213.1.53 --dns-search . --cap-drop NET_RAW"
PROGRAM = Path(__file__).with_name("program.py")

DOCKER = f"""#!{sys.executable}
import json, sys
print(json.dumps({{"arguments": sys.argv[1:], "input": sys.stdin.read()}}))
sys.exit(42)
"""
"""A docker CLI that tells what it was given."""


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A folder with a docker CLI."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    return folder


def started(path: Path, *arguments: str, rules: tuple[str, ...] = ("a.test",), **variables: str) -> Any:  # noqa: ANN401
    """Run the program as a process with this PATH, on an engine with these rules."""
    return subprocess.run(
        [sys.executable, str(PROGRAM), *rules, "--", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "PATH": str(path),
            "DOCKER_CONFIG": str(path / "config"),
            **variables,
        },
        input="typed",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_flags_are_one_line(command: Command) -> None:
    """`flags` prints words for a shell and nothing else, and `status` prints the same."""
    command("run")
    found = command("agent", "flags")
    assert (found.code, found.out, found.err) == (0, f"{FLAGS}\n", "")
    assert f"Attach an agent:  docker run --rm -it {FLAGS} IMAGE\n" in command("status").out


def test_flags_as_json(command: Command) -> None:
    """The words, and the same in the engine's terms, with the settings and the engine that they are for."""
    command("run")
    answer = command("agent", "flags", "--format", "json").valid("agent-flags")
    assert answer["flags"] == FLAGS.split()
    assert (answer["network"], answer["dns"], answer["dns_search"], answer["cap_drop"]) == (
        "clawker-net",
        ["10.213.1.53"],
        ["."],
        ["NET_RAW"],
    )
    assert answer["engine"] == {"endpoint": "unix:///memory.sock", "source": "the default"}


def test_proxies_of_docker_are_taken_off(command: Command, tmp_path: Path) -> None:
    """Where the docker CLI gives every container a proxy, all answers for docker give agents an empty one."""
    command("run")
    folder = tmp_path / "proxied"
    folder.mkdir()
    config = folder / "config.json"
    config.write_text(json.dumps({"proxies": {"default": {"httpsProxy": "http://proxy.test:3128"}}}))
    emptied = f"{FLAGS} --env HTTPS_PROXY= --env https_proxy="
    assert command("agent", "flags", DOCKER_CONFIG=str(folder)).out == f"{emptied}\n"
    answer = command("agent", "flags", "--format", "json", DOCKER_CONFIG=str(folder)).valid("agent-flags")
    assert (answer["flags"], answer["environment"]) == (emptied.split(), {"HTTPS_PROXY": "", "https_proxy": ""})
    assert 'https_proxy: ""' in command("agent", "compose", DOCKER_CONFIG=str(folder)).out
    assert f"docker run --rm -it {emptied} IMAGE\n" in command("status", DOCKER_CONFIG=str(folder)).out
    config.write_text("{")
    unreadable = command("agent", "flags", DOCKER_CONFIG=str(folder))
    assert (unreadable.code, unreadable.out) == (4, f"{REFUSAL}\n")
    assert "error[docker-config-unreadable]" in unreadable.err
    assert command("status", DOCKER_CONFIG=str(folder)).code == 0


def test_flags_before_a_reload(command: Command, settings_file: Path) -> None:
    """While the settings have other rules, standard error says which ones an agent gets."""
    command("run")
    settings_file.write_text("rules: []\n")
    found = command("agent", "flags")
    assert (found.code, found.out) == (0, f"{FLAGS}\n")
    assert "the agent gets the rules that are live" in found.err
    assert command("agent", "flags", "--format", "json").valid("agent-flags")["verdict"] == "drifted"


@pytest.mark.parametrize("verb", ["flags", "compose"])
def test_a_stack_that_does_not_serve_is_refused_by_docker(
    verb: str, command: Command, memory: MemoryEngine
) -> None:
    """Without a stack, or with a stopped sibling, it is an error, and the answer is a word that docker refuses."""
    found = command("agent", verb)
    assert (found.code, found.out) == (6, f"{REFUSAL}\n")
    assert "error[not-up]" in found.err
    command("run")
    memory.stop("clawker-coredns")
    found = command("agent", verb)
    assert (found.code, found.out) == (6, f"{REFUSAL}\n")
    assert "error[not-serving]" in found.err
    assert "coredns: state status (tamper)" in found.err


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (2, ["agent"]),
        (2, ["agent", "flgs"]),
        (2, ["agent", "flags", "--formt", "json"]),
        (2, ["--project", "run", "agent", "flags", "--format", "xml"]),
        (2, ["--host", "x", "--context", "y", "agent", "flags"]),
        (2, ["--confg", "x", "agent", "flags"]),
        (2, ["agent", "compose", "no service"]),
        (3, ["--config", "missing.yaml", "agent", "flags"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_refused_by_docker(code: int, arguments: list[str], command: Command) -> None:
    """A shell ignores the exit code of `$(…)`, so even a mistyped line must not start an agent."""
    command("run")
    found = command(*arguments)
    assert (found.code, found.out) == (code, f"{REFUSAL}\n")


@pytest.mark.parametrize("arguments", [["--project", "agent", "drift"], ["agent", "run", "--network", "x", "y"]])
def test_only_answers_for_docker_are_refused(arguments: list[str], command: Command) -> None:
    """Whatever else fails prints no such word."""
    found = command(*arguments)
    assert found.code != 0
    assert REFUSAL not in found.out


def test_compose(command: Command) -> None:
    """The services that are named, else one called agent."""
    command("run")
    for arguments, services in ([], ["agent"]), (["web", "db"], ["web", "db"]):
        found = command("agent", "compose", *arguments)
        assert found.code == 0
        assert [line.strip() for line in found.out.splitlines() if re.match("  [^ ]", line)] == [
            *(f'"{name}":' for name in services),
            '"clawker-net":',
        ]


@pytest.mark.parametrize(
    ("before", "place"),
    [([], []), (["--context", "far"], ["--context", "far"]), (["--host", "x"], ["--host", "unix:///memory.sock"])],
)
def test_run_becomes_docker(before: list[str], place: list[str], docker: Path, settings_file: Path) -> None:
    """`agent run` is `docker run` with the flags and all words as given, on the same engine, as one process."""
    settings_file.write_text("rules:\n  - dst: a.test\n")
    words = ["-it", "--rm", "-h", "name", "-e", "A=$B c", "debian", "sh", "-c", "--help", "--", "--network"]
    done = started(docker, "--config", str(settings_file), *before, "agent", "run", *words)
    assert (done.returncode, done.stderr) == (42, "")
    assert json.loads(done.stdout) == {"arguments": [*place, "run", *FLAGS.split(), *words], "input": "typed"}


def test_run_refuses_what_opens_a_way_around(docker: Path, settings_file: Path) -> None:
    """Docker is not started: neither with such an option, nor while the stack does not serve."""
    place = ("--config", str(settings_file), "agent", "run")
    for rules, words, code, error in (
        (("a.test",), ["--network", "host", "debian"], 6, "agent-unconfined"),
        (("a.test",), ["-v", "/memory.sock:/s", "debian"], 6, "agent-unconfined"),
        (("a.test",), ["-dp", "8080:80", "debian"], 6, "agent-unreachable"),
        (("a.test",), ["--no-such-option", "debian"], 2, "agent-option"),
        ((), ["debian"], 6, "not-up"),
        (("a.test",), [], 2, "usage"),
    ):
        done = started(docker, *place, *words, rules=rules)
        assert (done.returncode, done.stdout) == (code, ""), words
        assert f"error[{error}]" in done.stderr


def test_run_without_docker(tmp_path: Path, settings_file: Path) -> None:
    """Without a docker CLI, the error says how to start an agent by other means."""
    done = started(tmp_path, "--config", str(settings_file), "agent", "run", "debian")
    assert (done.returncode, done.stdout) == (4, "")
    assert "error[docker-cli-missing]" in done.stderr
    assert "agent flags --format json" in done.stderr


def test_help_of_run_and_of_docker(command: Command) -> None:
    """`--help` is ours; `-h` is docker's, for the host name."""
    assert "The exit code is docker's." in " ".join(command("agent", "run", "--help").out.split())
    assert "error[not-up]" in command("agent", "run", "-h", "name", "debian").err
