"""The values between plan and apply: steps, as frozen dataclasses, and plans made of them.

Each step is a class. `described` renders it for plans, progress and JSON, and `apply.py` performs it. A step that
may also serve another step has as `causes` only the findings that it closes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from clawker_fw.model.containers import ContainerSpec
from clawker_fw.model.desired import version_of
from clawker_fw.model.differences import CLOSING, RELAYING, Action, Cause, Diff, Finding
from clawker_fw.model.files import File, Files
from clawker_fw.model.networks import NetworkSpec
from clawker_fw.model.stacks import Sibling


@dataclass(frozen=True, slots=True)
class SiblingStep:
    """A step that changes one sibling."""

    sibling: Sibling


@dataclass(frozen=True, slots=True)
class ContainerStep(SiblingStep):
    """A step that changes one container of a sibling."""

    container: str


@dataclass(frozen=True, slots=True)
class ProvideImage(SiblingStep):
    """Load or pull a sibling's image."""

    reference: str
    bundled: bool


@dataclass(frozen=True, slots=True)
class Examine:
    """Require what the siblings need of the kernel, as a one-shot container reports it."""

    project: str
    spec: ContainerSpec


@dataclass(frozen=True, slots=True)
class CreateNetwork:
    """Create a network."""

    spec: NetworkSpec


@dataclass(frozen=True, slots=True)
class RemoveNetwork:
    """Remove a network that no agent is on."""

    network: str
    name: str


@dataclass(frozen=True, slots=True)
class RemoveImage:
    """Remove an unused image of an earlier release."""

    reference: str


@dataclass(frozen=True, slots=True)
class RemoveVolume:
    """Remove a volume that no container uses."""

    volume: str


@dataclass(frozen=True, slots=True)
class Detach:
    """Disconnect a foreign container from a network. It loses all egress."""

    network: str
    name: str
    container: str


@dataclass(frozen=True, slots=True)
class Create(SiblingStep):
    """Create a sibling's container with its files, and start it."""

    spec: ContainerSpec
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Verify(ContainerStep):
    """Wait until a new container reports the expected digest of each resource as live.

    After an expiry, it may report those in `later` instead. `prober` is the CoreDNS that tests the container
    as agents see it, and `place` where it looks.
    """

    live: Mapping[str, str]
    later: Sequence[Mapping[str, str]] = ()
    prober: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Commit(ContainerStep):
    """Stage dynamic files and commit them. They are verified, or the old ones are restored."""

    files: Files = field(repr=False)
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class GiveSecrets(SiblingStep):
    """Send Envoy the secrets for requests, and remove all others. A plan holds no value."""

    sibling: Sibling = field(default=Sibling.ENVOY, init=False)
    container: str
    secrets: tuple[str, ...]
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class ClaimAddress(SiblingStep):
    """Take the service address, or keep it, and announce it for `seconds`."""

    sibling: Sibling = field(default=Sibling.COREDNS, init=False)
    container: str
    seconds: float
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class ReleaseAddress(SiblingStep):
    """Release the service address, while still answering agents that have the old MAC address."""

    sibling: Sibling = field(default=Sibling.COREDNS, init=False)
    container: str


@dataclass(frozen=True, slots=True)
class AwaitTtl:
    """Wait until no agent can still have a DNS answer with the old address."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop listening, close connections in a pause, and wait for the others.

    `helper` replaces the container's own one if that is of another release, which may not know pauses.
    """

    container: str
    name: str
    seconds: float
    helper: File | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Remove:
    """Stop and remove a container with its volume. `heir` keeps its last refusals, if set."""

    container: str
    name: str
    heir: str = ""


@dataclass(frozen=True, slots=True)
class Start(ContainerStep):
    """Start a container that matches its specification but is not running."""


@dataclass(frozen=True, slots=True)
class Stop(ContainerStep):
    """Stop a container, but keep its files until its replacement is verified."""

    name: str


@dataclass(frozen=True, slots=True)
class Unpause(ContainerStep):
    """Unpause a container."""


@dataclass(frozen=True, slots=True)
class Reattach(ContainerStep):
    """Reconnect a container to its lost networks at its addresses, and restart it to configure them."""

    networks: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Rename(ContainerStep):
    """Rename a container, usually the serving one to its proper name."""

    name: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Create and start an agent's relay, and wait until it listens."""

    spec: ContainerSpec


Step = (
    ProvideImage
    | Examine
    | CreateNetwork
    | RemoveNetwork
    | RemoveImage
    | RemoveVolume
    | Detach
    | Create
    | Verify
    | Commit
    | GiveSecrets
    | ClaimAddress
    | ReleaseAddress
    | AwaitTtl
    | Drain
    | Remove
    | Start
    | Stop
    | Unpause
    | Reattach
    | Rename
    | Publish
)
"""A step of a plan. A `match` over steps ends with `assert_never`, so that mypy finds a missing one."""

Undo = Remove | RemoveNetwork | CreateNetwork | Reattach
"""A step of a rollback, performed only if it undoes something."""


@dataclass(frozen=True, slots=True)
class InTurn:
    """Steps in sequence. After a commit, the next begins once the files are served, before they are verified."""

    steps: tuple[Step, ...]


