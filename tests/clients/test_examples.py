"""The examples for CI systems and development containers either work or fail visibly."""

import json
import re
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker import APIClient

from clawker_fw.stack.image_tar import BuiltImage, Entry
from devkit.engines import PrivateEngine, install_client, private_engine
from devkit.firewall import Firewall
from devkit.host import client
from devkit.stacks import CHECKOUT, environment
from devkit.wheel import wheel as built_wheel
from hatch_build import ARCHITECTURES

ACTION = yaml.safe_load((CHECKOUT / "examples" / "github-action" / "action.yml").read_text("utf-8"))
FEATURE = CHECKOUT / "examples" / "devcontainer-feature" / "src" / "clawker-fw"
PROGRAMS = ("sh", "getent", "cp", "mkdir", "chmod")
"""Programs in an agent's image."""


@pytest.fixture(scope="module")
def engine(needs_engine: Callable[..., None]) -> Iterator[PrivateEngine]:
    needs_engine()
    install_client()
    with private_engine() as started:
        yield started


@pytest.fixture(scope="module")
def docker(engine: PrivateEngine) -> Iterator[APIClient]:
    with closing(client(engine.host)) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def image(docker: APIClient) -> str:
    """An image with a shell and the needs of the development container example."""
    paths = [Path(shutil.which(each) or each) for each in PROGRAMS]
    for program in tuple(paths):
        listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
        paths += map(Path, re.findall(r"(/\S+) \(0x", listed))
    entries = [Entry(str(path).lstrip("/"), path, 0o755) for path in sorted(set(paths))]
    if Path("/bin/sh") not in paths:
        entries.append(Entry("bin/sh", Path("/bin/sh"), 0o755))
    architecture = str(docker.version()["Arch"])
    assert architecture in ARCHITECTURES
    built = BuiltImage("example/shell", "dev", architecture, tuple(entries), labels={})
    said = list(docker.load_image(built.archive()))  # type: ignore[no-untyped-call]
    assert not [line for line in said if "error" in line]
    return built.reference


@pytest.fixture(scope="module")
def wheel() -> Path:
    """This release as a wheel for pip."""
    return built_wheel()


@dataclass
class Job:
    """A CI job with one step: the action. Only the CI system's own part is imitated."""

    folder: Path
    host: str
    inputs: Mapping[str, str]
    meanwhile: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    """What happens before a step."""
    outcomes: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    said: str = ""

    @property
    def summary(self) -> str:
        path = self.folder / "summary"
        return path.read_text() if path.exists() else ""

    def run(self, last: str = "") -> bool:
        """Run the steps without an outcome, up to the last one, and return whether the job succeeds."""
        for name in ("temp", "workspace"):
            (self.folder / name).mkdir()
        (self.folder / "workspace" / "file").touch()
        for step in ACTION["runs"]["steps"]:
            if step["id"] in self.outcomes:
                continue
            fine = "failure" not in self.outcomes.values()
            wanted = self._decide(step["if"]) if "if" in step else fine
            self.outcomes[step["id"]] = self._outcome(step) if wanted else "skipped"
            if step["id"] == last:
                break
        return "failure" not in self.outcomes.values()

    def _outcome(self, step: Mapping[str, Any]) -> str:
        self.meanwhile.get(step["id"], lambda: None)()
        script, output = self.folder / "script.sh", self.folder / "output"
        script.write_text(step["run"])
        output.write_text("")
        variables = {name: self._filled(text) for name, text in step["env"].items()}
        supplied = {
            "DOCKER_HOST": self.host,
            "HOME": str(self.folder),
            "PIP_CACHE_DIR": str(self.folder.parent / "pip"),
            "RUNNER_TEMP": str(self.folder / "temp"),
            "GITHUB_WORKSPACE": str(self.folder / "workspace"),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary"),
        }
        assert step["shell"] == "bash"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            cwd=self.folder / "workspace",
            env=environment(**supplied, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.said += f"--- {step['id']}\n{done.stdout}"
        for line in output.read_text().splitlines():
            name, _, value = line.partition("=")
            self.outputs[f"steps.{step['id']}.outputs.{name}"] = value
        return "failure" if done.returncode else "success"

    def _filled(self, text: str) -> str:
        known = {f"inputs.{name}": value for name, value in self.inputs.items()} | self.outputs
        return re.sub(r"\$\{\{ (\S+) \}\}", lambda found: known[found[1]], text)

    def _decide(self, condition: str) -> bool:
        found = re.fullmatch(r"\$\{\{ always\(\) && steps\.(\w+)\.outcome == '(\w+)' \}\}", condition)
        assert found, condition
        return self.outcomes[found[1]] == found[2]


@pytest.fixture(scope="module")
def fine(image: str, wheel: Path) -> dict[str, str]:
    defaults = {name: given["default"] for name, given in ACTION["inputs"].items() if "default" in given}
    given = {"package": str(wheel), "image": image, "rules": "- dst: allowed.test\n", "run": "exit 0"}
    assert {*defaults, *given} == set(ACTION["inputs"])
    return {**defaults, **given}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, engine: PrivateEngine, fine: dict[str, str]) -> Job:
    """A job that has only installed the program."""
    job = Job(tmp_path_factory.mktemp("job"), engine.host, fine)
    assert job.run(last="install"), job.said
    return job


