"""An in-memory engine and a real one, with a stack on each."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from clawker_fw.engine import archive
from clawker_fw.engine.docker import connect
from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError
from clawker_fw.fwctl import HelperReader
from clawker_fw.model.containers import ContainerView
from clawker_fw.model.desired import Desired, DesiredSibling
from clawker_fw.model.probes import Probe
from clawker_fw.model.stacks import Sibling, Slots
from clawker_fw.reconcile.desired_state import Blueprint, addressing, desired_state
from clawker_fw.reconcile.observe import observe
from clawker_fw.reconcile.plan import creation, staged
from clawker_fw.stack import images
from clawker_fw.stack.release import Release
from devkit import stacks
from devkit.memory.engine import MemoryEngine
from devkit.waiting import until


@pytest.fixture(params=["memory", "docker"])
def engine(request: pytest.FixtureRequest) -> Iterator[EngineWriter]:
    if request.param == "memory":
        yield MemoryEngine()
        return
    with closing(connect(request.getfixturevalue("host"), None, {})) as real:
        yield real


@pytest.fixture
def project(engine: EngineWriter, request: pytest.FixtureRequest) -> str:
    """A stack's name. On a real engine, its stack is removed afterwards."""
    return "contract" if isinstance(engine, MemoryEngine) else str(request.getfixturevalue("clean_project"))


@pytest.fixture
def wanted(engine: EngineWriter, project: str, release: Release) -> Blueprint:
    """A stack with one rule of each protocol."""
    rules = ("a.test", {"dst": "h.test", "proto": "http"})
    return stacks.blueprint(engine.facts(), *rules, project=project, release=release)


@pytest.fixture
def stack(engine: EngineWriter, wanted: Blueprint) -> Desired:
    """A stack's images and networks, without containers, and its desired state."""
    for image in (
        *(images.bundled(sibling, wanted.release, wanted.engine) for sibling in Sibling),
        images.lock_image(wanted.engine),
    ):
        if engine.image(image.reference):
            continue
        shares: list[float] = []
        engine.load_image(image.archive(), image.archive_size, shares.append)
        assert shares[-1] == 1.0
    seen = observe(engine, wanted.project)
    should = desired_state(wanted, addressing(wanted, seen), seen.machine, Slots())
    for spec in should.networks.values():
        engine.create_network(spec)
    return should


def created(engine: EngineWriter, stack: Desired, sibling: Sibling) -> str:
    return engine.create_container(creation(stack.siblings[sibling], f"{stack.project}-{sibling}"))


def answering(engine: EngineWriter, container: str) -> Probe:
    """Return a probe once the program reports its loaded files."""

    def probe() -> Probe | None:
        try:
            found = HelperReader(engine, container).probe()
        except EngineError:
            return None
        return found if not found.error and all(found.live.values()) else None

    return until(probe)


@pytest.fixture
def running(engine: EngineWriter, stack: Desired) -> Iterator[dict[Sibling, str]]:
    containers = {sibling: created(engine, stack, sibling) for sibling in Sibling}
    for container in containers.values():
        engine.start(container)
    for container in containers.values():
        answering(engine, container)
    yield containers
    for container in containers.values():
        engine.remove(container)


def view(engine: EngineWriter, name: str) -> ContainerView:
    found = engine.container(name)
    assert found is not None
    return found


def commit(engine: EngineWriter, container: str, wanted: DesiredSibling) -> dict[str, Any]:
    """Apply a container's hot files. Progress is reported before the result."""
    answers: list[dict[str, Any]] = []
    sent = archive.pack(staged(wanted))
    engine.run_helper(container, ["commit-in-place", str(len(sent))], answers.append, 120, sent=sent)
    *before, answer = answers
    assert before == [{"taken": True}] or not (before or answer["committed"])
    return answer
