"""The real CoreDNS with our plugins, on loopback."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Self

from clawker_fw.model.stacks import Slots
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack import coredns, name_list, virtual
from clawker_fw.stack.release import Release
from clawker_fw.stack.topology import Addressing
from devkit.dns import Answer, Resolver, query
from devkit.programs import free_port, machine
from devkit.starting import exchange, wait_for
from devkit.waiting import until

ADDRESSING = Addressing(IPv4Network("10.213.0.0/20"), IPv4Network("10.214.0.0/24"))


class Program:
    """A running CoreDNS whose list can be replaced like by `fwctl commit`."""

    def __init__(self, folder: Path, release: Release) -> None:
        """Start it with an empty list and without telemetry, and wait until it listens."""
        self.list, self.telemetry = folder / "names.json", folder / "telemetry.json"
        self._policy_socket, self._telemetry_socket = folder / "policy.sock", folder / "telemetry.sock"
        self.port = free_port()
        self.write(document(RuleSet()))
        self.telemetry.write_bytes(b"{}")
        corefile = folder / "Corefile"
        plugins = (
            f"otel {self.telemetry} {self._telemetry_socket}",
            f"policy {self.list} {self._policy_socket}",
        )
        corefile.write_text("\n".join((f".:{self.port} {{", *plugins, "}\n")))
        self.process = subprocess.Popen(
            [release.binary("coredns", machine()), "-conf", corefile], stdout=subprocess.DEVNULL
        )
        self.resolver = Resolver("127.0.0.1", self.port)
        wait_for(self.process, self._answers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        try:
            self.ask("ready.test")  # over UDP, the last at which it listens
        except OSError:
            return False
        return True

    def write(self, content: bytes, path: Path | None = None) -> None:
        fresh = self.list.with_name("fresh")
        fresh.write_bytes(content)
        fresh.replace(path or self.list)

    def serve(self, rules: RuleSet) -> None:
        content = document(rules)
        self.write(content)
        until(lambda: _is_read(content, self.status))

    def send(self, settings: Mapping[str, object]) -> None:
        content = json.dumps(settings).encode()
        self.write(content, self.telemetry)
        until(lambda: _is_read(content, self.telemetry_status))

    @property
    def status(self) -> dict[str, Any]:
        return dict(json.loads(exchange(self._policy_socket)))

    @property
    def telemetry_status(self) -> dict[str, Any]:
        return dict(json.loads(exchange(self._telemetry_socket)))

    def ask(self, name: str, **how: object) -> Answer:
        return self.resolver.ask(query(name, **how))  # type: ignore[arg-type]  # as `query` takes them


def _is_read(content: bytes, status: Mapping[str, object]) -> bool:
    return (status["digest"], status["reason"]) == (hashlib.sha256(content).hexdigest(), "")


def document(rules: RuleSet) -> bytes:
    compiled = Policy(rules)
    numbers = virtual.assigned(compiled.opaque, virtual.Numbers(), ADDRESSING.room)
    return coredns.hot(compiled, replace(ADDRESSING, numbers=numbers), Slots())[name_list.POLICY].content