@pytest.fixture
def job(tmp_path: Path, installed: Job, fine: dict[str, str]) -> Callable[..., Job]:
    """Return a job whose action has these inputs, plus usable ones. It can also only install."""

    def made(*, installs: bool = False, **inputs: str) -> Job:
        given = Job(tmp_path, installed.host, {**fine, **inputs})
        if not installs:
            given.outcomes, given.outputs = dict(installed.outcomes), dict(installed.outputs)
        return given

    return made


def left(docker: APIClient) -> list[str]:
    """Return the engine's contents, except its own networks."""
    names = [each["Name"] for each in docker.networks() if each["Name"] not in {"bridge", "host", "none"}]
    return names + [str(each["Names"][0]) for each in docker.containers(all=True)]


COMMAND = """
[ -e file ]
getent hosts allowed.test
! getent hosts refused.test
"""


def test_the_command_runs_inside(job: Callable[..., Job], docker: APIClient) -> None:
    """The command has the workspace and the allowed names only, and leaves nothing behind."""
    done = job(run=COMMAND)
    assert done.run(), done.said
    assert set(done.outcomes.values()) == {"success"}
    assert re.search(r"^10\.\S+ +allowed\.test$", done.said, re.MULTILINE)
    assert "refused.test" in done.summary
    assert left(docker) == []


def test_what_changed_meanwhile_fails_the_job(job: Callable[..., Job], docker: APIClient) -> None:
    """A failing command, or a stack that is not current afterwards, fails the job; the stack is removed."""
    done = job(run="exit 7", conformance="false")

    def stop_envoy() -> None:
        (envoy,) = docker.containers(filters={"name": f"{done.outputs['steps.install.outputs.project']}-envoy"})
        docker.stop(envoy, timeout=1)

    done.meanwhile = {"check": stop_envoy}
    assert not done.run()
    assert done.outcomes == {
        "install": "success",
        "start": "success",
        "command": "failure",
        "check": "failure",
        "stop": "success",
    }
    assert "What the firewall refused" in done.summary
    assert left(docker) == []


@pytest.mark.parametrize(
    ("inputs", "failing"),
    [
        ({"rules": "- dst: https://allowed.test\n"}, "start"),
        ({"package": "/nowhere/clawker_fw-0.1.0-py3-none-any.whl"}, "install"),
        ({"conformance": "maybe"}, "install"),
    ],
)
def test_without_a_proven_stack_nothing_runs(
    inputs: Mapping[str, str], failing: str, job: Callable[..., Job], docker: APIClient
) -> None:
    """With an unusable input, the command is not started, and the job fails."""
    done = job(installs=failing == "install", **inputs)
    assert not done.run()
    assert (done.outcomes[failing], done.outcomes["command"]) == ("failure", "skipped")
    assert left(docker) == []


def test_no_input_is_part_of_a_script() -> None:
    """Inputs reach a script only as variables, so they can't be executed."""
    assert [step["id"] for step in ACTION["runs"]["steps"] if "${{" in step["run"]] == []


DECLARED = json.loads((FEATURE / "devcontainer-feature.json").read_text("utf-8"))
IN_CREATION = {DECLARED["onCreateCommand"], DECLARED["postStartCommand"]}
STARTED = "the container's own program"

# How a tool starts a development container (https://github.com/devcontainers/cli). It ignores a Feature's failure.
START = f'echo Container started\ntrap "exit 0" 15\n{DECLARED["entrypoint"]}\nexec "$@"'


