"""What the engine's machine does: it is slow, its kernel lacks something, its settings are unusual."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from docker import APIClient

from devkit.engines import PrivateEngine
from devkit.firewall import Firewall, remove_project
from devkit.hand import Hand
from devkit.host import client
from devkit.in_flight import unfinished_exec
from devkit.peers import Peers
from devkit.tampering.running import start_a_process
from devkit.tampering.way import COREDNS
from tests.engine.conftest import RULES


@pytest.fixture
def sdk(private: PrivateEngine) -> Iterator[APIClient]:
    """A client of the engine that nobody else uses."""
    with closing(client(private.host)) as made:
        yield made


@pytest.fixture
def alone(private: PrivateEngine, sdk: APIClient, tmp_path: Path) -> Iterator[Hand]:
    """A stack on that engine, and somebody who tampers with it."""
    firewall, peers = Firewall(private.host, "machine", tmp_path), Peers(sdk)
    firewall.write(*RULES)
    firewall.run()
    yield Hand(sdk, firewall, peers)
    peers.remove_all()
    remove_project(sdk, "machine")


def test_an_exec_that_takes_long_is_no_tampering(alone: Hand, private: PrivateEngine) -> None:
    """A process that has yet to execute the engine's program is no difference; a program that stays is one."""
    pid = alone.inspect(COREDNS)["State"]["Pid"]
    with unfinished_exec(private.root / "proc" / str(pid)):
        assert alone.firewall.drift().expect().findings == set()
        start_a_process(alone)
        assert alone.firewall.drift().findings == {(COREDNS, "live", "processes", "tamper", "replace")}
    assert alone.firewall.drift().findings == {(COREDNS, "live", "processes", "tamper", "replace")}
