"""UDP in the real Envoy: datagrams reach the host that an address stands for, and a session ends with its rule."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from ipaddress import IPv4Address
from typing import Any

import pytest

from clawker_fw.rules.reasons import Reason
from clawker_fw.stack.envoy import bounds
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import WRITTEN_WITHIN, Resolving, program
from devkit.programs import OWN_LOOPBACK
from devkit.waiting import until
from tests.attack.test_records import serve

PORT = 9100
NOWHERE = "255.255.255.255"
"""An address to which the kernel refuses to connect, as those do that a routing table refuses."""
PLACES = {name: str(IPv4Address(OWN_LOOPBACK) + 2**20 * number) for number, name in enumerate(("one", "two"), 2)}
ONE, TWO = ({"dst": f"{name}.test", "proto": "udp", "port": f"{PORT}-{PORT + 1}"} for name in PLACES)
REFUSED = {"dst": "refused.test", "proto": "udp", "port": PORT}
GONE = {"dst": "gone.test", "proto": "udp", "port": PORT}
SILENT = {"dst": "silent.test", "proto": "udp", "port": PORT}


class Host:
    """A host that answers each datagram with its own name and what was sent, and remembers from where it came."""

    def __init__(self, name: str, address: str, port: int) -> None:
        """Listen."""
        self.sources: list[tuple[str, int]] = []
        self._name = name.encode()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, port))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        with suppress(OSError):  # not connected, which wakes it all the same
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def send(self, content: bytes, source: tuple[str, int]) -> None:
        """Send something without having been asked."""
        self._socket.sendto(content, source)

    def _serve(self) -> None:
        while True:
            received, source = self._socket.recvfrom(2**16)
            if not received:
                return  # shut down
            self.sources.append(source)
            with suppress(OSError):  # it has been shut down since
                self._socket.sendto(self._name + received[len(self._name) :], source)


@pytest.fixture
def hosts() -> Iterator[Mapping[str, Host]]:
    """The host of each name, on its first port."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(Host(name, place, PORT))) for name, place in PLACES.items()}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Resolving]:
    """A proxy for two names with hosts, and one that leads where nobody may go."""
    places = {f"{name}.test": place for name, place in PLACES.items()}
    with NameServer({**places, "refused.test": NOWHERE}, silent="silent.test") as names:
        started = Resolving(tmp_path_factory.mktemp("datagrams"), program(release), names.port)
        yield started
        started.process.terminate()
        started.process.wait()


def session(proxy: Resolving, name: str, port: int = PORT) -> socket.socket:
    """Return a socket that sends to a name's own address."""
    agent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    agent.connect((str(proxy.virtual[f"{name}.test"]), port))
    agent.settimeout(1)
    return agent


def answer(agent: socket.socket, content: bytes = b"ping") -> bytes:
    """Return the answer to a datagram, or nothing if none comes within a second, or the port is closed."""
    try:
        agent.send(content)
        return agent.recv(2**16)
    except (TimeoutError, ConnectionRefusedError):
        return b""


def test_each_address_leads_to_its_own_host(proxy: Resolving, hosts: Mapping[str, Host]) -> None:
    """To the same port of it, and answers of any size come back from there. Other ports are closed."""
    serve(proxy, ONE, TWO, {"dst": "one.test", "proto": "tcp", "port": PORT})
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
    """Through twenty changes of other names and other ports, a session keeps the port that it comes from."""
    serve(proxy, ONE, TWO)
    with session(proxy, "one") as going, session(proxy, "two") as staying:
        for agent in (going, staying):
            until(lambda: answer(agent))  # noqa: B023 - asked at once
        (source,) = set(hosts["two"].sources)
        for number in range(10):
            other = {"dst": f"other-{number}.test", "proto": "udp", "port": PORT}
            serve(proxy, ONE, {**TWO, "port": PORT}, other, "b.test")
            assert answer(staying)
            serve(proxy, ONE, TWO, {**other, "proto": "tcp"})
            assert answer(staying)
        (was,) = set(hosts["one"].sources)
        serve(proxy, TWO)
        until(lambda: not answer(going))
        heard = len(hosts["one"].sources)
        hosts["one"].send(b"late", was)
        going.settimeout(0.5)
        assert answer(going) == b""
        assert len(hosts["one"].sources) == heard
        assert answer(staying)
        assert set(hosts["two"].sources) == {source}
        serve(proxy, ONE, TWO)
        until(lambda: answer(going))
        assert answer(staying)
        assert set(hosts["two"].sources) == {source}