def docker_run(engine: PrivateEngine, *words: str) -> "subprocess.CompletedProcess[str]":
    command = ["docker", "--host", engine.host, "run", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def install(engine: PrivateEngine, image: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a Feature's installation in a container, as during a build."""
    mounted = ["--volume", f"{FEATURE}:/feature:ro"]
    return docker_run(engine, *mounted, *words, image, "sh", "/feature/install.sh")


@pytest.fixture(scope="module")
def guarded(engine: PrivateEngine, docker: APIClient, image: str) -> str:
    names = ["--env", "ALLOWED=allowed.test", "--env", "REFUSED=refused.test"]
    done = install(engine, image, "--name", "building", *names)
    assert done.returncode == 0, done.stderr
    docker.commit("building", "example/guarded", "dev")
    docker.remove_container("building")
    return "example/guarded:dev"


@pytest.fixture(scope="module")
def flags(engine: PrivateEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The output of `agent flags` for a stack with one rule."""
    firewall = Firewall(engine.host, f"test{secrets.token_hex(3)}", tmp_path_factory.mktemp("settings"))
    firewall.write("allowed.test")
    firewall.run()
    yield shlex.split(firewall.call("agent", "flags").expect().out)
    firewall.call("down", "--force").expect()


def started(engine: PrivateEngine, image: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Start a container as a tool for development containers does."""
    command = ["-c", START, "-", "sh", "-c", f"echo {shlex.quote(STARTED)}"]
    return docker_run(engine, "--rm", *words, "--entrypoint", "/bin/sh", image, *command)


@pytest.mark.parametrize("more", [[], ["--init"]], ids=["process 1", "init"])
def test_inside_the_firewall_the_container_starts(
    more: list[str], engine: PrivateEngine, guarded: str, flags: list[str]
) -> None:
    """It runs its own program, and its creation commands succeed."""
    done = started(engine, guarded, *flags, *more)
    assert (done.returncode, done.stderr) == (0, "")
    assert STARTED in done.stdout
    for command in IN_CREATION:
        assert docker_run(engine, "--rm", *flags, guarded, command).returncode == 0


def without_cap_drop(flags: list[str]) -> list[str]:
    """Return the flags of an agent that may forge packets."""
    at = flags.index("--cap-drop")
    return flags[:at] + flags[at + 2 :]


def without_dns(flags: list[str]) -> list[str]:
    """Return the flags of an agent that uses the engine's resolver."""
    return [*flags[: flags.index("--dns")], "--cap-drop", "NET_RAW"]


CONFINED = ["--cap-drop", "NET_RAW"]
WAYS: Mapping[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "another network": (lambda _: CONFINED, "allowed.test must resolve"),
    "another network, where both names lead elsewhere": (
        lambda _: [*CONFINED, "--add-host", "allowed.test:192.0.2.1", "--add-host", "refused.test:192.0.2.1"],
        "which is not on its network",
    ),
    "no network": (lambda _: [*CONFINED, "--network", "none"], "no network"),
    "the host's network": (lambda _: [*CONFINED, "--network", "host"], "network"),
    "raw packets": (without_cap_drop, "CAP_NET_RAW"),
    "a capability": (lambda flags: [*flags, "--cap-add", "NET_ADMIN"], "CAP_NET_ADMIN"),
    "a refused name": (lambda flags: [*flags, "--add-host", "refused.test:192.0.2.1"], "refused.test must not"),
    "the engine's resolver": (without_dns, "allowed.test must resolve"),
}


@pytest.mark.parametrize("way", WAYS)
def test_elsewhere_the_container_ends(way: str, engine: PrivateEngine, guarded: str, flags: list[str]) -> None:
    """The container says why and never starts its own program, and its creation commands fail."""
    chosen, reason = WAYS[way]
    words = chosen(flags)
    with ThreadPoolExecutor() as pool:  # where no name resolves, each waits for that
        created = [pool.submit(docker_run, engine, "--rm", *words, guarded, command) for command in IN_CREATION]
        done = started(engine, guarded, *words)
    assert STARTED not in done.stdout
    assert "is not inside the firewall" in done.stderr
    assert reason in done.stderr
    assert [each.result().returncode for each in created] == [1] * len(IN_CREATION)


@pytest.mark.parametrize("names", [{}, {"ALLOWED": "a.test", "REFUSED": ""}, {"ALLOWED": "$(id)"}])
def test_a_feature_with_useless_options_fails_the_build(
    names: Mapping[str, str], engine: PrivateEngine, image: str
) -> None:
    """A Feature that can't verify anything is not installed."""
    words = [word for name, value in names.items() for word in ("--env", f"{name}={value}")]
    assert install(engine, image, "--rm", *words).returncode == 1
