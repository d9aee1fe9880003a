"""Steps in words: one line each, the same in plans, progress, JSON and the tests' goldens."""

from typing import assert_never

from clawker_fw.reconcile.steps import (
    AwaitTtl,
    Claim,
    Commit,
    Create,
    CreateNetwork,
    Detach,
    Drain,
    ProvideImage,
    Release,
    RemoveNetwork,
    Rename,
    Retire,
    Start,
    Step,
    Unpause,
    Verify,
)

_TAKE = "take the service address"


def describe(step: Step) -> str:  # noqa: C901, PLR0911, PLR0912 - one case a step
    """Return what a step does."""
    match step:
        case ProvideImage():
            return f"{'load' if step.bundled else 'pull'} image {step.reference}"
        case CreateNetwork():
            return f"create network {step.spec.name} ({step.spec.subnet})"
        case RemoveNetwork():
            return f"remove network {step.name}"
        case Detach():
            return f"take {step.container} off {step.name}"
        case Create():
            return f"create and start {step.spec.name}"
        case Verify():
            return f"verify {step.container} serves version {step.version}"
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
        case Retire():
            return f"stop and remove {step.name}"
        case Start():
            return f"start {step.sibling}"
        case Unpause():
            return f"unpause {step.sibling}"
        case Rename():
            return f"name {step.sibling} {step.name}"
        case _:
            assert_never(step)
