"""What both siblings send to a real OpenTelemetry Collector, in a simulated internet, and that they need none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from clawker_fw.certificates.store import TelemetryStore
from devkit.collectors import Collector
from devkit.engines import PrivateEngine, private_engine
from devkit.firewall import Firewall, remove_project
from devkit.host import client
from devkit.peers import Peers, peers
from devkit.programs import machine
from devkit.world import NAMESERVER, WORLD, World, world_around

COLLECTOR, HOST = "collector.test", "203.0.113.77"
ZONE = {"a.test": [WORLD], "h.test": [WORLD], COLLECTOR: [HOST], "silent.test": ["203.0.113.99"]}
RULES = ("a.test", {"dst": "h.test", "proto": "http"})


@dataclass(frozen=True)
class Place:
    """An engine with an internet around it, and a folder for the user's state."""

    engine: PrivateEngine
    world: World
    peers: Peers
    folder: Path

    def firewall(self, project: str, endpoint: str) -> Firewall:
        """Return a stack that sends to an endpoint. It is not up yet."""
        folder = self.folder / project
        folder.mkdir()
        made = Firewall(self.engine.host, project, folder, variables={"XDG_STATE_HOME": str(self.folder)})
        made.write(*RULES, otel={"endpoint": endpoint})
        return made

    @contextmanager
    def collector(self, project: str) -> Iterator[Collector]:
        """Run a collector that trusts a project's authority."""
        folder = self.folder / "clawker-fw" / "certs" / project
        store = TelemetryStore(folder, project, keeps=True)
        store.provide()
        trusted, pair = store.collector(COLLECTOR)
        before = self.engine.network_argv()
        with Collector(self.folder / "collector", f"{HOST}:4317", pair, trusted, before) as started:
            yield started


@pytest.fixture(scope="module")
def place(needs_engine: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The surroundings of all stacks here."""
    needs_engine()
    with (
        private_engine(dns=[NAMESERVER]) as engine,
        world_around(engine, tmp_path_factory.mktemp("said"), machine()) as world,
        peers(client(engine.host)) as around,
    ):
        world.add(HOST)
        world.resolve(ZONE, "--silent", "silent.test", "--slow", f"{COLLECTOR}=1.5s")
        yield Place(engine, world, around, tmp_path_factory.mktemp("place"))


def _serves_without(place: Place, firewall: Firewall) -> None:
    """Check that a stack serves and is current although nobody takes its records."""
    agent = firewall.agent(place.peers)
    for _ in range(20):
        assert agent.get("https://a.test/").ok
    assert firewall.current()


@pytest.mark.parametrize("host", ["missing.test", "silent.test"])
def test_a_stack_starts_without_the_collectors_address(host: str, place: Place) -> None:
    """A name that does not exist, or a silent name server, delays neither the start nor an agent."""
    project = host.partition(".")[0]
    firewall = place.firewall(project, f"{host}:4317")
    outcome = firewall.run()
    assert outcome.seconds < 20
    _serves_without(place, firewall)
    remove_project(client(place.engine.host), project)
