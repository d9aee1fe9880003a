"""The values between plan and apply: steps, as frozen dataclasses, and plans made of them.

Each kind of step is one class, with its description in plans, progress and JSON. `apply.py` has one method for it.
What may also be done for the sake of another step has as its `causes` the findings that it closes itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from clawker_fw.model import (
    CLOSING,
    RELAYING,
    Action,
    Cause,
    ContainerSpec,
    Diff,
    Files,
    Finding,
    NetworkSpec,
    Sibling,
    version_of,
)


class Description(NamedTuple):
    """The description of a step: its kind and its fields in JSON, and one line for people."""

    kind: str
    sentence: str
    fields: Mapping[str, object]


class Step:
    """A step of a plan."""

    __slots__ = ()

    @property
    def description(self) -> Description:
        """Its description. Steps of one kind always have the same fields."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class SiblingStep(Step):
    """A step that changes one sibling."""

    sibling: Sibling


@dataclass(frozen=True, slots=True)
class ProvideImage(SiblingStep):
    """Load or pull a sibling's image."""

    reference: str
    bundled: bool

    @property
    def description(self) -> Description:
        verb = "load" if self.bundled else "pull"
        return Description(
            f"{verb}-image", f"{verb} image {self.reference}", {"sibling": self.sibling, "image": self.reference}
        )


@dataclass(frozen=True, slots=True)
class Examine(Step):
    """Require what the siblings need of the kernel, which a container asks for that is removed at once."""

    project: str
    spec: ContainerSpec

    @property
    def description(self) -> Description:
        return Description(
            "examine",
            "check that the Docker host's kernel has what the firewall needs",
            {"container": self.spec.name},
        )


@dataclass(frozen=True, slots=True)
class CreateNetwork(Step):
    """Create a network."""

    spec: NetworkSpec

    @property
    def description(self) -> Description:
        return Description(
            "create-network",
            f"create network {self.spec.name} ({self.spec.subnet})",
            {"network": self.spec.name, "subnet": str(self.spec.subnet)},
        )


@dataclass(frozen=True, slots=True)
class RemoveNetwork(Step):
    """Remove a network that no agent is on."""

    network: str
    name: str

    @property
    def description(self) -> Description:
        return Description("remove-network", f"remove network {self.name}", {"network": self.name})


@dataclass(frozen=True, slots=True)
class RemoveImage(Step):
    """Remove an unused image of an earlier release."""

    reference: str

    @property
    def description(self) -> Description:
        return Description("remove-image", f"remove image {self.reference}", {"image": self.reference})


@dataclass(frozen=True, slots=True)
class RemoveVolume(Step):
    """Remove a volume that no container uses."""

    volume: str

    @property
    def description(self) -> Description:
        generated = "-" not in self.volume
        shown = self.volume[:12] if generated else self.volume
        return Description("remove-volume", f"remove volume {shown}", {"volume": self.volume})


@dataclass(frozen=True, slots=True)
class Detach(Step):
    """Disconnect a container that is not ours from a network. It loses all egress."""

    network: str
    name: str
    container: str

    @property
    def description(self) -> Description:
        return Description(
            "detach", f"take {self.container} off {self.name}", {"container": self.container, "network": self.name}
        )


@dataclass(frozen=True, slots=True)
class Create(SiblingStep):
    """Create a sibling's container with its files, and start it."""

    spec: ContainerSpec
    causes: tuple[Finding, ...]

    @property
    def description(self) -> Description:
        return Description(
            "create", f"create and start {self.spec.name}", {"sibling": self.sibling, "container": self.spec.name}
        )


@dataclass(frozen=True, slots=True)
class Verify(SiblingStep):
    """Wait until a new container reports the expected digest of each resource as live.

    `later` are those that are expected instead once rules have ended, which may happen meanwhile. `eye` is the
    CoreDNS that has to see what agents should of the new container, and `place` where it looks.
    """

    container: str
    live: Mapping[str, str]
    seconds: float
    later: Sequence[Mapping[str, str]] = ()
    eye: str = ""
    place: str = ""

    @property
    def description(self) -> Description:
        return Description(
            "verify",
            f"verify {self.container} serves version {version_of(self.live)}",
            {
                "sibling": self.sibling,
                "container": self.container,
                "live": {name: f"sha256:{digest}" for name, digest in self.live.items()},
            },
        )


