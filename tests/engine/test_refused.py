"""Unsuitable engines are refused on connecting, because of their own answers."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from devkit.engines import available
from devkit.firewall import Firewall
from devkit.host import client
from devkit.podman import podman
from devkit.rootless import rootless_engine


@pytest.fixture(scope="module")
def podman_address(
    require_engine: bool,  # noqa: FBT001 - a fixture
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Podman, for all commands."""
    if (reason := available()) and not require_engine:
        pytest.skip(f"PODMAN IS NOT TESTED: {reason}")
    with podman(tmp_path_factory.mktemp("podman")) as address:
        yield address


@pytest.mark.parametrize("command", ["run", "drift", "status", "reload", "down"])
def test_podman(command: str, podman_address: str, tmp_path: Path) -> None:
    """For every command, the error names Podman, the reason, and what to do."""
    firewall = Firewall(podman_address, "clawker", tmp_path)
    firewall.write("a.test")
    refused = firewall.call(command).expect(4).err
    assert "error[engine-is-podman]" in refused
    assert "its own DNS server" in refused.replace("\n", " ")
    assert "hint: Use a rootful Docker engine" in refused


def test_rootless(require_engine: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a fixture
    """A rootless engine is refused, and nothing is created on it."""
    if (reason := available()) and not require_engine:
        pytest.skip(f"ROOTLESS DOCKER IS NOT TESTED: {reason}")
    with rootless_engine() as address, closing(client(address)) as docker:
        firewall = Firewall(address, "clawker", tmp_path)
        firewall.write("a.test")
        refused = firewall.call("run").expect(4).err
        assert docker.containers(all=True) == []
        assert docker.images(all=True) == []
    assert "error[engine-is-rootless]" in refused
    assert "hint: Use a rootful Docker engine" in refused
