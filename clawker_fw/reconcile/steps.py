"""The values between plan and apply: steps, as frozen dataclasses, and plans made of them.

A step says what is to be done and, where it closes findings, which; how it is done stands in `apply.py`. In words
a step is one line, the same in plans, progress, JSON and the goldens of the tests.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from clawker_fw.model import (
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
    """Load or pull the image a sibling is made from."""

    sibling: Sibling
    reference: str
    bundled: bool


@dataclass(frozen=True, slots=True)
class CreateNetwork:
    """Make a network."""

    spec: NetworkSpec


@dataclass(frozen=True, slots=True)
class RemoveNetwork:
    """Remove a network that no agent is on."""

    network: str
    name: str


@dataclass(frozen=True, slots=True)
class RemoveImage:
    """Remove an image of an earlier release that no container is made from."""

    reference: str


@dataclass(frozen=True, slots=True)
class RemoveVolume:
    """Remove a volume that has lost its container."""

    volume: str


@dataclass(frozen=True, slots=True)
class Detach:
    """Take a container that is not ours off a network; it loses every way out."""

    network: str
    name: str
    container: str
    causes: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Create:
    """Make a sibling's container with its files, and start it."""

    sibling: Sibling
    spec: ContainerSpec
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Verify:
    """Wait until a new container says that exactly what it was given is live, by the digest of each resource."""

    sibling: Sibling
    container: str
    live: Mapping[str, str]
    seconds: float


@dataclass(frozen=True, slots=True)
class Commit:
    """Stage hot files and have them taken live, proven, or put back."""

    sibling: Sibling
    container: str
    files: Files = field(repr=False)
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """Take the service address, and announce it for so long; holding it already is no obstacle."""

    container: str
    seconds: float
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """Let the service address go, answering whoever still has it here."""

    container: str


@dataclass(frozen=True, slots=True)
class AwaitTtl:
    """Wait until no agent can still hold an answer with the old address."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop listening and wait for open connections."""

    container: str
    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Remove:
    """Stop and remove a container with its volume."""

    container: str
    name: str
    causes: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Start:
    """Start a container that is as it should be, but does not run."""

    sibling: Sibling
    container: str
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Unpause:
    """Let a paused container go on."""

    sibling: Sibling
    container: str
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Reattach:
    """Put a container back on networks that it was taken off, at its addresses there, and have it begin anew.

    What it made of the network when it started was lost with it.
    """

    sibling: Sibling
    container: str
    networks: tuple[tuple[str, str], ...]
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Rename:
    """Give the container that serves its proper name."""

    sibling: Sibling
    container: str
    name: str


Step = (
    ProvideImage
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
    | Unpause
    | Reattach
    | Rename
)


@dataclass(frozen=True, slots=True)
class InTurn:
    """Steps one after the other, beside the others of their stage."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages one after the other; the steps of a stage side by side, but for those that are `InTurn`.

    `rollback` takes away what was made, as long as no stage from `point_of_no_return` on has begun: until then no
    agent has noticed anything. Its containers are the names that the new ones get.
    """

    stages: tuple[tuple[Step | InTurn, ...], ...]
    rollback: tuple[Remove, ...]
    point_of_no_return: int

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.stages

    @property
    def steps(self) -> Iterator[Step]:
        """All steps, in an order in which they could be performed."""
        for stage in self.stages:
            for each in stage:
                yield from each.steps if isinstance(each, InTurn) else (each,)

    @property
    def undoable(self) -> range:
        """The stages whose failure is undone. Until one makes a container, what has its name is a leftover."""
        makes = (at for at, stage in enumerate(self.stages) if any(isinstance(step, Create) for step in stage))
        return range(next(makes, self.point_of_no_return), self.point_of_no_return)

    @property
    def replaced(self) -> tuple[Sibling, ...]:
        """The siblings that get a new container."""
        return tuple(step.sibling for step in self.steps if isinstance(step, Create))


@dataclass(frozen=True, slots=True)
class ConvergeOptions:
    """What the user asked for beside being current."""

    drain_seconds: float
    replace_all: bool = False
    replace_uncommitted: bool = False
    """Replace what a commit should have closed: the process did not take it."""
    causes: frozenset[Cause] = frozenset(Cause)
    """Close only what differs for these causes; what is made or committed for them is made as it should be now."""
    actions: frozenset[Action] = frozenset(Action)
    """Close only what these actions close, and nothing of a sibling that somebody has changed otherwise, too."""
    adopt: bool = False
    """Take over a stack that was made from another settings file."""

    @property
    def everything(self) -> bool:
        """Whether all is to be put in order, whatever made it differ."""
        return (self.causes, self.actions) == (frozenset(Cause), frozenset(Action))

    def within(self, found: Diff) -> Diff:
        """Return the part of a difference that is to be closed."""
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
    """Return what a step does, or some do in turn."""
    match step:
        case InTurn():
            return ", then ".join(describe(each) for each in step.steps)
        case ProvideImage():
            return f"{'load' if step.bundled else 'pull'} image {step.reference}"
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
        case Unpause():
            return f"unpause {step.sibling}"
        case Reattach():
            return f"put {step.sibling} back on {' and '.join(name for name, _ in step.networks)}"
        case Rename():
            return f"name {step.sibling} {step.name}"
        case _:
            assert_never(step)