def test_a_changed_rule_is_another_rule(proxy: Resolving, hosts: Mapping[str, Host]) -> None:
    """With `allow_private` changed, or another host, no session goes on; new ones lead where the rule says."""
    serve(proxy, ONE)
    with session(proxy, "one") as agent:
        until(lambda: answer(agent))
        serve(proxy, {**ONE, "allow_private": True})
        until(lambda: answer(agent))
        assert len(set(hosts["one"].sources)) == 2
        assert not hosts["two"].sources


def test_a_session_that_leads_nowhere_is_on_record(proxy: Resolving) -> None:
    """Once, with the reason: a private address, none at all, or no answer about it."""
    serve(proxy, REFUSED, GONE, SILENT, ONE)

    def known() -> bool:
        with session(proxy, "refused") as agent:
            agent.send(b"ping")
            return any(each["reason"] == Reason.PRIVATE_ADDRESS for each in until(proxy.records, WRITTEN_WITHIN))

    until(known)  # what is looked up late is on record as a host without an address
    wanted = {
        "refused": Reason.PRIVATE_ADDRESS,
        "gone": Reason.NO_ADDRESS,
        "silent": Reason.NO_ADDRESS,
    }
    with ExitStack() as stack:
        agents = {name: stack.enter_context(session(proxy, name)) for name in wanted}
        for agent in agents.values():
            agent.send(b"ping")
        found: list[dict[str, Any]] = []

        def all_of_them() -> bool:
            found.extend(proxy.records())
            return len(found) == len(wanted)

        until(all_of_them, WRITTEN_WITHIN)
        assert {
            (each["name"], each["port"], each["protocol"], each["reason"], each["source"]) for each in found
        } == {
            (f"{name}.test", PORT, "udp", reason, "{}:{}".format(*agents[name].getsockname()))
            for name, reason in wanted.items()
        }
        for agent in agents.values():
            assert not answer(agent)
        assert not proxy.records()


def test_a_name_that_gets_an_address(tmp_path_factory: pytest.TempPathFactory, release: Release) -> None:
    """A session that led nowhere leads to the host from the next datagram on, although it is the same session."""
    with ExitStack() as stack:
        stack.enter_context(closing(Host("one", PLACES["one"], PORT)))
        names = stack.enter_context(NameServer(()))
        proxy = Resolving(tmp_path_factory.mktemp("late"), program(release), names.port)
        stack.callback(proxy.process.wait)
        stack.callback(proxy.process.terminate)
        serve(proxy, ONE)
        with session(proxy, "one") as agent:
            assert not answer(agent)
            names.move("one.test", PLACES["one"])
            until(lambda: answer(agent) == b"oneg")


def test_a_name_that_moves(tmp_path_factory: pytest.TempPathFactory, release: Release) -> None:
    """A new session leads to the new address, and those that there are go on where they were."""
    with ExitStack() as stack:
        hosts = {name: stack.enter_context(closing(Host(name, PLACES[name], PORT))) for name in PLACES}
        names = stack.enter_context(NameServer({"moves.test": PLACES["one"]}))
        proxy = Resolving(tmp_path_factory.mktemp("moves"), program(release), names.port)
        stack.callback(proxy.process.wait)
        stack.callback(proxy.process.terminate)
        serve(proxy, {"dst": "moves.test", "proto": "udp", "port": PORT})
        with session(proxy, "moves") as before:
            until(lambda: answer(before) == b"oneg")
            names.move("moves.test", PLACES["two"])

            def moved() -> bool:
                with session(proxy, "moves") as after:
                    return answer(after) == b"twog"

            until(moved)
            assert answer(before) == b"oneg"
        assert len(set(hosts["one"].sources)) > 0
