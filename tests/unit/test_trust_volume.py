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
from clawker_fw.stack.release import Release
from devkit import stacks
from devkit.memory.engine import MemoryEngine

ROOT, OWN = (authority.mint_root(name, 1_800_000_000.0).certificate for name in ("clawker", "company"))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(one_shot, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def engine(memory: MemoryEngine, release: Release) -> MemoryEngine:
    stacks.converged(memory, stacks.blueprint(memory.facts(), "a.test", release=release))
    return memory


def observed(engine: MemoryEngine) -> Observed:
    return observe(engine, "clawker")


def provided(engine: MemoryEngine) -> Trust:
    """Have the engine store the roots for agents of this stack."""
    trust = trust_for("clawker", ROOT, OWN)
    trust_volume.create_trust_volume(engine, "clawker", observed(engine), trust)
    return trust


def container(
    engine: MemoryEngine, name: str, made: Mapping[str, str], *mounts: Mount, environment: tuple[str, ...] = ()
) -> str:
    whole = Shape(("x",), (), {}, mounts=mounts, environment=environment)
    return engine.create_container(ContainerSpec(name, engine.inside("clawker-envoy").image, made, whole))


def filling(engine: MemoryEngine, trust: Trust, **changed: str) -> str:
    """Create a container that fills the volume, as a concurrent run does."""
    made = {**labels.ownership_labels("clawker"), **holder(), **changed}
    return container(engine, trust.volume, made, Mount("volume", VOLUME))


def test_what_somebody_has_changed_is_put_back(engine: MemoryEngine) -> None:
    """The volume's content is checked before each agent gets it, and restored if changed."""
    trust = provided(engine)
    engine.named_files[trust.volume]["roots.pem"] = public(b"")
    assert provided(engine).files == engine.named_files[trust.volume]


def test_a_run_that_was_killed_is_in_nobody_s_way(engine: MemoryEngine, clock: SimpleNamespace) -> None:
    """Leftovers of a killed run are removed: at once if it was local, otherwise after the longest filling time."""
    trust = trust_for("clawker", ROOT, OWN)
    for place, seconds in ({}, 1), ({labels.LOCK_HOST: "far away"}, 20):
        began = clock.now
        filling(engine, trust, **place)
        assert provided(engine) == trust
        assert engine.container(trust.volume) is None
        assert seconds <= clock.now - began + 1 < seconds + 2


def test_a_container_of_somebody_else_is_left_alone(engine: MemoryEngine) -> None:
    """A foreign container with our name stays."""
    name = trust_for("clawker", ROOT, OWN).volume
    container(engine, name, {})
    with pytest.raises(RefusedError, match="did not create it"):
        provided(engine)
    assert engine.container(name)
