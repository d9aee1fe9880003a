"""`fwctl` in a container works alike in memory and on a real engine."""

import gc
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError
from clawker_fw.fwctl import Helper, HelperReader
from clawker_fw.model.desired import Desired
from clawker_fw.model.files import File, Files
from clawker_fw.model.probes import Probe
from clawker_fw.model.stacks import Sibling, Slots
from clawker_fw.reconcile.desired_state import Blueprint, addressing, desired_state
from clawker_fw.reconcile.observe import observe
from clawker_fw.stack.envoy.sibling import LISTENERS
from clawker_fw.stack.files import public
from clawker_fw.stack.name_list import POLICY
from clawker_fw.stack.release import Release
from clawker_fw.stack.resources import declared, live_digests, plain
from devkit import stacks
from devkit.waiting import until
from tests.contract.conftest import commit, created

BROKEN = {
    Sibling.ENVOY: (LISTENERS, b'{"resources":[{"@type":"nonsense"}],"version_info":"0"}'),
    Sibling.COREDNS: (POLICY, b"this is no list\n"),
}


def _hot(files: Files, folder: str = "") -> dict[str, File]:
    """Return the hot files, or the copies in a folder, without the version of their commit."""
    return {
        path.removeprefix(folder): file.saying(plain(file.content))
        for path, file in files.items()
        if path.startswith(f"{folder}hot/")
    }


def test_hot_files_are_committed_live(
    engine: EngineWriter, running: dict[Sibling, str], stack: Desired, wanted: Blueprint, release: Release
) -> None:
    """New files are applied and verified, and the record is updated; unlisted files below `hot/` are removed."""
    changed = stacks.blueprint(
        wanted.engine, "b.test", {"dst": "c.test", "port": 8443}, project=stack.project, release=release
    )
    for blueprint in (changed, wanted):
        seen = observe(engine, stack.project)
        should = desired_state(blueprint, addressing(blueprint, seen), seen.machine, Slots())
        for sibling, container in running.items():
            target = should.siblings[sibling]
            engine.put_files(container, {"hot/foreign.json": public(b"{}")})
            assert commit(engine, container, target)["committed"] is True
            files = engine.files(container)
            assert _hot(files) == target.hot
            assert json.loads(files["state/committed.json"].content)["live"] == target.live
            assert _hot(files, "good/") == target.hot
            assert HelperReader(engine, container).probe().live == target.live


@pytest.mark.parametrize("sibling", list(Sibling))
def test_a_file_that_is_refused_is_put_back(
    sibling: Sibling, engine: EngineWriter, running: dict[Sibling, str], stack: Desired
) -> None:
    """The old files stay in use on disk and in the process, and the answer has the rejected ones and why."""
    container, target = running[sibling], stack.siblings[sibling]
    path, content = BROKEN[sibling]
    hot = {**target.hot, path: public(content)}
    broken = replace(target, hot=hot, live=live_digests(declared(target.boot), hot))
    answer = commit(engine, container, broken)
    assert answer["committed"] is False
    assert answer["rejected"] or answer["missing"]
    assert answer["reason"]
    files = engine.files(container)
    assert _hot(files)[path] == target.hot[path]
    assert json.loads(files["state/committed.json"].content)["live"] == target.live
    probe = until(lambda: _live(engine, container, target.live))
    assert not probe.error


def _live(engine: EngineWriter, container: str, wanted: Mapping[str, str]) -> Probe | None:
    probe = HelperReader(engine, container).probe()
    return probe if probe.live == wanted else None


def test_a_helper_leaves_no_connection_behind(engine: EngineWriter, running: dict[Sibling, str]) -> None:
    """No call leaves a connection open, without garbage collection; a drain ends once no connection is left."""
    connections: list[int] = []
    Helper(engine, running[Sibling.ENVOY]).drain(30, connections.append)
    assert connections[-1] == 0

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    container = running[Sibling.COREDNS]
    HelperReader(engine, container).probe()
    gc.collect()
    gc.disable()
    try:
        before = open_files()
        for _ in range(10):
            HelperReader(engine, container).probe()
        assert open_files() <= before
    finally:
        gc.enable()


def test_a_helper_needs_a_running_container(engine: EngineWriter, stack: Desired) -> None:
    """A probe of a stopped container is an error."""
    container = created(engine, stack, Sibling.ENVOY)
    with pytest.raises(EngineError):
        HelperReader(engine, container).probe()
    with pytest.raises(EngineError):
        Helper(engine, container).drain(0, lambda _: None)
    engine.remove(container)
