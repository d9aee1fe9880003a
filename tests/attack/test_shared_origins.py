"""Agents with requests to the same host: none blocks another, whatever it leaves unread."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import HERE, program
from devkit.http2_host import ANSWER, LARGE, SINK, Http2Host
from devkit.inspecting import PORT, Inspecting, certificate
from devkit.programs import OWN_LOOPBACK, free_port
from devkit.raw_origin import RawOrigin
from devkit.waiting import until

NAME, HTTP = "a.there.test", 80
ATTACKER, NEIGHBOUR = "127.0.0.2", "127.0.0.3"
STALLED, REQUESTS = 6, 8
_BODY = bytes(32 << 10)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Inspecting]:
    """A proxy that trusts one certificate, its own."""
    folder = tmp_path_factory.mktemp("shared")
    own = certificate(folder / "own", NAME)
    with (
        NameServer((NAME,), OWN_LOOPBACK) as names,
        Inspecting(folder, program(release), names.port, own, own[0]) as started,
    ):
        started.ports[HTTP] = free_port()
        yield started


@pytest.fixture
def host(proxy: Inspecting) -> Iterator[Http2Host]:
    """The host, which has the same certificate."""
    with Http2Host(PORT, f"{proxy.folder}/own/cert.pem", f"{proxy.folder}/own/key.pem") as started:
        yield started


def answered(proxy: Inspecting, agent: str, path: str, *over: str) -> bool:
    """Whether an agent gets an answer to a request with a body."""
    head = f"POST {path} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {len(_BODY)}\r\n\r\n"
    with proxy.connected(NAME, PORT, *over, source=agent) as connection:
        connection.settimeout(3)
        connection.sendall(head.encode() + _BODY)
        received = b""
        try:
            while not received.endswith(ANSWER) and (some := connection.recv(4096)):
                received += some
        except TimeoutError:
            return False
        return received.startswith(b"HTTP/1.1 200")


INSPECTING: tuple[dict[str, Any], ...] = (
    {"inspect": True},
    {"inspect": True, "insecure_skip_tls_verify": True},
    {"path_rules": [{"path": "/"}], "websocket": True, "allow_private": True},
)


@pytest.mark.parametrize("rule", INSPECTING)
@pytest.mark.parametrize("request_line", [f"GET {LARGE}", f"POST {SINK}"])
def test_what_one_agent_does_not_read(
    proxy: Inspecting, host: Http2Host, rule: dict[str, Any], request_line: str
) -> None:
    """An agent that reads no answer, and one whose body the host does not read, stop nobody else."""
    proxy.apply({"dst": NAME, **rule, "port": PORT})
    with ExitStack() as stack:
        for _ in range(STALLED):
            agent = stack.enter_context(proxy.connected(NAME, source=ATTACKER))
            agent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
            body = len(_BODY) * 100
            agent.sendall(f"{request_line} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {body}\r\n\r\n".encode())
            agent.settimeout(0.2)
            try:
                while request_line.startswith("POST"):
                    agent.sendall(_BODY)
            except TimeoutError:  # nobody reads more
                pass
        until(lambda: len(host.requests) == STALLED)
        sent: list[int] = []

        def stuck() -> bool:
            sent.append(host.sent)
            return len(sent) > 1 and sent[-2] == sent[-1]

        until(stuck, every=0.3)
        assert [answered(proxy, NEIGHBOUR, f"/{number}") for number in range(REQUESTS)] == [True] * REQUESTS


def test_no_connection_is_used_for_two_agents(proxy: Inspecting, host: Http2Host) -> None:
    """A host may identify a client by its connection, so connections are only reused for the same agent."""
    proxy.apply({"dst": NAME, "inspect": True, "port": PORT})
    agents = [f"127.0.0.{number}" for number in range(2, 6)] * 4
    assert all(answered(proxy, agent, f"/{agent}") for agent in agents)
    used = {path: {number for number, other in host.requests if other == path} for _, path in host.requests}
    assert sum(map(len, used.values())) == len(set().union(*used.values()))
    assert sum(map(len, used.values())) < len(agents)  # the control: connections are reused


def test_no_connection_is_used_for_two_agents_over_plain_http(proxy: Inspecting) -> None:
    """The same without TLS."""
    seen: list[list[bytes]] = []

    def answer(connection: socket.socket) -> None:
        seen.append(agents := [])
        while received := connection.recv(65536):
            agents.append(received.partition(b"x-agent: ")[2].split(b"\r\n")[0])
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    proxy.apply({"dst": NAME, "proto": "http", "port": HTTP})
    agents = [f"127.0.0.{number}" for number in range(2, 6)] * 4
    with RawOrigin(HTTP, answer):
        for agent in agents:
            place = (str(HERE), proxy.ports[HTTP])
            with socket.create_connection(place, 5, (agent, 0)) as connection:
                connection.sendall(f"GET / HTTP/1.1\r\nHost: {NAME}\r\nx-agent: {agent}\r\n\r\n".encode())
                assert connection.recv(12) == b"HTTP/1.1 200"
    assert [len(set(agents)) for agents in seen] == [1] * len(seen)
    assert len(seen) < len(agents)  # the control: connections are reused
