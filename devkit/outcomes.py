"""What becomes of requests: many side by side, and the filter chain to which Envoy leads each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from clawker_fw.rules.rule import Protocol
from devkit.envoy import HERE, Proxy
from devkit.hellos import client_hello


@dataclass(frozen=True, slots=True)
class Request:
    """What an agent does with a name, at one of the addresses at which Envoy listens."""

    name: str
    protocol: Protocol
    port: int
    at: IPv4Address = HERE


async def outcomes(proxy: Proxy, requests: Sequence[Request], at_once: int = 32) -> list[str]:
    """Return the chain for each request, or an empty string if it is refused. Many are made side by side."""
    room = asyncio.Semaphore(at_once)

    async def outcome(request: Request) -> str:
        async with room:
            if request.protocol is Protocol.UDP:
                return await _datagram(proxy.place(request.port, request.at))
            answer = _response if request.protocol is Protocol.HTTP else _everything
            return await _exchange(proxy.place(request.port, request.at), _content(request), answer)

    return await asyncio.gather(*map(outcome, requests))


def _content(request: Request) -> bytes:
    if request.protocol is Protocol.HTTPS:
        return client_hello(request.name.encode())
    if request.protocol is Protocol.HTTP:
        return f"GET / HTTP/1.1\r\nHost: {request.name}:2222\r\nConnection: close\r\n\r\n".encode()
    return b""


async def _everything(reader: asyncio.StreamReader) -> str:
    return (await reader.read()).decode()


async def _response(reader: asyncio.StreamReader) -> str:
    """Return the body of a response, or nothing if it is a refusal. Envoy keeps the connection for a second."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length:"))
    body = await reader.readexactly(int(length.partition(b":")[2]))
    return body.decode() if head.startswith(b"HTTP/1.1 200 ") else ""


async def _exchange(
    place: tuple[str, int], content: bytes, answer: Callable[[asyncio.StreamReader], Awaitable[str]]
) -> str:
    """Return what comes back, or nothing if the connection is refused or ended."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection(*place)
        writer.write(content)
        return await asyncio.wait_for(answer(reader), 10)
    except (ConnectionResetError, ConnectionRefusedError):
        return ""
    finally:
        if writer:
            writer.close()


class _Answer(asyncio.DatagramProtocol):
    """What comes back for a datagram: nothing if its port is closed."""

    def __init__(self) -> None:
        self.came: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _: object) -> None:
        self._set(data.decode())

    def error_received(self, _: Exception) -> None:
        self._set("")

    def _set(self, answer: str) -> None:
        if not self.came.done():
            self.came.set_result(answer)


async def _datagram(place: tuple[str, int]) -> str:
    sending, answer = await asyncio.get_running_loop().create_datagram_endpoint(_Answer, remote_addr=place)
    try:
        for _ in range(50):  # a listener that is about to go drops what is sent to it
            sending.sendto(b"?")
            if (await asyncio.wait([answer.came], timeout=0.2))[0]:
                break
        return answer.came.result()
    finally:
        sending.close()
