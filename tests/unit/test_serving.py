"""When a stack may be given an agent."""

from dataclasses import replace

import pytest

from clawker_fw.agents.serving import require_serving
from clawker_fw.errors import RefusedError
from clawker_fw.model import Cause
from clawker_fw.reconcile.pipeline import Comparison, compare
from clawker_fw.stack.release import Release
from devkit.memory.engine import MemoryEngine
from devkit.stacks import blueprint, converged
from tests.unit.test_drift import MATRIX, Tamper


def judged(seen: Comparison) -> str:
    """Return the code of the error, or an empty string."""
    try:
        require_serving("clawker", seen.observed, seen.diff)
    except RefusedError as error:
        return error.code
    return ""


@pytest.mark.parametrize(("tamper", "finding"), MATRIX, ids=[" ".join(finding[:3]) for _, finding in MATRIX])
def test_a_stack_that_was_changed_by_hand_takes_nobody(
    tamper: Tamper, finding: tuple[str, ...], memory: MemoryEngine, release: Release
) -> None:
    """Whatever was done by hand is repaired first; what settings or an upgrade have changed is not in the way."""
    wanted = blueprint(memory.facts(), "a.test", release=release)
    converged(memory, wanted)
    tamper(memory)
    assert judged(compare(memory, wanted)) == ("not-serving" if finding[3] == "tamper" else "")


def test_a_silent_stack_takes_nobody(memory: MemoryEngine, release: Release) -> None:
    """Unknown is not enough."""
    wanted = blueprint(memory.facts(), "a.test", release=release)
    converged(memory, wanted)
    memory.inside("clawker-envoy").silent = "connection refused"
    assert judged(compare(memory, wanted)) == "not-serving"


def test_other_addresses_are_in_the_way(memory: MemoryEngine, release: Release) -> None:
    """With another subnet in the settings, which is no tampering, the flags would name a future resolver."""
    converged(memory, blueprint(memory.facts(), "a.test", release=release))
    moved = blueprint(memory.facts(), "a.test", network={"subnet": "10.99.0.0/20"}, release=release)
    seen = compare(memory, moved)
    chosen = tuple(each for each in seen.diff.findings if each.cause is Cause.SETTINGS)
    assert judged(replace(seen, diff=replace(seen.diff, findings=chosen))) == "not-serving"
