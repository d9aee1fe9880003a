"""The values between plan and apply: steps, as frozen dataclasses, and plans made of them.

A step says what is to be done and, where it closes findings, which; how it is done stands in `apply.py`.
"""

from dataclasses import dataclass, field

from clawker_fw.model import ContainerSpec, Files, Finding, NetworkSpec, Sibling


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
class Detach:
    """Take an agent off a network; it loses every way out."""

    network: str
    name: str
    container: str


@dataclass(frozen=True, slots=True)
class Create:
    """Make a sibling's container with its files, and start it."""

    sibling: Sibling
    spec: ContainerSpec
    causes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Verify:
    """Wait until a new container answers with exactly the version it was given."""

    sibling: Sibling
    container: str
    resources: tuple[str, ...]
    version: str
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
class Retire:
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
class Rename:
    """Give the container that serves its proper name."""

    sibling: Sibling
    container: str
    name: str


Step = (
    ProvideImage
    | CreateNetwork
    | RemoveNetwork
    | Detach
    | Create
    | Verify
    | Commit
    | Claim
    | Release
    | AwaitTtl
    | Drain
    | Retire
    | Start
    | Unpause
    | Rename
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages one after the other; the steps of a stage side by side.

    `rollback` undoes everything as long as no stage from `point_of_no_return` on has begun: until then no agent
    has noticed anything.
    """

    stages: tuple[tuple[Step, ...], ...]
    rollback: tuple[Step, ...]
    point_of_no_return: int

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.stages

    @property
    def replaced(self) -> tuple[Sibling, ...]:
        """The siblings that get a new container."""
        return tuple(step.sibling for stage in self.stages for step in stage if isinstance(step, Create))


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for beside being current."""

    drain_seconds: float
    replace_all: bool = False
    replace_uncommitted: bool = False
    """Replace what a commit should have closed: the process did not take it."""