@dataclass(frozen=True, slots=True)
class Commit(SiblingStep):
    """Stage hot files and commit them: they are proven live, or the old ones are restored."""

    container: str
    files: Files = field(repr=False)
    causes: tuple[Finding, ...]

    @property
    def description(self) -> Description:
        return Description("commit", f"load changed files into {self.sibling}", {"sibling": self.sibling})


@dataclass(frozen=True, slots=True)
class GiveSecrets(SiblingStep):
    """Give Envoy the secrets that it puts into requests, and take all others away. No value is part of a plan."""

    sibling: Sibling = field(default=Sibling.ENVOY, init=False)
    container: str
    secrets: tuple[str, ...]
    causes: tuple[Finding, ...]

    @property
    def description(self) -> Description:
        some = f"send secrets to {self.sibling}: {', '.join(self.secrets)}"
        what = some if self.secrets else f"remove all secrets from {self.sibling}"
        return Description("give", what, {"sibling": self.sibling, "secrets": [*self.secrets]})


@dataclass(frozen=True, slots=True)
class ClaimAddress(SiblingStep):
    """Take the service address, and announce it for `seconds`. Works also if the container already holds it."""

    sibling: Sibling = field(default=Sibling.COREDNS, init=False)
    container: str
    seconds: float
    causes: tuple[Finding, ...]

    @property
    def description(self) -> Description:
        announcing = f"announce the service address for {self.seconds:g} s"
        return Description(
            "claim",
            announcing if self.seconds else "take the service address",
            {"sibling": self.sibling, "seconds": self.seconds},
        )


@dataclass(frozen=True, slots=True)
class ReleaseAddress(SiblingStep):
    """Release the service address, while still answering agents that have the old hardware address."""

    sibling: Sibling = field(default=Sibling.COREDNS, init=False)
    container: str

    @property
    def description(self) -> Description:
        return Description("release", "release the service address", {"sibling": self.sibling})


@dataclass(frozen=True, slots=True)
class AwaitTtl(Step):
    """Wait until no agent can still have a DNS answer with the old address."""

    seconds: float

    @property
    def description(self) -> Description:
        return Description(
            "wait", f"wait {self.seconds:g} s for the TTL of the old address", {"seconds": self.seconds}
        )


@dataclass(frozen=True, slots=True)
class Drain(Step):
    """Stop listening and wait for open connections."""

    container: str
    name: str
    seconds: float

    @property
    def description(self) -> Description:
        return Description(
            "drain",
            f"drain {self.name} for up to {self.seconds:g} s",
            {"container": self.name, "seconds": self.seconds},
        )


@dataclass(frozen=True, slots=True)
class Remove(Step):
    """Stop and remove a container with its volume. `heir` is the one that keeps its last refusals, if any."""

    container: str
    name: str
    heir: str = ""

    @property
    def description(self) -> Description:
        return Description("remove", f"stop and remove {self.name}", {"container": self.name})


@dataclass(frozen=True, slots=True)
class Start(SiblingStep):
    """Start a container that matches its specification but is not running."""

    container: str

    @property
    def description(self) -> Description:
        return Description("start", f"start {self.sibling}", {"sibling": self.sibling})


@dataclass(frozen=True, slots=True)
class Stop(SiblingStep):
    """Stop a container that keeps its files, until another one has been proven in its place."""

    container: str
    name: str

    @property
    def description(self) -> Description:
        return Description("stop", f"stop {self.name}", {"sibling": self.sibling})


@dataclass(frozen=True, slots=True)
class Unpause(SiblingStep):
    """Unpause a container."""

    container: str

    @property
    def description(self) -> Description:
        return Description("unpause", f"unpause {self.sibling}", {"sibling": self.sibling})


@dataclass(frozen=True, slots=True)
class Reattach(SiblingStep):
    """Reconnect a container to networks that it was taken off, at its addresses, and restart it.

    The restart is needed because its network configuration, made at start, was lost.
    """

    container: str
    networks: tuple[tuple[str, str], ...]

    @property
    def description(self) -> Description:
        return Description(
            "reattach",
            f"put {self.sibling} back on {' and '.join(name for name, _ in self.networks)}",
            {"sibling": self.sibling, "networks": [name for name, _ in self.networks]},
        )


