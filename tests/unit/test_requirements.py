"""Requirements for an engine, checked against recorded answers to `/version` and `/info`."""

from typing import Any

import pytest

from clawker_fw.engine import requirements
from clawker_fw.errors import EngineError
from clawker_fw.model.engines import EngineFacts, Machine

PLACE = "unix:///run/docker.sock"

VERSION: dict[str, Any] = {
    "Platform": {"Name": ""},
    "Components": [{"Name": "Engine", "Version": "20.10.24+dfsg1"}, {"Name": "containerd", "Version": "1.6.20"}],
    "Version": "20.10.24+dfsg1",
    "ApiVersion": "1.41",
    "MinAPIVersion": "1.12",
    "Os": "linux",
    "Arch": "amd64",
}

INFO: dict[str, Any] = {
    "MemoryLimit": True,
    "PidsLimit": True,
    "Plugins": {"Network": ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"]},
    "SecurityOptions": ["name=seccomp,profile=default", "name=cgroupns"],
    "KernelVersion": "6.1.0-40-amd64",
    "OSType": "linux",
}


def test_an_engine_that_fits() -> None:
    """An engine is described by its version, API and architecture in Go's spelling."""
    requirements.require_abilities(PLACE, INFO)
    assert requirements.facts(PLACE, VERSION) == EngineFacts("20.10.24+dfsg1", "1.41", "amd64")
    assert requirements.facts(PLACE, VERSION | {"Arch": "arm64"}).architecture == "arm64"
    assert requirements.facts(PLACE, VERSION | {"KernelVersion": "6.12.5"}).kernel == "6.12.5"
    for enough in ({"KernelVersion": "4.18.0"}, {"KernelVersion": "10.0-x"}, {"SwapLimit": False}):
        requirements.require_abilities(PLACE, INFO | enough)
    requirements.require_abilities(PLACE, {})  # what an engine does not mention is assumed to work


@pytest.mark.parametrize(
    ("own", "oldest", "spoken"),
    [
        *((own, own, own) for own in ("1.41", "1.44", "1.51", requirements.NEWEST_API)),
        *((own, "1.44", requirements.NEWEST_API) for own in ("1.57", "1.100", "2.0")),
    ],
)
def test_the_api_that_is_spoken(own: str, oldest: str, spoken: str) -> None:
    """The engine's own API is used, up to the newest tested one. Versions compare as numbers."""
    said = VERSION | {"ApiVersion": own, "MinAPIVersion": oldest}
    assert requirements.facts(PLACE, said).api_version == spoken


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, Machine()),
        ({"NCPU": 4, "MemTotal": 1 << 30, "DefaultRuntime": "runc"}, Machine(4, 1 << 30)),
        ({"CPUShares": False, "SwapLimit": False}, Machine(weights=False, swap_limit=False)),
        ({"CPUShares": True, "SwapLimit": True, "DefaultRuntime": "nvidia"}, Machine(runtime="nvidia")),
        ({"DefaultRuntime": "io.containerd.runc.v2"}, Machine()),
    ],
)
def test_the_machine_is_what_the_engine_says(info: dict[str, Any], expected: Machine) -> None:
    """What an engine does not mention is assumed to work, and runc has several names."""
    assert requirements.machine(info) == expected


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ({"Components": [{"Name": "Podman Engine", "Version": "5.4.2"}]}, "engine-is-podman", "Podman 5.4.2"),
        ({"Os": "windows"}, "engine-not-linux", "windows containers"),
        ({"Version": "19.03.15", "ApiVersion": "1.40"}, "engine-too-old", "version 19.03.15 (API 1.40)"),
        ({"ApiVersion": "1.70", "MinAPIVersion": "1.57"}, "engine-too-new", "API 1.57 and later"),
        ({"Arch": "arm"}, "engine-architecture", "linux/arm,"),
    ],
)
def test_engines_that_cannot_carry_the_firewall(said: dict[str, Any], code: str, words: str) -> None:
    """The message names the engine and its address, and the hint says what to do."""
    with pytest.raises(EngineError) as caught:
        requirements.facts(PLACE, VERSION | said)
    assert caught.value.code == code
    assert words in caught.value.message
    assert PLACE in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("said", "lacking"),
    [
        ({"MemoryLimit": False, "PidsLimit": False}, ["memory limits", "process limits"]),
        ({"Plugins": {"Network": ["host", "null"]}}, ["bridge networks: it has host, null"]),
        ({"KernelVersion": "3.10.0-1160.el7.x86_64"}, ["limits of connections in nftables: its kernel is 3.10"]),
    ],
)
def test_all_that_an_engine_lacks_is_named(said: dict[str, Any], lacking: list[str]) -> None:
    """Each missing ability is a line that says what needs it."""
    with pytest.raises(EngineError) as caught:
        requirements.require_abilities(PLACE, INFO | said)
    assert caught.value.code == "engine-lacks"
    assert len(caught.value.context) == len(lacking)
    for line, words in zip(caught.value.context, lacking, strict=True):
        assert line.startswith(words)


def test_rootless_engines_are_refused() -> None:
    """Rootless engines are recognized by their security options, also among others."""
    options = ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"]
    with pytest.raises(EngineError) as caught:
        requirements.require_abilities(PLACE, INFO | {"SecurityOptions": options})
    assert caught.value.code == "engine-is-rootless"
    requirements.require_abilities(PLACE, INFO | {"SecurityOptions": ["name=apparmor", "name=rootlessness"]})


def test_who_root_is() -> None:
    """With remapped users, the data folder's name gives the ids. Similar names are ignored."""
    remapped = {"SecurityOptions": ["name=userns"], "DockerRootDir": "/var/lib/docker/100000.200000"}
    assert requirements.container_root(INFO | remapped) == (100000, 200000)
    assert requirements.container_root(INFO | {"DockerRootDir": "/data/1.2"}) == (0, 0)
    assert requirements.container_root(INFO | remapped | {"DockerRootDir": "/var/lib/docker"}) == (0, 0)
