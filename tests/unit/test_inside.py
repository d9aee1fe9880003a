"""The program in a container of its own engine: what it knows of itself, and whose settings it uses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.agents.exposure import engine_ways, exposures
from clawker_fw.engine.own_container import own_container
from clawker_fw.errors import NotFoundError, RefusedError
from clawker_fw.model.containers import Mount
from clawker_fw.model.engines import EngineFacts, Inside
from clawker_fw.model.observed import Observed
from clawker_fw.model.origin import Origin
from clawker_fw.reconcile import records
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.observe import observe
from clawker_fw.stack.container import ORIGIN, state_record
from devkit import stacks
from devkit.memory.engine import MemoryEngine

ID = "4f" * 32
MOUNTS = (("/clawker-fw.yaml", "/srv/fw/clawker-fw.yaml"), ("/var/lib/clawker-fw", "/data/volumes/state/_data"))
INSIDE = Inside(ID, "node-1", (*MOUNTS, ("/var/run/docker.sock", "/srv/docker.sock")))
LINE = "91 80 254:0 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/vda rw\n"
ROOT = "80 70 0:60 / / rw - overlay overlay rw,upperdir=/var/lib/docker/overlay2/{layer}/diff,workdir=/w\n"


class OneContainer:
    """An engine with one container."""

    def inspect_container(self, container: str) -> dict[str, Any]:
        if container != ID:
            raise NotFoundError("not-found", "There is no such container.")
        return {
            "Id": ID,
            "Mounts": [{"Destination": target, "Source": source} for target, source in MOUNTS],
            "HostConfig": {"NetworkMode": "bridge"},
            "GraphDriver": {"Data": {"UpperDir": "/var/lib/docker/overlay2/own/diff"}},
        }


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (ROOT.format(layer="own") + LINE.format(id=ID), True),
        (LINE.format(id=ID), True),
        (LINE.format(id="ab" * 32), False),  # another engine's
        (ROOT.format(layer="other") + LINE.format(id=ID), False),  # it shares the network of the named container
        (LINE.format(id=ID) + LINE.format(id="ab" * 32), False),
    ],
)
def test_a_container_of_the_engine_is_known(text: str, known: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a row
    """The container id comes from the kernel's list of mounts and must be known to the engine."""
    (tmp_path / "mountinfo").write_text(text)
    found = own_container(OneContainer(), {"Name": "node-1"}, tmp_path / "mountinfo")  # type: ignore[arg-type]
    assert found == (Inside(ID, "node-1", MOUNTS) if known else None)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("/clawker-fw.yaml", "/srv/fw/clawker-fw.yaml"),
        ("/var/lib/clawker-fw/certs/x/ca.key", "/data/volumes/state/_data/certs/x/ca.key"),
        ("/var/lib/clawker-fw2", None),
        ("/etc/clawker-fw/clawker-fw.yaml", None),
    ],
)
def test_a_path_is_known_on_both_sides(here: str, there: str | None) -> None:
    """A mounted file has a path on the Docker host; other files exist only in the container."""
    assert INSIDE.on_host(here) == there
    assert there is None or INSIDE.in_here(there) == here


@pytest.mark.usefixtures("up")
def test_settings_are_the_same_by_content_or_by_place(memory: MemoryEngine) -> None:
    """Equal content or the same file is accepted; another file with other content is refused."""
    first = Origin("/srv/fw/clawker-fw.yaml", "node-1", None, "one")
    for sibling in ("envoy", "coredns"):
        memory.put_files(f"clawker-{sibling}", {ORIGIN: state_record(first)})
    observed = observe(memory, "clawker")
    elsewhere = Origin("/home/ci/clawker-fw.yaml", "0123456789ab", None, "one")
    records.require_same_origin(observed, elsewhere)
    records.require_same_origin(observed, replace(first, digest="two"))
    for changed in (
        replace(elsewhere, digest="two"),
        replace(first, digest="two", host="node-2"),
        replace(first, digest="two", path=""),
    ):
        with pytest.raises(RefusedError, match="another settings file"):
            records.require_same_origin(observed, changed)
    records.keep_origin(memory, observed, elsewhere)
    assert records.recorded_origins(observe(memory, "clawker")) == (elsewhere,)