@dataclass(frozen=True, slots=True)
class Rename(SiblingStep):
    """Rename a container, usually the serving one to its proper name."""

    container: str
    name: str

    @property
    def description(self) -> Description:
        return Description(
            "rename", f"name {self.sibling} {self.name}", {"sibling": self.sibling, "container": self.name}
        )


@dataclass(frozen=True, slots=True)
class Publish(Step):
    """Create and start the relay of an agent that publishes ports, and wait until it listens."""

    spec: ContainerSpec

    @property
    def description(self) -> Description:
        ports = [each.removesuffix("/tcp") for each in self.spec.shape.ports]
        return Description(
            "publish",
            f"publish {', '.join(ports)} with {self.spec.name}",
            {"container": self.spec.name, "ports": ports},
        )


Undo = Remove | RemoveNetwork | CreateNetwork | Reattach
"""A step of a rollback. Only what was done is undone."""


@dataclass(frozen=True, slots=True)
class InTurn:
    """Steps performed in sequence, in parallel to the other steps of their stage.

    A commit lets the next step begin when its program serves with the new files, and is proven meanwhile.
    """

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages performed in sequence. The steps of a stage run in parallel, except those in an `InTurn`.

    `rollback` removes the created containers, identified by name, and puts back the networks and siblings that had
    to make room. It applies until the stage `point_of_no_return` begins. `before` are the containers that serve
    until then.
    """

    stages: tuple[tuple[Step | InTurn, ...], ...]
    rollback: tuple[Undo, ...]
    point_of_no_return: int
    before: tuple[tuple[Sibling, str], ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.stages

    @property
    def steps(self) -> Iterator[Step]:
        """All steps, in a valid order."""
        for stage in self.stages:
            for each in stage:
                yield from each.steps if isinstance(each, InTurn) else (each,)

    @property
    def undoable(self) -> range:
        """The stages whose failure is rolled back, from the first that creates a container or makes room for one.

        Before that, a container with a new one's name is a leftover and not ours to roll back.
        """
        kinds = (Create, Stop, RemoveNetwork)
        makes = (at for at, stage in enumerate(self.stages) if any(isinstance(step, kinds) for step in stage))
        return range(next(makes, self.point_of_no_return), self.point_of_no_return)

    @property
    def replaced(self) -> tuple[Sibling, ...]:
        """The siblings that get a new container."""
        return tuple(step.sibling for step in self.steps if isinstance(step, Create))


@dataclass(frozen=True, slots=True)
class ConvergeOptions:
    """The user's options for a convergence."""

    drain_seconds: float
    replace_all: bool = False
    replace_uncommitted: bool = False
    """Replace a sibling whose difference should have been closed by a commit, but was not."""
    causes: frozenset[Cause] = frozenset(Cause)
    """Close only findings with these causes. Created and committed files always follow the current settings."""
    actions: frozenset[Action] = frozenset(Action)
    """Close only findings with these actions, and none of a sibling that was also tampered with in other ways."""
    adopt: bool = False
    """Take over a stack that was made from another settings file."""
    secrets_needed: bool = False
    """Change nothing unless every secret can be obtained."""
    unused_images: bool = True
    """Remove our images that no container uses."""

    @property
    def everything(self) -> bool:
        """Whether all findings are to be closed, whatever their cause and action."""
        return self.causes == frozenset(Cause) and self.actions >= CLOSING

    def within(self, found: Diff) -> Diff:
        """Return the part of a difference that these options select."""
        beyond = {
            each.sibling
            for each in found.findings
            if each.action not in {*self.actions, *RELAYING} and each.cause is Cause.TAMPER
        }
        return replace(
            found,
            findings=tuple(
                each
                for each in found.findings
                if each.cause in self.causes and each.action in self.actions and each.sibling not in beyond
            ),
        )


def describe(step: Step | InTurn) -> str:
    """Return one line that says what a step, or a sequence of steps, does."""
    return ", then ".join(map(describe, step.steps)) if isinstance(step, InTurn) else step.description.sentence
