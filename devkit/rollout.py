"""Watchers in a swarm: the example in `examples/swarm`, deployed by the docker CLI, and waited for."""

import hashlib
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devkit import program_image
from devkit.firewall import Firewall
from devkit.peers import Peer, Peers
from devkit.stacks import CHECKOUT
from devkit.swarm import Node, Swarm
from devkit.waiting import until

STACK = "fw"
SERVICE = f"{STACK}_watch"
NAMES = ("a.test", "h.test")
EXAMPLE = CHECKOUT / "examples" / "swarm" / "stack.yaml"
IN_TESTS = """
version: "3.9"
services:
  watch:
    command: [watch, --heal, all, --listen, "unix:/run/clawker-fw/watch.sock", --attach, {attached}]
    healthcheck: {{start_period: 20s}}
    deploy:
      update_config: {{monitor: 1s, delay: 1s}}
      rollback_config: {{monitor: 1s, delay: 1s}}
"""
"""What a user can change in a file beside the example: shorter times, and a network for tasks of services."""

LOAD = ("load", "--rate", "40", "--seconds", "0", "https://a.test/", "http://h.test/")

_ENDS = {"completed", "paused", "rollback_completed", "rollback_paused"}
_PATIENCE = 180.0


@dataclass(frozen=True, slots=True)
class Rolled:
    """How a rollout went: the state in which it ended, and its tasks in the order of their start."""

    state: str
    message: str
    tasks: tuple[Any, ...]

    @property
    def nodes(self) -> set[str]:
        """The ids of the nodes on which a task runs: its container is healthy."""
        return {each["NodeID"] for each in self.tasks if each["Status"]["State"] == "running"}

    @property
    def was_ring_by_ring(self) -> bool:
        """Whether each task was begun when the one before had become healthy."""
        return all(
            later["CreatedAt"] >= earlier["Status"]["Timestamp"]
            for earlier, later in zip(self.tasks, self.tasks[1:], strict=False)
        )


@dataclass
class Fleet:
    """One stack on each node of a swarm, with the same settings. A `release` is the folder of another program."""

    swarm: Swarm
    folder: Path
    attached: str
    agents: dict[str, Peer] = field(default_factory=dict)

    def on(self, node: Node, release: Path | None = None) -> Firewall:
        """Return the stack of a node, as the program outside of the swarm sees it."""
        return Firewall(node.engine.host, "clawker", self.folder, release)

    def load(self, release: Path | None = None) -> None:
        """Build a release's image, once, and load it into all engines."""
        image = self._image(release)
        if not image.exists():
            docker = self.swarm.manager.docker
            name = program_image.build_later(docker, release) if release else program_image.build(docker)
            self.swarm.manager.call("save", "--output", str(image), name)
        self.swarm.on_each(lambda node: node.call("load", "--input", str(image)))

    def _image(self, release: Path | None) -> Path:
        return self.folder / f"{release.name if release else 'this'}.tar"

    def deploy(self, release: Path | None = None) -> Rolled:
        """Deploy the example with the settings and a release, and wait for the end of what that begins."""
        manager = self.swarm.manager
        before = self._update()
        self._deploy(manager, program_image.LATER if release else program_image.NAME)
        if before is None:
            until(lambda: len(self.running()) == len(self.swarm.nodes), _PATIENCE, every=0.2)
            return Rolled("created", "", self._tasks())
        until(lambda: (self._update() or before).get("StartedAt") != before.get("StartedAt"), _PATIENCE, every=0.2)
        until(lambda: (self._update() or {}).get("State") in _ENDS, _PATIENCE, every=0.2)
        ended = self._update() or {}
        return Rolled(str(ended["State"]), str(ended["Message"]), self._tasks())

    def _deploy(self, manager: Node, image: str) -> None:
        settings = self.on(manager).settings
        variables = {
            "IMAGE": manager.call("image", "inspect", "--format", "{{.Id}}", image),
            "DIGEST": hashlib.sha256(settings.read_bytes()).hexdigest()[:16],
        }
        with tempfile.TemporaryDirectory() as folder:
            stack, further = Path(folder, EXAMPLE.name), Path(folder, "further.yaml")
            shutil.copy(EXAMPLE, stack)
            shutil.copy(settings, folder)
            further.write_text(IN_TESTS.format(attached=self.attached))
            files = ("--compose-file", str(stack), "--compose-file", str(further))
            manager.call("stack", "deploy", "--resolve-image", "never", *files, STACK, variables=variables)

    def _update(self) -> dict[str, Any] | None:
        """Return what the swarm says of the last update: nothing before there is a service."""
        found = self.swarm.manager.docker.services({"name": SERVICE})  # type: ignore[no-untyped-call]
        return dict(found[0].get("UpdateStatus") or {}) if found else None

    def _tasks(self) -> tuple[Any, ...]:
        return tuple(sorted(self.swarm.tasks(SERVICE), key=lambda each: str(each["CreatedAt"])))

    def running(self) -> set[str]:
        """Return the ids of the nodes on which the service is healthy, as the swarm says."""
        found = [each for each in self._tasks() if each["DesiredState"] == each["Status"]["State"] == "running"]
        return {each["NodeID"] for each in found}

    def put_load(self) -> None:
        """Start an origin and an agent on each node, which makes requests all the time."""
        for node in self.swarm.nodes:
            peers, firewall = Peers(node.docker), self.on(node)
            firewall.origin(peers, NAMES)
            self.agents[node.name] = firewall.agent(peers, *LOAD)
        for agent in self.agents.values():
            until(lambda agent=agent: any(line.get("done") for line in agent.said()))  # type: ignore[misc]

    def take_load(self) -> dict[str, Any]:
        """Stop the agents, and return the summary of each by its node."""
        found = {name: agent.stop().last for name, agent in self.agents.items()}
        self.agents.clear()
        return found

    def inside(self, node: Node, *arguments: str) -> str:
        """Run the program in the watcher's container of a node, and return what it answers."""
        listed = node.call("ps", "--quiet", "--filter", f"name={SERVICE}", "--filter", "status=running")
        return node.call("exec", listed.splitlines()[0], "clawker-fw", *arguments, check=False)