def test_a_fresh_container_has_the_origin_of_its_machine(tmp_path: Path) -> None:
    """A mounted file has the host's path as its origin; other files count with the container's host name."""
    mounted = Inside(ID, "node-1", ((str(tmp_path.resolve()), "/srv/fw"),))
    on_machine = Origin("/srv/fw/clawker-fw.yaml", "node-1", None, "x")
    assert records.origin(tmp_path / "clawker-fw.yaml", None, "x", inside=mounted) == on_machine
    config = records.origin(tmp_path / "clawker-fw.yaml", None, "x", inside=Inside(ID, "node-1"))
    assert (config.path, config.host) == (str(tmp_path.resolve() / "clawker-fw.yaml"), "node-1")
    variable = records.origin(None, None, "x", inside=Inside("ab" * 32, "node-1"))
    assert (variable.path, variable.host) == ("", "node-1")


def with_agent(memory: MemoryEngine, up: Blueprint, inside: Inside, *sources: str) -> Observed:
    """Return a stack with an agent that can write these host paths, as seen from a container."""
    agent = stacks.bare_container("agent", up, "clawker-net")
    mounts = tuple(Mount("bind", f"/m{number}", source) for number, source in enumerate(sources))
    memory.start(memory.create_container(replace(agent, shape=replace(agent.shape, mounts=mounts))))
    observed = observe(memory, "clawker")
    return replace(observed, engine=replace(observed.engine, inside=inside))


def test_agents_that_can_write_what_is_mounted_here(memory: MemoryEngine, up: Blueprint) -> None:
    """Agents' mounts are compared with host paths, never with equal paths in this container."""
    sources = ("/srv/fw", "/data", "/etc", "/clawker-fw.yaml", "/srv/other")
    observed = with_agent(memory, up, INSIDE, *sources)
    files = [Path(each) for each in ("/clawker-fw.yaml", "/var/lib/clawker-fw/certs", "/etc/alone.yaml")]
    found = {(each.source, each.file) for each in exposures(observed, files)}
    assert found == {
        ("/srv/fw", "/srv/fw/clawker-fw.yaml"),
        ("/data", "/data/volumes/state/_data/certs"),
    }


def test_a_link_in_here_leads_through_two_folders(memory: MemoryEngine, up: Blueprint, tmp_path: Path) -> None:
    """Whoever can replace a link to the settings, or write its target, can write the settings."""
    for name in ("links", "files"):
        (tmp_path / name).mkdir()
    (tmp_path / "files" / "real.yaml").write_text("rules: []\n")
    (tmp_path / "links" / "clawker-fw.yaml").symlink_to(tmp_path / "files" / "real.yaml")
    mounted = tuple((str(tmp_path.resolve() / name), f"/data/{name}") for name in ("links", "files"))
    observed = with_agent(memory, up, Inside(ID, "node-1", mounted), "/data/links", "/data/files")
    found = exposures(observed, [tmp_path.resolve() / "links" / "clawker-fw.yaml"])
    assert {each.source for each in found} == {"/data/links", "/data/files"}
    assert {each.file for each in found} == {"/data/files/real.yaml"}


def test_the_way_to_the_engine_is_the_one_on_its_machine() -> None:
    """A socket mounted from an unusual host path leads agents to the engine, as the usual ones do."""
    ways = engine_ways(EngineFacts("28", "1.51", "amd64", endpoint="unix:///var/run/docker.sock", inside=INSIDE))
    assert ways.named_by("/srv/docker.sock")
    assert ways.named_by("/srv")
    assert ways.reached_by("/var/run/docker.sock")
    assert not ways.reached_by("/srv/other")


def test_a_mount_at_any_path_is_no_obstacle(tmp_path: Path) -> None:
    """Paths in the kernel's list may be invalid UTF-8 or contain Python line separators."""
    strange = b"92 80 254:0 / /mnt/\xff\xc2\x85\x0b\x1c\xe2\x80\xa8x rw - ext4 /dev/vda rw\n"
    (tmp_path / "mountinfo").write_bytes(strange + ROOT.format(layer="own").encode() + LINE.format(id=ID).encode())
    assert own_container(OneContainer(), {"Name": "node-1"}, tmp_path / "mountinfo")  # type: ignore[arg-type]