Stage = tuple[Step | InTurn, ...]
"""Steps performed in parallel, except those in an `InTurn`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages performed in sequence.

    `rollback` removes the created containers, by name, and restores networks and siblings that made room. It
    applies until the stage `point_of_no_return` begins. The containers `before` serve until then.
    """

    stages: tuple[Stage, ...]
    rollback: tuple[Undo, ...] = ()
    point_of_no_return: int = 0
    before: tuple[tuple[Sibling, str], ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.stages

    @property
    def steps(self) -> Iterator[Step]:
        """All steps, in a valid order."""
        for stage in self.stages:
            for step in stage:
                yield from step.steps if isinstance(step, InTurn) else (step,)

    @property
    def undoable(self) -> range:
        """The stages whose failure is rolled back, from the first that creates something or makes room for it.

        Before that, a container with a new one's name is a leftover that the run must not roll back.
        """
        kinds = (Create, CreateNetwork, Stop, RemoveNetwork)
        makes = (at for at, stage in enumerate(self.stages) if any(isinstance(step, kinds) for step in stage))
        return range(next(makes, self.point_of_no_return), self.point_of_no_return)


@dataclass(frozen=True, slots=True)
class ConvergeOptions:
    """The user's options for a convergence."""

    replace_all: bool = False
    replace_uncommitted: bool = False
    """Replace a sibling that a commit should have corrected, but did not."""
    causes: frozenset[Cause] = frozenset(Cause)
    """Close only findings with these causes. Created and committed files always follow the current settings."""
    actions: frozenset[Action] = frozenset(Action)
    """Close only findings with these actions, and none of a sibling with other tampering."""
    adopt: bool = False
    """Take over a stack that was made from another settings file."""
    secrets_needed: bool = False
    """Change nothing unless every secret can be obtained."""
    drain_seconds: float = 0
    """How long connections of a replaced Envoy may stay open, from the settings."""

    @property
    def everything(self) -> bool:
        """Whether to close all findings, whatever their cause and action."""
        return self.causes == frozenset(Cause) and self.actions >= CLOSING

    def within(self, diff: Diff) -> Diff:
        """Return the part of a difference that these options select."""
        beyond = {
            finding.sibling
            for finding in diff.findings
            if finding.action not in {*self.actions, *RELAYING} and finding.cause is Cause.TAMPER
        }
        within = (
            finding for finding in diff.findings if finding.cause in self.causes and finding.action in self.actions
        )
        return replace(diff, findings=tuple(finding for finding in within if finding.sibling not in beyond))


def described(step: Step) -> tuple[str, str, Mapping[str, object]]:
    """Return a step's kind, one line for people, and the JSON fields of its kind."""
    kind, line, fields = _described(step)
    return kind, line, {"sibling": step.sibling, **fields} if isinstance(step, SiblingStep) else fields


def _described(step: Step) -> tuple[str, str, dict[str, object]]:  # noqa: C901, PLR0911, PLR0912 - a table
    match step:
        case ProvideImage():
            verb = "load" if step.bundled else "pull"
            return f"{verb}-image", f"{verb} image {step.reference}", {"image": step.reference}
        case Examine():
            line = "check that the Docker host's kernel has what the firewall needs"
            return "examine", line, {"container": step.spec.name}
        case CreateNetwork():
            name, subnet = step.spec.name, str(step.spec.subnet)
            return "create-network", f"create network {name} ({subnet})", {"network": name, "subnet": subnet}
        case RemoveNetwork():
            return "remove-network", f"remove network {step.name}", {"network": step.name}
        case RemoveImage():
            return "remove-image", f"remove image {step.reference}", {"image": step.reference}
        case RemoveVolume():
            generated = "-" not in step.volume
            shown = step.volume[:12] if generated else step.volume
            return "remove-volume", f"remove volume {shown}", {"volume": step.volume}
        case Detach():
            line = f"take {step.container} off {step.name}"
            return "detach", line, {"container": step.container, "network": step.name}
        case Create():
            return "create", f"create and start {step.spec.name}", {"container": step.spec.name}
        case Verify():
            live = {name: f"sha256:{digest}" for name, digest in step.live.items()}
            line = f"verify {step.container} serves version {version_of(step.live)}"
            return "verify", line, {"container": step.container, "live": live}
        case Commit():
            return "commit", f"load changed files into {step.sibling}", {}
        case GiveSecrets():
            some = f"send secrets to {step.sibling}: {', '.join(step.secrets)}"
            line = some if step.secrets else f"remove all secrets from {step.sibling}"
            return "give", line, {"secrets": [*step.secrets]}
        case ClaimAddress():
            announcing = f"announce the service address for {step.seconds:g} s"
            line = announcing if step.seconds else "take the service address"
            return "claim", line, {"seconds": step.seconds}
        case ReleaseAddress():
            return "release", "release the service address", {}
        case AwaitTtl():
            return "wait", f"wait {step.seconds:g} s for the TTL of the old address", {"seconds": step.seconds}
        case Drain():
            line = f"drain {step.name} for up to {step.seconds:g} s"
            return "drain", line, {"container": step.name, "seconds": step.seconds}
        case Remove():
            return "remove", f"stop and remove {step.name}", {"container": step.name}
        case Start():
            return "start", f"start {step.sibling}", {}
        case Stop():
            return "stop", f"stop {step.name}", {}
        case Unpause():
            return "unpause", f"unpause {step.sibling}", {}
        case Reattach():
            names = [name for name, _ in step.networks]
            return "reattach", f"put {step.sibling} back on {' and '.join(names)}", {"networks": names}
        case Rename():
            return "rename", f"name {step.sibling} {step.name}", {"container": step.name}
        case Publish():
            ports = [port.removesuffix("/tcp") for port in step.spec.shape.ports]
            line = f"publish {', '.join(ports)} with {step.spec.name}"
            return "publish", line, {"container": step.spec.name, "ports": ports}
        case _:
            assert_never(step)


def describe(step: Step | InTurn) -> str:
    """Return one line about a step or a sequence of steps."""
    return ", then ".join(map(describe, step.steps)) if isinstance(step, InTurn) else described(step)[1]
