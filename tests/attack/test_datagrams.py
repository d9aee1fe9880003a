"""UDP in the real Envoy: datagrams reach the host of their address, and sessions end with their rule."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from clawker_fw.stack.envoy import bounds
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import Resolving, program
from devkit.programs import OWN_LOOPBACK
from devkit.waiting import until

PORT = 9100
PLACES = {name: str(IPv4Address(OWN_LOOPBACK) + 2**20 * number) for number, name in enumerate(("one", "two"), 2)}
ONE, TWO = ({"dst": f"{name}.test", "proto": "udp", "port": f"{PORT}-{PORT + 1}"} for name in PLACES)


class Host:
    """A host that answers each datagram with its own name and the content, and remembers the sources."""

    def __init__(self, name: str, address: str, port: int) -> None:
        self.sources: list[tuple[str, int]] = []
        self._name = name.encode()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, port))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):  # not connected, which wakes it all the same
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def send(self, content: bytes, source: tuple[str, int]) -> None:
        self._socket.sendto(content, source)

    def _serve(self) -> None:
        while True:
            received, source = self._socket.recvfrom(2**16)
            if not received:
                return  # shut down
            self.sources.append(source)
            with suppress(OSError):  # shut down meanwhile
                self._socket.sendto(self._name + received[len(self._name) :], source)


@pytest.fixture
def hosts() -> Iterator[Mapping[str, Host]]:
    """The host of each name, on its first port."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(Host(name, place, PORT))) for name, place in PLACES.items()}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Resolving]:
    """A proxy for two names with hosts."""
    places = {f"{name}.test": place for name, place in PLACES.items()}
    with (
        NameServer(places) as names,
        Resolving(tmp_path_factory.mktemp("datagrams"), program(release), names.port) as started,
    ):
        yield started


def session(proxy: Resolving, name: str, port: int = PORT) -> socket.socket:
    agent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    agent.connect((str(proxy.virtual[f"{name}.test"]), port))
    agent.settimeout(1)
    return agent


def answer(agent: socket.socket, content: bytes = b"ping") -> bytes:
    """Return the answer to a datagram, empty after a second without one or if the port is closed."""
    try:
        agent.send(content)
        return agent.recv(2**16)
    except (TimeoutError, ConnectionRefusedError):
        return b""


def test_each_address_leads_to_its_own_host(proxy: Resolving, hosts: Mapping[str, Host]) -> None:
    """Datagrams keep their port, and answers of any size come back from there. Other ports are closed."""
    proxy.apply(ONE, TWO, {"dst": "one.test", "proto": "tcp", "port": PORT})
    for name in PLACES:
        with session(proxy, name) as agent:
            until(lambda: answer(agent) == name[:3].encode() + b"g")  # noqa: B023 - asked at once
            for size in (3, 1400, 1501, 9000, bounds.DATAGRAM):
                assert answer(agent, bytes(size)) == name.encode() + bytes(size - 3)
            assert len(set(hosts[name].sources)) == 1
    with session(proxy, "one", PORT + 2) as closed:
        closed.send(b"ping")
        with pytest.raises(ConnectionRefusedError):
            closed.recv(1)


def test_a_removed_rule_ends_its_sessions_and_no_others(proxy: Resolving, hosts: Mapping[str, Host]) -> None:
    """Through twenty changes of other names and ports, a session keeps its source port."""
    proxy.apply(ONE, TWO)
    with session(proxy, "one") as going, session(proxy, "two") as staying:
        for agent in (going, staying):
            until(lambda: answer(agent))  # noqa: B023 - asked at once
        (source,) = set(hosts["two"].sources)
        for number in range(10):
            other = {"dst": f"other-{number}.test", "proto": "udp", "port": PORT}
            proxy.apply(ONE, {**TWO, "port": PORT}, other, "b.test")
            assert answer(staying)
            proxy.apply(ONE, TWO, {**other, "proto": "tcp"})
            assert answer(staying)
        (was,) = set(hosts["one"].sources)
        proxy.apply(TWO)
        until(lambda: not answer(going))
        heard = len(hosts["one"].sources)
        hosts["one"].send(b"late", was)
        going.settimeout(0.5)
        assert answer(going) == b""
        assert len(hosts["one"].sources) == heard
        assert answer(staying)
        assert set(hosts["two"].sources) == {source}
        proxy.apply(ONE, TWO)
        until(lambda: answer(going))
        assert answer(staying)
        assert set(hosts["two"].sources) == {source}


def test_a_changed_rule_is_another_rule(proxy: Resolving, hosts: Mapping[str, Host]) -> None:
    """A change of `allow_private` ends the rule's sessions; new ones follow the changed rule."""
    proxy.apply(ONE)
    with session(proxy, "one") as agent:
        until(lambda: answer(agent))
        proxy.apply({**ONE, "allow_private": True})
        until(lambda: answer(agent))
        assert len(set(hosts["one"].sources)) == 2
        assert not hosts["two"].sources


def test_a_name_that_moves(tmp_path: Path, release: Release) -> None:
    """A session without a host gets one once the name resolves. New sessions use newer addresses."""
    with ExitStack() as stack:
        hosts = {name: stack.enter_context(closing(Host(name, PLACES[name], PORT))) for name in PLACES}
        names = stack.enter_context(NameServer(()))
        proxy = stack.enter_context(Resolving(tmp_path, program(release), names.port))
        proxy.apply({"dst": "moves.test", "proto": "udp", "port": PORT})
        with session(proxy, "moves") as before:
            assert not answer(before)
            names.move("moves.test", PLACES["one"])
            until(lambda: answer(before) == b"oneg")
            names.move("moves.test", PLACES["two"])

            def moved() -> bool:
                with session(proxy, "moves") as after:
                    return answer(after) == b"twog"

            until(moved)
            assert answer(before) == b"oneg"
        assert len(set(hosts["one"].sources)) > 0
