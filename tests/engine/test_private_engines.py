"""The private engines of all engine tests are separate from the machine and leave nothing behind."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from devkit.engines import PrivateEngine, available, install_engine, private_engine
from devkit.host import client
from devkit.peers import peers
from devkit.waiting import until

REPOSITORY = Path(__file__).resolve().parents[2]
KIND = "installed"
OWNER = f"""
from devkit.engines import private_engine
with private_engine({KIND!r}) as engine:
    print(engine.folder, flush=True)
    input()
"""


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    """Install Docker's package where that is possible, also if no other test has done so yet."""
    if os.geteuid() == 0:
        install_engine()
    if reason := available(KIND):
        pytest.skip(reason)


def test_destroyed_without_a_trace() -> None:
    """Destroying an engine removes its processes, mounts, network, control groups and folder."""
    with private_engine(KIND) as engine, closing(client(engine.host)) as docker, peers(docker) as around:
        around.start("wait", network="bridge")
        assert {trace.split()[0] for trace in _traces(engine)} == {"folder", "netns", "process", "cgroup"}
    assert _traces(engine) == []


def test_owner_killed_without_a_trace() -> None:
    """An engine whose owner is killed is removed."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        engine = PrivateEngine(Path(owner.stdout.readline().strip()))
        assert engine.version()
        owner.kill()
    until(lambda: _traces(engine) == [])


def _traces(engine: PrivateEngine) -> list[str]:
    """List what the machine has of an engine, by the names that all of it contains."""
    found = [f"folder {engine.folder}"] if engine.folder.exists() else []
    found += [f"netns {engine.netns}"] if Path("/run/netns", engine.netns).exists() else []
    found += [
        f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if str(engine.folder) in line
    ]
    found += [
        f"process {line}" for line in _stdout("ps", "-eo", "pid,args").splitlines() if str(engine.folder) in line
    ]
    groups = subprocess.run(
        ["find", "/sys/fs/cgroup", "-name", engine.netns], capture_output=True, text=True, check=False
    ).stdout
    return found + [f"cgroup {path}" for path in groups.split()]


def _stdout(*argv: str) -> str:
    return subprocess.run(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
