"""Mounts through which a container can write the settings file."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clawker_fw.agents.exposure import engine_ways, exposures
from clawker_fw.model.containers import Mount
from clawker_fw.model.engines import EngineFacts
from clawker_fw.model.observed import Observed
from clawker_fw.reconcile.observe import observe
from devkit import stacks
from devkit.memory.engine import MemoryEngine

Comparison = Callable[..., Observed]


@pytest.fixture
def look() -> Comparison:
    """Return an observed stack with an agent that has these mounts."""
    engine = MemoryEngine()
    wanted = stacks.blueprint(engine.facts(), "a.test")
    stacks.converged(engine, wanted)

    def seen(*mounts: Mount, network: str | None = "clawker-net") -> Observed:
        agent = stacks.bare_container("agent", wanted, network)
        engine.start(engine.create_container(replace(agent, shape=replace(agent.shape, mounts=mounts))))
        return observe(engine, "clawker")

    return seen


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file in its own folder."""
    path = tmp_path / "work" / "project" / "clawker-fw.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("rules: []\n")
    return path


def bind(source: Path, *, read_only: bool = False) -> Mount:
    return Mount("bind", "/inside", str(source), read_only=read_only)


@pytest.mark.parametrize("shared", ["", "/host_mnt"])
@pytest.mark.parametrize("place", ["clawker-fw.yaml", ".", "..", "../../../../../../.."])
def test_the_file_or_a_folder_above_it(place: str, shared: str, file: Path, look: Comparison) -> None:
    """A writable mount of the file or a parent folder is reported, also in Docker Desktop's spelling."""
    source = f"{shared}{os.path.normpath(file.parent / place)}"
    source = source.rstrip("/") or "/"
    beside = bind(Path(f"{shared}{file.parent.with_name('beside')}"))
    (found,) = exposures(look(bind(Path(source)), beside), (file,))
    assert (found.container, found.source, found.target) == ("agent", source, "/inside")
    assert (found.file, found.certain) == (str(file), True)


def test_everything_in_a_folder_that_decides(file: Path, look: Comparison) -> None:
    """A mount within a deciding folder counts, by path or by link; a neighbouring one does not."""
    folder = file.parent
    (folder / "keys").mkdir()
    link = folder.with_name("link")
    link.symlink_to(folder / "keys")
    beside = folder.with_name(f"{folder.name}-beside")
    beside.mkdir()
    found = exposures(look(bind(beside), bind(link), bind(folder / "keys")), (folder,))
    assert {(each.source, each.file, each.certain) for each in found} == {
        (str(link), str(folder), False),
        (str(folder / "keys"), str(folder), True),
    }


def test_a_path_that_cannot_be_examined(file: Path, look: Comparison) -> None:
    """An unreadable path may be a folder, so mounts below it count. It is never an error."""
    long = file.parent / ("x" * 300)
    (found,) = exposures(look(bind(long / "below")), (long,))
    assert found.certain


def test_a_mount_is_reported_once(file: Path, look: Comparison) -> None:
    """A mount is reported once, with the first file that it certainly reaches."""
    other, link = file.with_name("other.yaml"), file.parent.with_name("link")
    other.write_text("rules: []\n")
    link.symlink_to(file.parent)
    first, second = exposures(look(bind(file.parent), bind(link)), (file, other, link / file.name))
    assert (first.source, first.file, first.certain) == (str(file.parent), str(file), True)
    assert (second.source, second.file, second.certain) == (str(link), str(link / file.name), True)


def test_a_path_that_leaves_a_linked_folder(file: Path, look: Comparison) -> None:
    """The kernel resolves a link before `..`, so a file beside the link is not the one meant."""
    link = file.parents[1] / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(file.parent)
    meant = link / ".." / "beside.yaml"
    meant.write_text("rules: []\n")
    assert (file.parent.parent / "beside.yaml").exists()
    (found,) = exposures(look(bind(file.parent.parent / "beside.yaml")), (meant,))
    assert found.certain


def test_what_cannot_be_written_is_no_matter(file: Path, look: Comparison) -> None:
    """Read-only mounts, neighbouring files and unrelated folders are not reported."""
    beside = file.parent / "beside"
    beside.mkdir()
    assert (
        exposures(look(bind(file.parent, read_only=True), bind(beside), bind(file.parent / "other")), (file,))
        == ()
    )


def test_who_is_not_on_the_agent_network_is_no_matter(file: Path, look: Comparison) -> None:
    """Only containers on the agent network are reported, because the settings only concern them."""
    assert exposures(look(bind(file.parent), network=None), (file,)) == ()


def test_links_are_followed_both_ways(file: Path, tmp_path: Path, look: Comparison) -> None:
    """Links count in all directions: targets, their folders, and links within a mount's path."""
    links = tmp_path / "links"
    links.mkdir()
    (links / "middle").symlink_to(file.parent)
    named = tmp_path / "home"
    named.mkdir()
    (named / "clawker-fw.yaml").symlink_to("../links/middle/clawker-fw.yaml")
    (tmp_path / "alias").symlink_to(file.parent)
    observed = look(bind(file.parent), bind(links), bind(named), bind(tmp_path / "alias"), bind(tmp_path / "none"))
    found = {each.source for each in exposures(observed, (named / "clawker-fw.yaml",))}
    assert found == {str(path) for path in (file.parent, links, named, tmp_path / "alias")}


def test_an_engine_elsewhere_says_nothing(file: Path, look: Comparison) -> None:
    """On a remote engine, the same path is another file."""
    observed = look(bind(file.parent))
    assert exposures(observed, (file,))
    remote = replace(observed, engine=replace(observed.engine, endpoint="tcp://192.0.2.1:2376"))
    assert exposures(remote, (file,)) == ()


def test_sockets_of_an_engine_in_a_virtual_machine() -> None:
    """A mount of Docker Desktop's socket leads to the engine, whatever its source is called."""
    socket = "unix:///Users/somebody/.docker/run/docker.sock"
    ways = engine_ways(EngineFacts("28.5.2", "1.51", "arm64", endpoint=socket))
    for path in (
        "/Users/somebody/.docker/run/docker.sock",
        "/host_mnt/Users/somebody/.docker/run/docker.sock",
        "/run/host-services/docker.proxy.sock",
    ):
        assert ways.named_by(path)
