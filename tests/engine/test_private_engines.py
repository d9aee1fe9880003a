"""The private engines of all engine tests are separate from the machine and leave nothing behind."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from devkit import inheritance
from devkit.engines import EngineError, PrivateEngine, available, install_engine, private_engine
from devkit.inheritance import inherited
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


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    """One engine for all tests that do not end it."""
    with private_engine(KIND) as engine:
        yield engine


@pytest.fixture(scope="module")
def sleeper(engine: PrivateEngine) -> Iterator[Container]:
    """A container that sleeps on a network of its own and restarts with the engine."""
    with _sleeper(engine) as container:
        yield container


def test_network_rules_stay_inside(engine: PrivateEngine, sleeper: Container) -> None:
    """The engine's iptables rules for a container's network are not on the machine."""
    sleeper.reload()
    network = sleeper.attrs["NetworkSettings"]["Networks"]["naps"]["NetworkID"]
    bridge = f"br-{network[:12]}"
    assert bridge in engine.run_in_network(["iptables-save"]).stdout
    assert bridge not in _stdout("iptables-save")
    assert not Path("/proc/self/ns/net").samefile(f"/run/netns/{engine.netns}")


def test_containers_inherit_from_their_engine(engine: PrivateEngine, sleeper: Container) -> None:
    """A container's network starts with what its engine's has, as on a host, not with what the machine's has."""
    sleeper.reload()
    inside = ["nsenter", f"--net={engine.root}/proc/{sleeper.attrs['State']['Pid']}/ns/net", "cat"]
    assert _stdout(*inside, "/proc/sys/net/ipv4/ip_forward").strip() == "1"
    engine.set_host({"net.ipv4.conf.default.arp_ignore": "7"})
    assert inherited(["env"], "net.ipv4.conf.default.arp_ignore") != "7"


def test_the_machine_gets_its_setting_back() -> None:
    """The last private engine puts back what the first one has changed: here, in a machine made of files."""
    folder = tempfile.mkdtemp()
    setting, place = Path(folder, "setting"), Path(folder, "place")
    setting.write_text("1\n")

    def told(script: str, name: str) -> None:
        for real, here in (
            ("/proc/sys/net/core/devconf_inherit_init_net", str(setting)),
            (inheritance.PLACE, str(place)),
            ("/run/netns", folder),
        ):
            script = script.replace(real, here)
        subprocess.run(["sh", "-ec", script], env={"NETNS": name, "PATH": os.environ["PATH"]}, check=True)

    for name in ("one", "two", "killed"):
        Path(folder, name).touch()
        told(inheritance.TAKE, name)
    assert setting.read_text() == "3\n"
    Path(folder, "killed").unlink()
    told(inheritance.GIVE, "one")
    assert setting.read_text() == "3\n"
    told(inheritance.GIVE, "two")
    told(inheritance.GIVE, "two")
    assert setting.read_text() == "1\n"
    shutil.rmtree(folder)


def test_destroyed_without_a_trace() -> None:
    """Destroying an engine removes its processes, mounts, network, control groups and folder."""
    with private_engine(KIND) as engine, _sleeper(engine):
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


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for the engine's sockets."""
    with tempfile.TemporaryDirectory(prefix="short-", dir="/var/tmp") as folder:
        yield Path(folder)


def test_foreign_folder_is_left_alone(short_path: Path) -> None:
    """A folder with other content is neither used for an engine nor deleted."""
    precious = short_path / "precious"
    precious.touch()
    with pytest.raises(EngineError, match="not empty"), private_engine(KIND, folder=short_path):
        pass
    with pytest.raises(EngineError, match="not the folder of an engine"):
        PrivateEngine(short_path).destroy()
    assert precious.exists()


@contextlib.contextmanager
def _sleeper(engine: PrivateEngine) -> Iterator[Container]:
    with contextlib.closing(docker.DockerClient(base_url=engine.host)) as client:
        client.api.import_image_from_data(_image(), repository="sleeper", tag="1")
        client.networks.create("naps")
        yield client.containers.run(
            "sleeper:1",
            ["sleep", "infinity"],
            environment={"PATH": "/bin"},
            network="naps",
            restart_policy={"Name": "always"},
            stop_signal="SIGKILL",
            detach=True,
        )


def _image() -> bytes:
    """Pack this machine's `sleep` and its libraries, because there is no registry."""
    sleep = shutil.which("sleep") or "/bin/sleep"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as tar:
        tar.add(sleep, "bin/sleep")
        for library in re.findall(r"(/\S+) \(", _stdout("ldd", sleep)):
            tar.add(library)
    return packed.getvalue()


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
