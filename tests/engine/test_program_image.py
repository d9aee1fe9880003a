"""The image in `examples/image` on a real engine: the program works in a container as on the host."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from devkit import program_image
from devkit.firewall import Firewall, Outcome

SOCKET = "/var/run/docker.sock"
SETTINGS = "/clawker-fw.yaml"


@dataclass
class Program:
    """The image on an engine, and the stack for its containers."""

    docker: APIClient
    firewall: Firewall
    image: str
    containers: list[str] = field(default_factory=list)

    def start(self, *arguments: str, file: Path | None = None) -> str:
        """Start the program in a fresh container, with the stack's settings file or another."""
        path = file or self.firewall.settings
        binds = [f"{self.firewall.host.removeprefix('unix://')}:{SOCKET}", f"{path}:{SETTINGS}:ro"]
        made = self.docker.create_container(
            self.image,
            list(arguments),
            environment={"CLAWKER_FW_PROJECT": self.firewall.project},
            host_config=self.docker.create_host_config(binds=binds),
        )["Id"]
        self.containers.append(made)
        self.docker.start(made)
        return str(made)

    def call(self, *arguments: str, file: Path | None = None) -> Outcome:
        """Run the program in a fresh container to its end."""
        made = self.start(*arguments, file=file)
        code = int(self.docker.wait(made, timeout=300)["StatusCode"])
        out = self.docker.logs(made, stdout=True, stderr=False).decode()
        err = self.docker.logs(made, stdout=False, stderr=True).decode()
        return Outcome(code, out, err, 0.0)

    def drifts(self, code: int) -> bool:
        """Whether `drift` gives the same result in a container as on the host."""
        arguments = ("drift", "--format", "json")
        inside, outside = self.call(*arguments).expect(code), self.firewall.call(*arguments).expect(code)
        return bool(compared(inside) == compared(outside))


@pytest.fixture(scope="module")
def program(shared: Firewall, docker: APIClient) -> Iterator[Program]:
    """The image of this release, and a stack created by the program on the host."""
    made = Program(docker, shared, program_image.build(docker))
    yield made
    for each in made.containers:
        docker.remove_container(each, force=True, v=True)
    for reference in (made.image, program_image.BASE):
        docker.remove_image(reference)


def compared(outcome: Outcome) -> Any:  # noqa: ANN401 - JSON
    """Return an answer without the engine's address and its source, because the socket's path differs."""
    return {name: value for name, value in outcome.json.items() if name != "engine"} | {
        "settings": {name: value for name, value in outcome.json["settings"].items() if name != "source"}
    }


def test_drift_in_a_fresh_container_is_drift_on_the_machine(program: Program) -> None:
    """Verdict, exit code and JSON are equal, for a current stack and for a drifted one."""
    assert program.drifts(0)
    before = program.firewall.settings.read_text()
    try:
        program.firewall.settings.write_text(f"{before}- dst: fresh.test\n" if before.endswith("\n") else before)
        assert program.drifts(1)
        # a fresh container each time, and never --adopt
        assert program.call("run", "--format", "json").expect().json["verdict"] == "current"
        assert program.firewall.call("drift").expect()
    finally:
        program.firewall.settings.write_text(before)
    assert program.firewall.call("run").expect()


def test_conformance_and_down_in_a_container(program: Program) -> None:
    """Every attack is held, and then nothing of the stack is left."""
    held = program.call("conformance", "--format", "json")
    assert held.code == 0, held.out + held.err
    assert json.loads(held.out)
    assert program.call("down").expect()
    left = program.docker.containers(all=True, filters={"name": f"{program.firewall.project}-"})
    assert not [each for each in left if each["Id"] not in program.containers]
    program.firewall.run()
