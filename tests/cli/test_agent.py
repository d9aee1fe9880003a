"""Commands that attach agents, and their errors."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from clawker_fw import interrupts
from clawker_fw.agents.attachment import REFUSAL
from clawker_fw.cli import session
from clawker_fw.stack import labels
from devkit import prepared
from devkit.memory.engine import MemoryEngine
from devkit.stacks import CHECKOUT, environment
from tests.cli.conftest import Command, calls

FLAGS = "--network clawker-net --dns 10.213.1.53 --dns-search . --cap-drop NET_RAW"

Start = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def agent_run(docker: Path, settings_file: Path) -> Start:
    """Run `agent run` as a process with only this docker CLI, on an engine with some rules."""
    settings_file.write_text("rules:\n  - dst: a.test\n")
    usual = environment(PATH=str(docker), DOCKER_CONFIG=str(docker / "config"))

    def started(
        *words: str, before: Sequence[str] = (), rules: Sequence[str] = ("a.test",), **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        arguments = ["--config", str(settings_file), *before, "agent", "run", *words]
        command = [sys.executable, "-m", "tests.cli.program", *rules, "--", *arguments]
        process = prepared.start(command, docker, {**usual, **variables}, stdin=subprocess.PIPE)
        out, err = process.communicate("typed", timeout=600)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return started


def test_flags_are_one_line(command: Command) -> None:
    """`flags` prints only options for a shell; JSON gives the same as engine values."""
    command("run")
    found = command("agent", "flags")
    assert (found.code, found.out, found.err) == (0, f"{FLAGS}\n", "")
    answer = command.json("agent", "flags")
    assert answer["flags"] == FLAGS.split()
    assert (answer["network"], answer["dns"], answer["dns_search"], answer["cap_drop"]) == (
        "clawker-net",
        ["10.213.1.53"],
        ["."],
        ["NET_RAW"],
    )
    assert answer["engine"] == {"endpoint": "unix:///memory.sock", "source": "the default"}


def test_proxies_of_docker_are_taken_off(command: Command, tmp_path: Path) -> None:
    """If the docker CLI adds a proxy to containers, every answer for docker overrides it with an empty one."""
    command("run")
    folder = tmp_path / "proxied"
    folder.mkdir()
    config = folder / "config.json"
    config.write_text(json.dumps({"proxies": {"default": {"httpsProxy": "http://proxy.test:3128"}}}))
    emptied = f"{FLAGS} --env HTTPS_PROXY= --env https_proxy="
    assert command("agent", "flags", DOCKER_CONFIG=str(folder)).out == f"{emptied}\n"
    answer = command.json("agent", "flags", DOCKER_CONFIG=str(folder))
    assert (answer["flags"], answer["environment"]) == (emptied.split(), {"HTTPS_PROXY": "", "https_proxy": ""})
    assert 'https_proxy: ""' in command("agent", "compose", DOCKER_CONFIG=str(folder)).out
    config.write_text("{")
    unreadable = command("agent", "flags", DOCKER_CONFIG=str(folder))
    assert (unreadable.code, unreadable.out) == (4, f"{REFUSAL}\n")
    assert "error[docker-config-unreadable]" in unreadable.err


@pytest.mark.parametrize(
    ("version", "code"), [("2.18.1", 6), ("v2.24.3", 6), ("2.24.4", 0), ("5.0.0-desktop.1", 0), ("what", 0)]
)
def test_a_compose_that_ignores_overrides_is_refused(
    version: str, code: int, command: Command, tmp_path: Path
) -> None:
    """Old versions would leave a service on its own networks. An unknown version is accepted."""
    command("run")
    docker = tmp_path / "docker-cli" / "docker"
    docker.parent.mkdir()
    docker.write_text(f"#!/bin/sh\necho {version}\n")
    docker.chmod(0o755)
    found = command("agent", "compose", PATH=f"{docker.parent}:{os.environ['PATH']}")
    assert (found.code != 0, found.out == f"{REFUSAL}\n") == (code != 0, code != 0)
    assert ("error[compose-too-old]" in found.err) is (code != 0)


def test_flags_before_a_reload(command: Command, settings_file: Path) -> None:
    """If the settings have other rules, standard error says which ones an agent gets."""
    command("run")
    settings_file.write_text("rules: []\n")
    found = command("agent", "flags")
    assert (found.code, found.out) == (0, f"{FLAGS}\n")
    assert "the agent gets the rules that are live" in found.err
    assert command.json("agent", "flags")["verdict"] == "drifted"


@pytest.mark.parametrize("verb", ["flags", "compose"])
def test_a_stack_that_does_not_serve_is_refused_by_docker(
    verb: str, command: Command, memory: MemoryEngine
) -> None:
    """Without a serving stack, the command fails, and prints a word that docker refuses."""
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
        (2, ["--project", "run", "agent", "flags", "--format", "xml"]),
        (2, ["--host", "x", "--context", "y", "agent", "flags"]),
        (2, ["--confg", "x", "agent", "flags"]),
        (2, ["agent", "compose", "no service"]),
        (3, ["--config", "missing.yaml", "agent", "flags"]),
        (2, ["--project", "agent", "flags"]),
        (2, ["--context", "agent", "compose", "web"]),
        (2, ["--project", "a", "b", "agent", "flags"]),
        (2, ["agnet", "flags"]),
        (2, ["flags"]),
        (2, ["agent flags"]),
        (2, ["agent", "--project", "flags"]),
        (2, ["agent", "flags", "--project"]),
        (2, ["agent", "flags", "--config", "--project", "x"]),
        (6, ["agent", "--project", "absent", "flags"]),
        (2, ["--debug=1", "agent", "flags"]),
        (2, ["agent", "compose", "--publish"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_refused_by_docker(code: int, arguments: list[str], command: Command) -> None:
    """A shell ignores the exit code of `$(…)`, so even a mistyped line must not start an agent."""
    command("run")
    found = command(*arguments)
    assert (found.code, found.out) == (code, f"{REFUSAL}\n")


def _fails() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("code", "happens"),
    [
        (70, _fails),
        (130, lambda: signal.raise_signal(signal.SIGINT)),
        (130, lambda: signal.raise_signal(signal.SIGTERM)),
        (130, lambda: signal.raise_signal(signal.SIGHUP)),
    ],
)
@pytest.mark.parametrize(
    "arguments", [["agent", "flags"], ["agent", "flags", "--json"], ["agent", "compose", "web"]]
)
def test_whatever_ends_it_is_refused_by_docker(
    code: int,
    happens: Callable[[], None],
    arguments: list[str],
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a bug, an interrupt or SIGTERM, docker can't start an agent either."""
    monkeypatch.setattr(session, "connect_engine", lambda _: happens())
    with interrupts.handled(signal.default_int_handler, signal.SIGINT):  # which a shell's background jobs ignore
        found = command(*arguments)
    if "--json" in arguments:
        assert (found.code, found.valid("error")["error"]["code"]) == (
            code,
            "bug" if code == 70 else "interrupted",
        )
        assert found.out.startswith("{")  # docker refuses that as an image
    else:
        assert (found.code, found.out) == (code, f"{REFUSAL}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--project", "agent", "drift"],
        ["agent", "run", "--dns-search", "x", "y"],
        ["agent", "run", "--hostname", "agent", "flags"],
        ["rules", "alow", "a.test"],
        ["drift", "--formt", "json"],
    ],
)
def test_only_answers_for_docker_are_refused(arguments: list[str], command: Command) -> None:
    """Other commands that fail do not print the word."""
    found = command(*arguments)
    assert found.code != 0
    assert REFUSAL not in found.out


