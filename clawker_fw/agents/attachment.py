"""Decides whether and how agents may be attached: flags for docker, and an override file for Compose. Pure.

A shell that substitutes `agent flags` into `docker run` ignores our exit code, and an empty answer would start the
agent without a firewall. So after any failure the answer is text that neither docker nor Compose accepts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clawker_fw.agents.trusted_roots import TARGET, Trust
from clawker_fw.errors import RefusedError
from clawker_fw.model.containers import Mount, Shape
from clawker_fw.model.desired import Desired
from clawker_fw.model.differences import RELAYING, Cause, Diff
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Role
from clawker_fw.stack import labels
from clawker_fw.stack.container import VOLUME
from clawker_fw.stack.relay import Publication

REFUSAL = "--clawker-fw-is-not-serving"
"""Docker fails with `unknown flag` before it contacts the engine. In YAML it is not a mapping."""

_TRUST_VOLUME = "clawker-fw-trust"
NO_SEARCH_DOMAIN = "."
DROPPED_CAPABILITY = "NET_RAW"


@dataclass(frozen=True, slots=True)
class Attachment:
    """What an agent's container needs: the agent network, the resolver, no search domains, no raw sockets.

    `emptied` are proxy variables that docker and Compose would set, though agents can reach no proxy. `trust` is
    needed with TLS inspection. A relay `publishes` ports, which needs a fixed `address` on the agent network.
    """

    network: str
    dns: str
    emptied: tuple[str, ...] = ()
    trust: Trust | None = None
    publishes: Publication | None = None
    address: str = ""

    @property
    def environment(self) -> Mapping[str, str]:
        """The agent's variables."""
        return {**dict.fromkeys(self.emptied, ""), **(self.trust.environment if self.trust else {})}

    @property
    def flags(self) -> tuple[str, ...]:
        """The words for `docker run` and `docker create`. They need no shell quotes."""
        return (
            *("--network", self.network, "--dns", self.dns),
            *("--dns-search", NO_SEARCH_DOMAIN, "--cap-drop", DROPPED_CAPABILITY),
            *(
                ("--mount", f"type=volume,source={self.trust.volume},target={TARGET},readonly,volume-nocopy")
                if self.trust
                else ()
            ),
            *(word for name, value in self.environment.items() for word in ("--env", f"{name}={value}")),
            *(("--ip", self.address, "--label", f"{labels.PUBLISHES}={self.publishes}") if self.publishes else ()),
        )

    def shape(self, entrypoint: Sequence[str], command: Sequence[str] = ()) -> Shape:
        """Return the shape of an agent's container with this command, and a volume for our files."""
        return Shape(
            entrypoint=tuple(entrypoint),
            command=tuple(command),
            networks={self.network: ""},
            mounts=(Mount("volume", VOLUME),),
            capabilities_dropped=(DROPPED_CAPABILITY,),
            dns=(self.dns,),
            dns_search=(NO_SEARCH_DOMAIN,),
        )

    def compose(self, services: Sequence[str]) -> str:
        """Return a Compose override file that attaches these services.

        Compose merges lists, so a service would keep its other networks; `!override` and `!reset` replace them.
        Variables need values here, because Compose takes missing ones from its own environment. Docker can't
        publish an agent's ports, so the override removes them. `publishes` is for a single service.
        """
        networks = {self.network: {"ipv4_address": self.address}} if self.publishes else [self.network]
        mount = {"type": "volume", "source": _TRUST_VOLUME, "target": TARGET, "read_only": True}
        mount |= {"volume": {"nocopy": True}}
        service = (
            f"    networks: !override {json.dumps(networks)}",
            f"    dns: !override {json.dumps([self.dns])}",
            f"    dns_search: !override {json.dumps([NO_SEARCH_DOMAIN])}",
            "    cap_add: !reset []",
            f"    cap_drop: {json.dumps([DROPPED_CAPABILITY])}",
            "    privileged: false",
            "    ports: !reset []",
            *((f"    labels: {json.dumps({labels.PUBLISHES: str(self.publishes)})}",) if self.publishes else ()),
            *(("    environment:",) if self.environment else ()),
            *(f"      {name}: {json.dumps(value)}" for name, value in self.environment.items()),
            *((f"    volumes: {json.dumps([mount])}",) if self.trust else ()),
        )
        lines = ["services:"]
        for name in services:
            lines += [f"  {json.dumps(name)}:", *service]
        lines += ["networks:", f"  {json.dumps(self.network)}:", "    external: true"]
        if self.trust:
            name = f"    name: {json.dumps(self.trust.volume)}"
            lines += ["volumes:", f"  {_TRUST_VOLUME}:", name, "    external: true"]
        return "\n".join(lines)


def attachment(desired: Desired, emptied: tuple[str, ...] = ()) -> Attachment:
    """Return how agents are attached to a stack, without trust."""
    return Attachment(desired.networks[Role.AGENTS].name, str(desired.service_address), emptied)


def require_serving(project: str, observed: Observed, diff: Diff) -> None:
    """Check that a stack confines and serves agents attached now.

    Tampering, an unresponsive container, or other networks than in the flags make it unfit.

    Raises:
        RefusedError: when it is not up or unfit, with the differences.
    """
    if observed.absent:
        raise RefusedError(
            "not-up", f"The stack {project} is not up.", hint="Start it with `clawker-fw run`, then the agent."
        )
    # Another agent's relay does not matter.
    own = [finding for finding in diff.findings if finding.action not in RELAYING]
    obstacles = [
        finding for finding in own if finding.cause is Cause.TAMPER or finding.field.startswith("networks.")
    ]
    if obstacles:
        raise RefusedError(
            "not-serving",
            f"The stack {project} can't take an agent now, because it differs from what clawker-fw made.",
            context=[
                f"{obstacle.sibling}: {obstacle.layer} {obstacle.field} ({obstacle.cause})"
                for obstacle in obstacles
            ],
            hint="`clawker-fw drift` shows what differs, `clawker-fw run` repairs it. Then start the agent.",
        )
