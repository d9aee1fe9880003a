"""How often names are looked up, and for how long: the judge is the log of the name server that is asked."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import Resolving, client_hello, program
from devkit.programs import free_port
from devkit.stacks import rule_set
from devkit.waiting import until

THERE, GONE = b"a.there.test", b"x.gone.test"
ADDRESS = "127.0.0.2"


@pytest.fixture
def names() -> Iterator[NameServer]:
    """A name server with one name."""
    with NameServer((THERE.decode(),), ADDRESS) as server:
        yield server


@pytest.fixture
def proxy(tmp_path: Path, release: Release, names: NameServer) -> Iterator[Resolving]:
    """A proxy that asks it, with rules for what is below two names."""
    started = Resolving(tmp_path, program(release), names.port)
    started.ports[8080] = free_port()
    started.serve(_rules())
    until(started.serves)
    yield started
    started.process.terminate()
    started.process.wait()


def _rules() -> RuleSet:
    return rule_set({"dst": ".there.test", "port": 8080}, {"dst": ".gone.test", "port": 8080})[1]


def test_a_name_that_does_not_exist_is_asked_once_a_second(proxy: Resolving, names: NameServer) -> None:
    """However often an agent asks for it; and it is asked again, so that it is found once it exists."""
    started = time.monotonic()
    requests = 0
    while time.monotonic() < started + 4:
        assert proxy.hello(GONE, 8080) == b""
        requests += 1
    asked = names.asked.count(tuple(GONE.split(b".")))
    assert requests > 20 > 1 + time.monotonic() - started + 1 >= asked >= 2


def test_lookups_end_with_their_use(proxy: Resolving, names: NameServer) -> None:
    """Names that nobody uses any more are not looked up, whether a rule is for them or not."""
    with socket.create_server((ADDRESS, 8080)) as origin:
        assert _passes(proxy, origin)
        for number in range(50):
            assert proxy.hello(b"%d.gone.test" % number, 8080) == b""
        assert len(set(names.asked)) == 51
        proxy.serve(RuleSet())
        until(lambda: _hosts(proxy) == 0, 8)
        names.asked.clear()
        with pytest.raises(TimeoutError):
            until(lambda: bool(names.asked), 3)
        proxy.serve(_rules())
        until(proxy.serves)
        assert _passes(proxy, origin)  # the control: it is asked for, and found, again
        assert set(names.asked) == {tuple(THERE.split(b"."))}


def test_a_connection_outlives_the_lookup_of_its_name(proxy: Resolving) -> None:
    """Who is connected stays so when the name is forgotten."""
    with (
        socket.create_server((ADDRESS, 8080)) as origin,
        socket.create_connection(("127.0.0.1", proxy.ports[8080]), timeout=5) as agent,
    ):
        agent.sendall(client_hello(THERE))
        upstream, _ = origin.accept()
        with upstream:
            assert upstream.recv(4096)
            until(lambda: _hosts(proxy) == 0, 15)
            upstream.sendall(b"still here")
            assert agent.recv(4096) == b"still here"


def test_no_search_domain(tmp_path: Path, release: Release) -> None:
    """What does not exist as it stands does not exist, whatever the machine's resolver would try after it."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\nsearch evil.test\noptions ndots:5\n")
    wrapper = tmp_path / "envoy"
    wrapper.write_text(f'#!/bin/sh\nmount --bind {resolv} /etc/resolv.conf && exec {program(release)} "$@"\n')
    wrapper.chmod(0o755)
    with NameServer() as names:
        proxy = Resolving(tmp_path / "proxy", Path("unshare"), names.port, before=("--mount", str(wrapper)))
        try:
            proxy.serve(_rules())
            until(proxy.serves)
            assert proxy.hello(GONE, 8080) == b""
        finally:
            proxy.process.terminate()
            proxy.process.wait()
    assert set(names.asked) == {tuple(GONE.split(b"."))}


def _passes(proxy: Resolving, origin: socket.socket) -> bool:
    """Whether a connection gets through to the origin."""
    with socket.create_connection(("127.0.0.1", proxy.ports[8080]), timeout=5) as agent:
        agent.sendall(client_hello(THERE))
        upstream, _ = origin.accept()
        with upstream:
            return upstream.recv(4096) == client_hello(THERE)


def _hosts(proxy: Resolving) -> int:
    return int(proxy.admin("/stats?filter=dns_cache.world.num_hosts").rpartition(b":")[2])