def test_compose(command: Command) -> None:
    """The named services, or one called `agent`."""
    command("run")
    for arguments, services in ([], ["agent"]), (["web", "db"], ["web", "db"]):
        found = command("agent", "compose", *arguments)
        assert found.code == 0
        assert [line.strip() for line in found.out.splitlines() if re.match("  [^ ]", line)] == [
            *(f'"{name}":' for name in services),
            '"clawker-net":',
        ]


def test_compose_publishes_ports(command: Command) -> None:
    """Ports are published for one service, with the first free address for such agents."""
    command("run")
    found = command("agent", "compose", "web", "-p", "8080:80", "--publish", "81")
    assert found.code == 0
    assert '"ipv4_address": "10.213.1.129"' in found.out
    assert f'"{labels.PUBLISHES}": "0 127.0.0.1::81 127.0.0.1:8080:80"' in found.out
    for arguments, code in ((["web", "db", "-p", "80"], 2), (["web", "-p", "80/udp"], 6)):
        refused = command("agent", "compose", *arguments)
        assert (refused.code, refused.out) == (code, f"{REFUSAL}\n")


@pytest.mark.parametrize(
    ("before", "place"),
    [(["--context", "far"], ["--context", "far"]), (["--host", "x"], ["--host", "unix:///memory.sock"])],
)
def test_run_creates_and_starts(before: list[str], place: list[str], docker: Path, agent_run: Start) -> None:
    """`agent run` creates a container with flags and arguments, and starts it with its input and exit code."""
    words = ["-it", "--rm", "-h", "name", "-e", "A=$B c", "debian", "sh", "-c", "--help", "--", "--network"]
    done = agent_run(*words, before=before)
    assert (done.returncode, done.stdout, done.stderr) == (42, "typed", "")
    create, start = calls(docker)
    named = ["--interactive", "--tty", "--rm", "--hostname=name", "--env=A=$B c", "--"]
    assert create == [*place, "create", *FLAGS.split(), *named, *words[6:]]
    assert start[:-1] == [*place, "start", "--attach", "--interactive"]
    assert re.fullmatch("[0-9a-f]{64}", start[-1])


