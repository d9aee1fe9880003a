"""Foreign containers that look like ours, in every command and list."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from clawker_fw.model.containers import ContainerSpec, Mount, Shape
from clawker_fw.model.stacks import Sibling
from clawker_fw.model.volumes import VolumeView
from clawker_fw.stack.files import public
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command, join

IMAGES: dict[str, Mapping[str, str] | None] = {"no volume": None, "a volume of its own": {}}
"""Labels of a foreign container's volume at `/fw`, if it has one."""


@pytest.mark.parametrize("volume", IMAGES)
@pytest.mark.parametrize("attached", [False, True], ids=["never started", "an agent"])
def test_an_image_with_our_labels_is_in_nobody_s_way(
    volume: str, command: Command, memory: MemoryEngine, *, attached: bool
) -> None:
    """A container whose image carries our labels stops no command and is not taken for ours."""
    command("run")
    before = {each: memory.inside(f"clawker-{each}").id for each in Sibling}
    every = memory.inside("clawker-coredns").spec.labels
    attachment = command.json("agent", "flags")
    networks = {attachment["network"]: ""} if attached else {}
    shape = Shape((), (), networks, dns=tuple(attachment["dns"]), capabilities_dropped=("NET_RAW",))
    image = memory.inside("clawker-envoy").image
    theirs = memory.create_container(ContainerSpec("theirs", image, every, shape))
    memory.inside(theirs).volume = IMAGES[volume]
    if attached:
        memory.start(theirs)
        memory.put_files(theirs, {"state/claimed": public(b"")})  # as if it served
        memory.inside(theirs).log.append(
            '{"name":"a.test","port":443,"protocol":"tls","reason":"no-rule","source":"10.0.0.1:1"}'
        )
    assert command("drift").code == 0
    assert command("status").code == 0
    assert command("reload").code == 0
    assert command("run").code == 0
    assert command.json("denials")["denials"] == []
    agents = command.json("status")["agents"]
    assert [each["name"] for each in agents] == (["theirs"] if attached else [])
    assert [each["project"] for each in command.json("status", "--all")["stacks"]] == ["clawker"]
    assert {each: memory.inside(f"clawker-{each}").id for each in Sibling} == before
    assert command("down", *(["--force"] if attached else [])).code == 0
    assert memory.container(theirs), "it is somebody else's"
    assert [each.name for each in memory.listing()] == ["theirs"]
    assert command.json("status", "--all")["stacks"] == []


def test_a_mount_forges_no_line(command: Command, memory: MemoryEngine, settings_file: Path) -> None:
    """A line break in a mount's path or a volume's name is escaped in every answer."""
    command("run")
    memory.drivers["data"] = VolumeView("data", "lo\nforged  line", {})
    mounts = (
        Mount("bind", "/work\nforged  line", str(settings_file.parent)),
        Mount("bind", "/engine", "/var/lib/docker/x\nforged  line"),
        Mount("volume", "/data", "data"),
    )
    join(memory, "agent", mounts=mounts)
    for verb in ("drift", "status", "doctor", "run", "status --all"):
        outcome = command(*verb.split())
        lines = f"{outcome.out}{outcome.err}".splitlines()
        assert not [line for line in lines if line.strip().startswith("forged")], (verb, lines)
    assert "\\nforged" in command("drift").out
