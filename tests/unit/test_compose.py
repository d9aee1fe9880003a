"""Compose services outside the firewall although other services of their project are agents."""

from collections.abc import Mapping
from ipaddress import IPv4Network

import pytest

from clawker_fw.agents.compose import bypassing
from clawker_fw.model.containers import ContainerSpec, Shape
from clawker_fw.model.networks import NetworkSpec
from clawker_fw.reconcile.observe import observe
from devkit import stacks
from devkit.memory.engine import MemoryEngine

AGENTS, OUT, INNER = "clawker-net", "shop_default", "shop_inner"
SHOP = "com.docker.compose.project"


@pytest.fixture
def engine(memory: MemoryEngine) -> MemoryEngine:
    """An engine with a stack, a network with a way out, and an internal one."""
    stacks.converged(memory, stacks.blueprint(memory.facts(), "a.test"))
    for name, octet, internal in ((OUT, 1, False), (INNER, 2, True)):
        subnet = IPv4Network(f"172.30.{octet}.0/24")
        memory.create_network(NetworkSpec(name, subnet, subnet[1], subnet, internal, {}, {}))
    return memory


def start(engine: MemoryEngine, service: str, network: str, project: str = "shop", files: str = "") -> None:
    named = {SHOP: project, "com.docker.compose.service": service, f"{SHOP}.config_files": files}
    on = {} if network.startswith("container:") else {network: ""}
    shape = Shape((), (), on)
    image = engine.inside("clawker-coredns").spec.image
    engine.start(engine.create_container(ContainerSpec(f"{project}-{service}-1", image, named, shape)))


@pytest.mark.parametrize(
    ("others", "named"),
    [
        ({"worker": OUT}, "worker"),
        ({"worker": OUT, "api": OUT}, "api worker"),
        ({"worker": AGENTS}, ""),
        ({"worker": INNER}, ""),
        ({}, ""),
    ],
)
def test_a_service_outside_of_the_firewall(others: Mapping[str, str], named: str, engine: MemoryEngine) -> None:
    """A service whose network leads out is reported with the command that confines it and all project files."""
    start(engine, "web", AGENTS, files="/s/compose.yaml,/s/firewall.yaml")
    for service, network in others.items():
        start(engine, service, network, files="/s/compose.yaml")
    start(engine, "unrelated", OUT, project="other")
    commands = [found.command for found in bypassing(observe(engine, "clawker"))]
    file = f"firewall-{named.partition(' ')[0]}.yaml"
    command = (
        f"clawker-fw agent compose {named} > {file} && docker compose -p shop -f /s/compose.yaml "
        f"-f /s/firewall.yaml -f {file} up -d"
    )
    assert commands == ([command] if named else [])
