"""A stack needs no collector: a test in a simulated internet."""

from collections.abc import Callable
from contextlib import closing

import pytest

from devkit.engines import private_engine
from devkit.firewall import Firewall
from devkit.host import client
from devkit.peers import peers
from devkit.programs import machine
from devkit.world import NAMESERVER, WORLD, world_around

SILENT = "silent.test"


def test_a_stack_starts_without_the_collectors_address(
    needs_engine: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """If the collector's name does not resolve, neither the start nor an agent is delayed."""
    needs_engine()
    folder = tmp_path_factory.mktemp("place")
    with (
        private_engine(dns=[NAMESERVER]) as engine,
        world_around(engine, tmp_path_factory.mktemp("said"), machine()) as world,
        closing(client(engine.host)) as docker,
        peers(docker) as around,
    ):
        world.resolve({"a.test": [WORLD], SILENT: ["203.0.113.99"]}, "--slow", f"{SILENT}=1h")
        firewall = Firewall(engine.host, "silent", folder, variables={"XDG_STATE_HOME": str(folder)})
        firewall.write("a.test", otel={"endpoint": f"{SILENT}:4317"})
        assert firewall.run().seconds < 60
        agent = firewall.agent(around)
        for _ in range(20):
            assert agent.get("https://a.test/").ok
        assert firewall.current()
