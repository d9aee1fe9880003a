"""The real program as a user runs it: as a process, with a settings file, on one engine."""

import json
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from docker import APIClient

from devkit import prepared
from devkit.peers import Peer, Peers
from devkit.stacks import environment

SIBLINGS = ("envoy", "coredns")

RULES = (
    {"dst": "a.test", "allow_private": True},
    {"dst": "h.test", "proto": "http", "allow_private": True},
)


@dataclass(frozen=True)
class Outcome:
    """The result of one command."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.out)

    @property
    def findings(self) -> set[tuple[str, str, str, str, str]]:
        """The findings in the output: sibling, layer, field, cause and action."""
        return {
            (sibling["name"], each["layer"], each["field"], each["cause"], each["action"])
            for sibling in self.json["siblings"]
            for each in sibling["findings"]
        }

    def expect(self, code: int = 0) -> "Outcome":
        """Return itself, or raise an `AssertionError` with the command's whole output."""
        if self.code != code:
            raise AssertionError(f"exit code {self.code}, expected {code}\n{self.out}\n{self.err}")
        return self


@dataclass
class Firewall:
    """One stack on the engine at `host`, by default the one that the program locates.

    `package` is the folder of another release. `within` runs the program in another network.
    """

    host: str
    project: str
    folder: Path
    package: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    within: Sequence[str] = ()
    python: str = sys.executable
    _attachment: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What `status` has said about how agents are attached, by the id of the agent network."""

    @property
    def settings(self) -> Path:
        return self.folder / "clawker-fw.yaml"

    def write(self, *rules: str | Mapping[str, Any], **settings: Any) -> None:  # noqa: ANN401 - any setting
        """Write the settings file. A plain name is a rule with this `dst`."""
        entries = [{"dst": rule} if isinstance(rule, str) else dict(rule) for rule in rules]
        lines = [f"\n- {json.dumps(entry)}" for entry in entries] or [" []"]
        lines += [f"\n{name}: {json.dumps(value)}" for name, value in settings.items()]
        self.settings.write_text(f"rules:{''.join(lines)}\n")

    def command(self, *arguments: str) -> list[str]:
        place = ["--host", self.host] if self.host else []
        options = [*place, "--project", self.project, "--config", str(self.settings)]
        return [*self.within, self.python, "-m", "clawker_fw", *options, *arguments]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return self.start_raw(self.command(*arguments))

    def start_raw(self, command: Sequence[str]) -> "subprocess.Popen[str]":
        release = {"PYTHONPATH": str(self.package)} if self.package else {}
        return prepared.start(command, self.folder, environment(**release, **self.variables))

    def call(self, *arguments: str) -> Outcome:
        return self.call_raw(self.command(*arguments))

    def call_raw(self, command: Sequence[str]) -> Outcome:
        began = time.monotonic()
        process = self.start_raw(command)
        out, err = process.communicate(timeout=120)
        return Outcome(process.returncode, out, err, time.monotonic() - began)

    def shell(self, script: str, **variables: str) -> Outcome:
        """Run a shell script in which `fw` is the program, and `docker` uses the same engine."""
        program = f'fw() {{ {shlex.join(self.command())} "$@"; }}'
        command = ["env", f"DOCKER_HOST={self.host}", *(f"{name}={text}" for name, text in variables.items())]
        return self.call_raw([*command, "sh", "-c", f"{program}\n{script}"])

    def draining(self, timeout: str) -> "Firewall":
        return replace(self, variables={**self.variables, "CLAWKER_FW_DRAIN_TIMEOUT": timeout})

    def run(self, *arguments: str) -> Outcome:
        return self.call("run", "--format", "json", *arguments).expect()

    def drift(self) -> Outcome:
        """Run `drift` on the siblings: tests have agents of every kind."""
        return self.call("drift", "--agents", "ignore", "--format", "json")

    def current(self) -> bool:
        return self.drift().code == 0

    def status(self) -> Any:  # noqa: ANN401 - JSON
        return self.call("status", "--format", "json").expect().json

    def agent(self, peers: Peers, *arguments: str) -> Peer:
        """Start an agent with the options that `status` prints. They stay the same as long as its network does."""
        network = peers.client.inspect_network(f"{self.project}-net")["Id"]
        if network not in self._attachment:
            self._attachment[network] = self.status()["agent"]
        how = self._attachment[network]
        return peers.agent(how["network"], how["dns"], *arguments)

    def origin(self, peers: Peers, names: Sequence[str], *arguments: str) -> Peer:
        """Start an origin that Envoy can resolve by these names. Its address is private, on the egress network."""
        return peers.origin(f"{self.project}-egress", names, *(arguments or ("--http", "80", "--https", "443")))

    def container(self, sibling: str) -> str:
        return f"{self.project}-{sibling}"


def read_until_done(process: "subprocess.Popen[str]", step: str) -> None:
    """Read what a `run` tells until it has done a step with these words, or raise `AssertionError`."""
    assert process.stderr is not None  # noqa: S101 - for the type checker: it was started with a pipe
    if not any(line.startswith("done") and step in line for line in process.stderr):
        raise AssertionError(f"the run has ended without the step {step!r}")


def upgraded(firewall: Firewall, package: Path) -> Firewall:
    return replace(firewall, package=package)


@contextmanager
def brought_up(
    host: str,
    client: APIClient,
    folder: Path,
    *rules: Mapping[str, Any],
    **settings: Any,  # noqa: ANN401 - any setting
) -> Iterator[Firewall]:
    """Bring a stack with rules and settings up, and yield it. Afterwards nothing is left of it."""
    firewall = Firewall(host, f"test{secrets.token_hex(3)}", folder)
    firewall.write(*rules, **settings)
    firewall.run()
    try:
        yield firewall
    finally:
        remove_project(client, firewall.project)


def remove_project(client: APIClient, project: str) -> None:
    """Remove what is left of a stack, and all containers on its networks, by name."""
    for container in client.containers(all=True, filters={"name": project}):
        client.remove_container(container["Id"], force=True, v=True)
    for network in client.networks(names=[project]):
        for attached in client.inspect_network(network["Id"])["Containers"]:
            client.disconnect_container_from_network(attached, network["Id"], force=True)
        client.remove_network(network["Id"])
