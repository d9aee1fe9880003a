"""Commands that attach agents give them the roots of a stack that inspects connections."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from clawker_fw.agents.trusted_roots import TARGET, roots_of
from clawker_fw.certificates.credentials import fingerprints
from clawker_fw.reconcile.observe import observe
from clawker_fw.stack import labels
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command

INSPECTED = "rules:\n  - dst: a.test\n    inspect: true\n"
PLAIN = "rules:\n  - dst: a.test\n"


class Compose(yaml.SafeLoader):
    """Reads the two tags of the Compose specification, `!override` and `!reset`."""


def _replaced(loader: Compose, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.MappingNode):
        return {node.tag: loader.construct_mapping(node, deep=True)}
    assert isinstance(node, yaml.SequenceNode)
    return {node.tag: loader.construct_sequence(node)}


for tag in ("!override", "!reset"):
    Compose.add_constructor(tag, _replaced)


@pytest.fixture(autouse=True)
def stack(command: Command, settings_file: Path) -> None:
    settings_file.write_text(INSPECTED)
    assert command("run").code == 0


def volume(memory: MemoryEngine) -> str:
    """Return the only volume with roots for agents, after checking its content."""
    ((name, files),) = memory.named_files.items()
    roots = fingerprints(roots_of(observe(memory, "clawker")))
    assert roots
    assert set(roots) < set(fingerprints(files["authorities.pem"].content))
    assert memory.drivers[name].labels[labels.TRUST].split() == [each[:16] for each in roots]
    return name


def test_flags(command: Command, memory: MemoryEngine) -> None:
    """The flags mount the volume read-only and set the variables, the same each time."""
    first, again = command("agent", "flags"), command("agent", "flags")
    assert (first.code, first.err, first.out) == (0, "", again.out)
    mount = f"--mount type=volume,source={volume(memory)},target={TARGET},readonly,volume-nocopy"
    assert (
        f" {mount} --env APT_CONFIG={TARGET}/apt.conf --env AWS_CA_BUNDLE={TARGET}/authorities.pem " in first.out
    )
    answer = command.json("agent", "flags")
    assert answer["mounts"] == [{"volume": volume(memory), "target": TARGET, "read_only": True}]
    assert answer["environment"]["JAVA_TOOL_OPTIONS"] == f"-Djavax.net.ssl.trustStore={TARGET}/authorities.p12"


def test_compose(command: Command, memory: MemoryEngine) -> None:
    """The override does the same with an external volume, so Compose fails without it."""
    document = yaml.load(command("agent", "compose", "web").out, Compose)  # noqa: S506 - a safe loader
    (web,) = document["services"].values()
    (mount,) = web["volumes"]
    assert (mount["target"], mount["read_only"], mount["volume"]) == (TARGET, True, {"nocopy": True})
    assert document["volumes"] == {mount["source"]: {"name": volume(memory), "external": True}}
    assert web["environment"]["NODE_EXTRA_CA_CERTS"] == f"{TARGET}/roots.pem"


def test_nothing_is_given_where_nothing_is_inspected(
    command: Command, memory: MemoryEngine, settings_file: Path
) -> None:
    """Without such a rule, agents get nothing more, and `run` removes unused volumes."""
    command("agent", "flags")
    name = volume(memory)
    settings_file.write_text(PLAIN)
    assert f"remove volume {name}" in command("run", "--dry-run").out
    assert command("run").code == 0
    assert "--mount" not in command("agent", "flags").out
    assert memory.named_files == {}