def test_run_refuses_what_opens_a_way_around(docker: Path, agent_run: Start) -> None:
    """An open container is not started; it is removed with its volumes and its id file."""
    file = docker / "id"
    for shape, code, words in (
        ({"privileged": True, "security_options": ["seccomp=unconfined"]}, "agent-unconfined", "it is privileged"),
        ({"capabilities_added": ["SYS_TIME"], "uts_mode": "host"}, "agent-unconfined", "it has SYS_TIME; it uses"),
        ({"ports": ["0.0.0.0::80/tcp"]}, "agent-unreachable", "docker itself would publish a port"),
    ):
        file.write_text("as docker has written it")
        done = agent_run("--cidfile", str(file), "debian", AGENT_SHAPE=json.dumps(shape))
        assert (done.returncode, done.stdout) == (6, "")
        assert f"error[{code}]" in done.stderr
        assert words in done.stderr
        create, remove = calls(docker)[-2:]
        assert (create[0], remove[:-1]) == ("create", ["rm", "--force", "--volumes"])
        assert not file.exists()


PUBLISHING = ("-p", "8080:80", "-p", "127.0.0.2::443")
LABEL = f"{labels.PUBLISHES}=0 127.0.0.1:8080:80 127.0.0.2::443"


def test_run_publishes_ports(docker: Path, agent_run: Start) -> None:
    """Docker publishes nothing: the agent gets an address and a label, and starts once its relay listens."""
    done = agent_run(*PUBLISHING, "-d", "debian", AGENT_PUBLISHES=LABEL, STARTS_WITH="0")
    assert (done.returncode, done.stdout) == (0, "typed")
    assert "127.0.0.1:8080 leads to port 80 of the agent." in done.stderr
    assert "127.0.0.2:32768 leads to port 443 of the agent." in done.stderr
    create, start = calls(docker)
    further = LABEL.replace("=0 ", "=1 ")  # the existing container has number 0
    words = ["--ip", "10.213.1.131", "--label", further, "--", "debian"]
    assert (create, start[0]) == (["create", *FLAGS.split(), *words], "start")


