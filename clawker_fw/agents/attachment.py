"""Whether an agent may be attached, and how: as flags for docker, and as an override for compose. Pure.

A shell ignores our exit code where `agent flags` is substituted into `docker run`. An empty answer would start
the agent without a firewall, so after any failure the answer is a word that neither docker nor compose accepts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clawker_fw.agents.trust import TARGET, Trust
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
"""Docker ends with `unknown flag` before it asks the engine for anything. In YAML it is not a mapping."""

_VOLUME = "clawker-fw-trust"
"""What the volume with what agents trust is called in an override."""

NO_SEARCH_DOMAIN = "."
DROPPED_CAPABILITY = "NET_RAW"


@dataclass(frozen=True, slots=True)
class Attachment:
    """What an agent's container needs: the agent network, the resolver and no search domains, no raw sockets.

    `emptied` are variables that docker and compose would set: those of a proxy, which no agent can reach. `trust`
    is what it needs so that it trusts the stack's certificates, if the stack inspects connections. `publishes` is
    what a relay is to publish for it, and `address` the one on the agent network that it then has.
    """

    network: str
    dns: str
    emptied: tuple[str, ...] = ()
    trust: Trust | None = None
    publishes: Publication | None = None
    address: str = ""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that it is given."""
        return {**dict.fromkeys(self.emptied, ""), **(self.trust.environment if self.trust else {})}

    @property
    def flags(self) -> tuple[str, ...]:
        """The words for `docker run` and `docker create`. No shell needs them quoted."""
        return (
            *("--network", self.network, "--dns", self.dns),
            *("--dns-search", NO_SEARCH_DOMAIN, "--cap-drop", DROPPED_CAPABILITY),
            *(
                ("--mount", f"type=volume,source={self.trust.volume},target={TARGET},readonly,volume-nocopy")
                if self.trust
                else ()
            ),
            *(word for name, value in self.environment.items() for word in ("--env", f"{name}={value}")),
            *(("--ip", self.address) if self.publishes else ()),
            *(("--label", f"{labels.PUBLISHES}={self.publishes}") if self.publishes else ()),
        )

    def shape(self, entrypoint: Sequence[str], command: Sequence[str] = ()) -> Shape:
        """Return the shape of an agent's container that runs this command, with a volume for our files."""
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
        """Return an override file for compose that attaches these services.

        Compose joins the lists of several files: a service would keep its other networks. `!override` and `!reset`
        replace them. Variables it joins by name, and would look for those without a value in its own environment.
        Docker can publish no port of an agent, so those of the user's file are taken back. What the attachment
        `publishes` is for one service.
        """
        networks = {self.network: {"ipv4_address": self.address}} if self.publishes else [self.network]
        mount = {"type": "volume", "source": _VOLUME, "target": TARGET, "read_only": True}
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
            lines += [
                "volumes:",
                f"  {_VOLUME}:",
                f"    name: {json.dumps(self.trust.volume)}",
                "    external: true",
            ]
        return "\n".join(lines)


def attachment(desired: Desired, emptied: tuple[str, ...] = ()) -> Attachment:
    """Return how agents are attached to a stack, but for what they trust."""
    network = desired.networks[Role.AGENTS].name
    return Attachment(network, str(desired.service_address), emptied)


def require_serving(project: str, observed: Observed, found: Diff) -> None:
    """Require that a stack confines and serves an agent that is attached to it now.

    What makes it unfit is tampering, silence, and networks other than those that flags would name.

    Raises:
        RefusedError: when it is not up, or differs from what we made, with the differences.
    """
    if observed.absent:
        raise RefusedError(
            "not-up", f"The stack {project} is not up.", hint="Start it with `clawker-fw run`, then the agent."
        )
    own = [each for each in found.findings if each.action not in RELAYING]  # another agent's relay is no reason
    if obstacles := [each for each in own if each.cause is Cause.TAMPER or each.field.startswith("networks.")]:
        raise RefusedError(
            "not-serving",
            f"The stack {project} can't take an agent now, because it differs from what clawker-fw made.",
            context=[f"{each.sibling}: {each.layer} {each.field} ({each.cause})" for each in obstacles],
            hint="`clawker-fw drift` shows what differs, `clawker-fw run` repairs it. Then start the agent.",
        )
