"""The values between plan and apply: steps, as frozen dataclasses, and plans made of them.

A step says what to do and which findings it closes; `apply.py` knows how. `describe` gives the one line for a step
that plans, progress, JSON and golden files share.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from clawker_fw.model import (
    CLOSING,
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


@dataclass(frozen=True, slots=True)
class ProvideImage:
    """Load or pull a sibling's image."""

    sibling: Sibling
    reference: str
    bundled: bool


@dataclass(frozen=True, slots=True)
class Examine:
    """Require what the siblings need of the kernel, which a container asks for that is removed at once."""

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
    """Remove a volume that has lost its container."""

    volume: str


@dataclass(frozen=True, slots=True)
class Detach:
    """Disconnect a container that is not ours from a network. It loses all egress."""

    network: str
    name: str
    container: str
    causes: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Create:
    """Create a sibling's container with its files, and start it."""

    sibling: Sibling
    spec: ContainerSpec
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Verify:
    """Wait until a new container reports the expected digest of each resource as live.

    `later` are those that are expected instead once rules have ended, which may happen meanwhile. `eye` is the
    CoreDNS that has to see what agents should of the new container, and `place` where it looks.
    """

    sibling: Sibling
    container: str
    live: Mapping[str, str]
    seconds: float
    later: Sequence[Mapping[str, str]] = ()
    eye: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Commit:
    """Stage hot files and commit them: they are proven live, or the old ones are restored."""

    sibling: Sibling
    container: str
    files: Files = field(repr=False)
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """Take the service address, and announce it for `seconds`. Works also if the container already holds it."""

    container: str
    seconds: float
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """Release the service address, while still answering agents that have the old hardware address."""

    container: str


@dataclass(frozen=True, slots=True)
class AwaitTtl:
    """Wait until no agent can still have a DNS answer with the old address."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop listening and wait for open connections."""

    container: str
    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Remove:
    """Stop and remove a container with its volume. `heir` is the one that keeps its last refusals, if any."""

    container: str
    name: str
    causes: tuple[Finding, ...] = ()
    heir: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """Start a container that matches its specification but is not running."""

    sibling: Sibling
    container: str
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a container that keeps its files, until another one has been proven in its place."""

    sibling: Sibling
    container: str
    name: str


@dataclass(frozen=True, slots=True)
class Unpause:
    """Unpause a container."""

    sibling: Sibling
    container: str
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Reattach:
    """Reconnect a container to networks that it was taken off, at its addresses, and restart it.

    The restart is needed because its network configuration, made at start, was lost.
    """

    sibling: Sibling
    container: str
    networks: tuple[tuple[str, str], ...]
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Rename:
    """Rename a container, usually the serving one to its proper name."""

    sibling: Sibling
    container: str
    name: str


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
    | Claim
    | Release
    | AwaitTtl
    | Drain
    | Remove
    | Start
    | Stop
    | Unpause
    | Reattach
    | Rename
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
            if each.action not in self.actions and each.cause is Cause.TAMPER
        }
        return replace(
            found,
            findings=tuple(
                each
                for each in found.findings
                if each.cause in self.causes and each.action in self.actions and each.sibling not in beyond
            ),
        )


_TAKE = "take the service address"


def describe(step: Step | InTurn) -> str:  # noqa: C901, PLR0911, PLR0912 - one case a step
    """Return one line that says what a step, or a sequence of steps, does."""
    match step:
        case InTurn():
            return ", then ".join(describe(each) for each in step.steps)
        case ProvideImage():
            return f"{'load' if step.bundled else 'pull'} image {step.reference}"
        case Examine():
            return "ask the engine's kernel for what the siblings need"
        case CreateNetwork():
            return f"create network {step.spec.name} ({step.spec.subnet})"
        case RemoveNetwork():
            return f"remove network {step.name}"
        case RemoveImage():
            return f"remove image {step.reference}"
        case RemoveVolume():
            return f"remove volume {step.volume[:12]}"
        case Detach():
            return f"take {step.container} off {step.name}"
        case Create():
            return f"create and start {step.spec.name}"
        case Verify():
            return f"verify {step.container} serves version {version_of(step.live)}"
        case Commit():
            return f"commit hot files to {step.sibling}"
        case Claim():
            return f"announce the service address for {step.seconds:g} s" if step.seconds else _TAKE
        case Release():
            return "release the service address"
        case AwaitTtl():
            return f"wait {step.seconds:g} s for the TTL of the old address"
        case Drain():
            return f"drain {step.name} for up to {step.seconds:g} s"
        case Remove():
            return f"stop and remove {step.name}"
        case Start():
            return f"start {step.sibling}"
        case Stop():
            return f"stop {step.name}"
        case Unpause():
            return f"unpause {step.sibling}"
        case Reattach():
            return f"put {step.sibling} back on {' and '.join(name for name, _ in step.networks)}"
        case Rename():
            return f"name {step.sibling} {step.name}"
        case _:
            assert_never(step)