def test_run_publishes_nothing_that_is_taken(docker: Path, agent_run: Start) -> None:
    """If a host port is taken, the agent is removed, and the error has the engine's message."""
    done = agent_run(*PUBLISHING, "debian", AGENT_PUBLISHES=LABEL, PORT_TAKEN="127.0.0.1:8080")
    assert (done.returncode, done.stdout) == (4, "")
    assert "error[agent-not-published]" in done.stderr
    assert "Bind for 127.0.0.1:8080 failed: port is already allocated" in done.stderr
    assert [each[0] for each in calls(docker)] == ["create", "rm"]


@pytest.mark.parametrize(
    ("words", "code", "error", "said"),
    [
        (["-p", "53:53/udp"], 6, "agent-unreachable", "only TCP is passed on"),
        (["-p", "8000-8010:8000-8010"], 6, "agent-unreachable", "no range of ports"),
        (["-p", "[::1]:80:80"], 2, "agent-option", "names no IPv4 address"),
        (["-p", "80:0"], 2, "agent-option", "names no IPv4 address and port"),
        (["-p", "80:80", "--ip", "10.213.0.9"], 2, "agent-option", "leave out --ip"),
        (["-p", "80:80", "-p", "80:81"], 2, "agent-option", "can't be published for two ports"),
        (["--no-such-option"], 2, "agent-option", ""),
        (["--dns-search", "a.test"], 6, "agent-unconfined", ""),
    ],
)
def test_options_that_are_refused(  # noqa: PLR0917 - the cases are in a table
    words: list[str], code: int, error: str, said: str, docker: Path, agent_run: Start
) -> None:
    """Refused options are reported with a reason before anything is created."""
    done = agent_run(*words, "debian")
    assert (done.returncode, done.stdout, calls(docker)) == (code, "", [])
    assert f"error[{error}]" in done.stderr
    assert said in " ".join(done.stderr.split())


def test_run_creates_nothing(docker: Path, agent_run: Start) -> None:
    """Docker is not called without an image, or while the stack does not serve."""
    for rules, words, code, error in (((), ["debian"], 6, "not-up"), (("a.test",), [], 2, "usage")):
        done = agent_run(*words, rules=rules)
        assert (done.returncode, done.stdout, calls(docker)) == (code, "", []), words
        assert f"error[{error}]" in done.stderr


def test_run_refuses_what_it_can_t_judge(docker: Path, agent_run: Start) -> None:
    """A container that the engine does not report is removed, and not started."""
    unknown = "f" * 64
    script = (docker / "docker").read_text().replace('os.environ["AGENT_ID"]', f'"{unknown}"')
    (docker / "docker").write_text(script)
    done = agent_run("debian")
    assert (done.returncode, "error[agent-unconfined]" in done.stderr) == (6, True)
    assert calls(docker)[1:] == [["rm", "--force", "--volumes", unknown]]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_before_the_start_leaves_nothing(number: str, docker: Path, agent_run: Start) -> None:
    """If a signal ends the program between creation and start, the container is removed."""
    former = signal.signal(signal.Signals[number], signal.default_int_handler)  # programs inherit what is ignored
    try:
        done = agent_run("debian", STOPPED_BY=number, PYTHONPATH=str(CHECKOUT))  # not in a fork
    finally:
        signal.signal(signal.Signals[number], former)
    assert done.returncode == 130
    assert [each[0] for each in calls(docker)] == ["create", "rm"]


def test_run_without_docker(docker: Path, agent_run: Start) -> None:
    """Without a docker CLI, the error names other ways to start an agent."""
    (docker / "docker").unlink()
    done = agent_run("debian")
    assert (done.returncode, done.stdout) == (4, "")
    assert "error[docker-cli-missing]" in done.stderr
    assert "agent flags --format json" in done.stderr


def test_help_of_run_and_of_docker(command: Command) -> None:
    """`--help` is ours; `-h` is docker's, for the host name."""
    assert "the exit code is docker's" in command("agent", "run", "--help").said
    assert "error[not-up]" in command("agent", "run", "-h", "name", "debian").err
