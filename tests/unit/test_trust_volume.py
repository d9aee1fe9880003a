"""The volume with CA certificates for agents: filling, conflicts and removal."""

from collections.abc import Mapping
from types import SimpleNamespace

import pytest

from clawker_fw.agents.trusted_roots import Trust
from clawker_fw.certificates import authority
from clawker_fw.errors import RefusedError
from clawker_fw.model.containers import ContainerSpec, Mount, Shape
from clawker_fw.model.observed import Observed
from clawker_fw.reconcile import one_shot, trust_volume
from clawker_fw.reconcile.lock import holder
from clawker_fw.reconcile.observe import observe
from clawker_fw.reconcile.trust_volume import trust_for
from clawker_fw.stack import labels
from clawker_fw.stack.container import VOLUME
from clawker_fw.stack.files import public
from devkit.memory.engine import MemoryEngine

pytestmark = pytest.mark.usefixtures("up")

ROOT, OWN = (authority.mint_root(name, 1_800_000_000.0).certificate for name in ("clawker", "company"))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(one_shot, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock.now))
    return clock


def observed(memory: MemoryEngine) -> Observed:
    return observe(memory, "clawker")


def provided(memory: MemoryEngine) -> Trust:
    """Have the engine store the roots for agents of this stack."""
    trust = trust_for("clawker", ROOT, OWN)
    trust_volume.create_trust_volume(memory, "clawker", observed(memory), trust)
    return trust


def container(
    memory: MemoryEngine, name: str, made: Mapping[str, str], *mounts: Mount, environment: tuple[str, ...] = ()
) -> str:
    whole = Shape(("x",), (), {}, mounts=mounts, environment=environment)
    return memory.create_container(ContainerSpec(name, memory.inside("clawker-envoy").image, made, whole))


def filling(memory: MemoryEngine, trust: Trust, **changed: str) -> str:
    """Create a container that fills the volume, as a concurrent run does."""
    made = {**labels.ownership_labels("clawker"), **holder(), **changed}
    return container(memory, trust.volume, made, Mount("volume", VOLUME))


def test_what_somebody_has_changed_is_put_back(memory: MemoryEngine) -> None:
    """The volume's content is checked before each agent gets it, and restored if changed."""
    trust = provided(memory)
    memory.named_files[trust.volume]["roots.pem"] = public(b"")
    assert provided(memory).files == memory.named_files[trust.volume]


def test_a_run_that_was_killed_is_in_nobody_s_way(memory: MemoryEngine, clock: SimpleNamespace) -> None:
    """Leftovers of a killed run are removed: at once if it was local, otherwise after the longest filling time."""
    trust = trust_for("clawker", ROOT, OWN)
    for place, seconds in ({}, 1), ({labels.LOCK_HOST: "far away"}, 20):
        began = clock.now
        filling(memory, trust, **place)
        assert provided(memory) == trust
        assert memory.container(trust.volume) is None
        assert seconds <= clock.now - began + 1 < seconds + 2


def test_a_container_of_somebody_else_is_left_alone(memory: MemoryEngine) -> None:
    """A foreign container with our name stays."""
    name = trust_for("clawker", ROOT, OWN).volume
    container(memory, name, {})
    with pytest.raises(RefusedError, match="did not create it"):
        provided(memory)
    assert memory.container(name)
