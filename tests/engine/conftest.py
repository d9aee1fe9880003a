"""A real stack, with origins and agents around it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import APIClient

from devkit.engines import PrivateEngine, private_engine
from devkit.firewall import RULES, Firewall, brought_up
from devkit.peers import Peers


@pytest.fixture
def peers(docker: APIClient) -> Iterator[Peers]:
    """Origins and agents, removed after each test."""
    started = Peers(docker)
    yield started
    started.remove_all()


@pytest.fixture(scope="module")
def module_peers(docker: APIClient) -> Iterator[Peers]:
    """Origins and agents for all tests of a module."""
    started = Peers(docker)
    yield started
    started.remove_all()


@pytest.fixture
def firewall(host: str, clean_project: str, tmp_path: Path) -> Firewall:
    """A stack that is not up yet, with one allowed name for each protocol."""
    made = Firewall(host, clean_project, tmp_path)
    made.write(*RULES)
    return made


@pytest.fixture
def up(firewall: Firewall) -> Firewall:
    firewall.run()
    return firewall


@pytest.fixture(scope="module")
def shared(host: str, docker: APIClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firewall]:
    """One stack for all tests of a module, each of which leaves it current."""
    with brought_up(host, docker, tmp_path_factory.mktemp("shared"), *RULES) as firewall:
        yield firewall


@pytest.fixture
def kept(shared: Firewall, request: pytest.FixtureRequest) -> Firewall:
    """The module's stack for a test that leaves it current; it is repaired if an earlier test failed."""
    if request.session.testsfailed:
        shared.write(*RULES)
        shared.draining("0").run()
    return shared


@pytest.fixture
def lent(shared: Firewall, peers: Peers) -> Iterator[Firewall]:
    """The module's stack for a test that may leave it in any state; `run` makes it current afterwards."""
    shared.draining("0").run()
    yield shared
    peers.remove_all()
    shared.write(*RULES)
    shared.draining("0").run()


@pytest.fixture(scope="module")
def private(needs_engine: Callable[..., None]) -> Iterator[PrivateEngine]:
    """An engine that may be restarted and killed."""
    needs_engine()
    with private_engine() as engine:
        yield engine
