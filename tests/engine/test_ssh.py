"""Engines over ssh: a real sshd on loopback, and the user's own `ssh`."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from clawker_fw.engine.docker import connect
from clawker_fw.fwctl import HelperReader
from devkit.firewall import Firewall
from devkit.sshd import Door, sshd

THREADS = 16
"""More connections than sshd's default limit for one login (MaxSessions, 10)."""


@pytest.fixture
def door(
    host: str,
    needs_engine: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Door]:
    needs_engine()
    with sshd(host, tmp_path_factory.mktemp("ssh")) as opened:
        yield opened


def far(firewall: Firewall, door: Door) -> Firewall:
    """Return the same stack, managed over ssh."""
    return replace(firewall, host=door.address, variables=door.variables)


def test_everything_works_over_ssh(firewall: Firewall, door: Door) -> None:
    """A stack is created, compared, changed and removed, with one login for each command."""
    there = far(firewall, door)
    there.run()
    assert there.current()
    firewall.write("b.test")
    there.call("reload").expect()
    assert firewall.current()
    there.call("down").expect()
    assert door.logins() == 4


def test_many_questions_at_once(shared: Firewall, door: Door, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of many threads gets the same complete answer as locally."""
    monkeypatch.setenv("PATH", door.variables["PATH"])
    names = [shared.container(sibling) for sibling in ("envoy", "coredns")]
    with (
        closing(connect(host, None, {})) as near,
        closing(connect(door.address, None, {})) as engine,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        listed = [each.name for each in near.listing()]
        files = {name: near.files(name) for name in names}
        live = {name: HelperReader(near, name).probe().live for name in names}
        asked = names * THREADS
        looking = [pool.submit(engine.listing) for _ in asked]
        reading = [pool.submit(engine.files, name) for name in asked]
        probing = [pool.submit(HelperReader(engine, name).probe) for name in asked]
        assert all([found.name for found in each.result()] == listed for each in looking)
        assert [each.result() for each in reading] == [files[name] for name in asked]
        assert [each.result().live for each in probing] == [live[name] for name in asked]


def test_what_ssh_says_is_told(firewall: Firewall, door: Door, host: str, tmp_path: Path) -> None:
    """For an unknown host, a refused key and a machine without docker, ssh's own error is shown."""
    stranger = replace(far(firewall, door), host=door.address.replace("root@", "nobody@"))
    assert "Permission denied" in _unreachable(stranger)
    (door.log.parent / "known").write_text("")
    assert "Host key verification failed" in _unreachable(far(firewall, door))
    (tmp_path / "bare").mkdir()
    with sshd(host, tmp_path / "bare", path="/nowhere") as other:
        assert "docker" in _unreachable(far(firewall, other))


def _unreachable(firewall: Firewall) -> str:
    error = firewall.call("status").expect(4).err
    assert "error[engine-unreachable]" in error
    assert firewall.host in error
    return error
