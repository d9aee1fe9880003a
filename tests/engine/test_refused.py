"""Unsuitable engines are refused on connecting, because of their own answers."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from devkit.firewall import Firewall
from devkit.host import client
from devkit.podman import podman
from devkit.rootless import rootless_engine


@pytest.fixture(scope="module")
def podman_address(
    needs_engine: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Podman, for all commands."""
    needs_engine()
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


def test_rootless(needs_engine: Callable[..., None], tmp_path: Path) -> None:
    """A rootless engine is refused, and nothing is created on it."""
    needs_engine()
    with rootless_engine() as address, closing(client(address)) as docker:
        firewall = Firewall(address, "clawker", tmp_path)
        firewall.write("a.test")
        refused = firewall.call("run").expect(4).err
        assert docker.containers(all=True) == []
        assert docker.images(all=True) == []
    assert "error[engine-is-rootless]" in refused
    assert "hint: Use a rootful Docker engine" in refused
