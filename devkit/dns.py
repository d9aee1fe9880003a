"""A DNS client for many queries at once, including ones that no library would send (RFC 1035, section 4)."""

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Self

_HEADER = struct.Struct(">HHHHHH")
_TIMEOUT = 5.0
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, parsed as far as tests need it."""

    message: bytes

    @property
    def code(self) -> int:
        return int(self.message[3] & 15)

    @property
    def name(self) -> bytes:
        return self.message[12 : _labels(self.message)[1]]

    @property
    def addresses(self) -> tuple[str, ...]:
        """The address, if the only answer is an A record."""
        return (str(IPv4Address(self.message[-4:])),) if self.message[6:8] == b"\0\1" else ()

    @property
    def ttl(self) -> int:
        """The TTL of the first record in seconds."""
        record = _labels(self.message)[1] + 4
        if self.message[record] < 0xC0:  # noqa: PLR2004 - a name in full, not a pointer to one
            _, record = _labels(self.message, record)
        else:
            record += 2
        return int.from_bytes(self.message[record + 4 : record + 8], "big")


def query(
    name: str | Sequence[bytes], *, kind: int = 1, class_: int = 1, operation: int = 0, edns: bool = False
) -> bytes:
    """Return a query for a name, or for labels with arbitrary octets."""
    labels = [label.encode() for label in name.split(".")] if isinstance(name, str) else name
    question = b"".join(bytes([len(label)]) + label for label in labels) + b"\0" + struct.pack(">HH", kind, class_)
    extra = b"\0" + struct.pack(">HHIH", 41, 4096, 0, 0) if edns else b""
    number = next(_NUMBERS) & 0xFFFF
    return _HEADER.pack(number, 0x0100 | operation << 11, 1, 0, 0, int(edns)) + question + extra


class Resolver:
    """A client of one resolver, with one socket."""

    def __init__(self, address: str, port: int) -> None:
        self._place = (address, port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(_TIMEOUT)
        self._socket.connect(self._place)

    def ask(self, message: bytes, *, tcp: bool = False) -> Answer:
        if tcp:
            with socket.create_connection(self._place, timeout=_TIMEOUT) as connection:
                connection.sendall(struct.pack(">H", len(message)) + message)
                return Answer(connection.recv(4096)[2:])
        self._socket.send(message)
        while True:
            reply = self._socket.recv(4096)
            if reply[:2] == message[:2]:
                return Answer(reply)

    def ask_all(self, names: Sequence[str]) -> list[Answer]:
        return [self.ask(query(name)) for name in names]


class NameServer:
    """A name server on loopback that knows some names. It keeps every question as its labels, byte for byte."""

    def __init__(
        self,
        names: Sequence[str] | Mapping[str, str] = (),
        address: str = "127.0.0.1",
        silent: str = "",
        slow: Mapping[bytes, float] = MappingProxyType({}),
        ttl: int = 5,
    ) -> None:
        """Listen on a free port. `names` says where each name is; the default is `address`.

        Names below `silent` get no answer. `slow` has delays by name in lower case. Times are in seconds.
        """
        self.ttl = ttl
        self._slow = slow
        self._silent = tuple(label.encode() for label in silent.split(".")) if silent else ()
        self.asked: list[tuple[bytes, ...]] = []
        places = names if isinstance(names, Mapping) else dict.fromkeys(names, address)
        self._names: dict[tuple[bytes, ...], bytes] = {}
        for name, place in places.items():
            self.move(name, place)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # not connected, which wakes it all the same
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def move(self, name: str, place: str) -> None:
        self._names[tuple(label.encode() for label in name.split("."))] = IPv4Address(place).packed

    def _serve(self) -> None:
        while True:
            try:
                message, sender = self._socket.recvfrom(4096)
            except OSError:
                return
            if not message:
                return  # shut down
            labels, end = _labels(message)
            self.asked.append(labels)
            if self._silent and labels[-len(self._silent) :] == self._silent:
                continue
            there = self._names.get(tuple(label.lower() for label in labels))
            (kind,) = struct.unpack_from(">H", message, end)
            answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, self.ttl, 4) + there if there and kind == 1 else b""
            header = _HEADER.pack(
                int.from_bytes(message[:2], "big"), 0x8180 | (0 if there else 3), 1, int(bool(answer)), 0, 0
            )
            seconds = self._slow.get(b".".join(labels).lower(), 0)
            self._answer(header + message[12 : end + 4] + answer, sender, seconds)

    def _answer(self, message: bytes, to: tuple[str, int], seconds: float) -> None:
        if not seconds:
            with contextlib.suppress(OSError):  # shut down before the time has come
                self._socket.sendto(message, to)
            return
        later = threading.Timer(seconds, self._answer, (message, to, 0))
        later.daemon = True
        later.start()


def _labels(message: bytes, position: int = 12) -> tuple[tuple[bytes, ...], int]:
    """Return the labels of a name, by default that of the question, and where it ends."""
    labels = []
    while length := message[position]:
        labels.append(message[position + 1 : position + 1 + length])
        position += length + 1
    return tuple(labels), position + 1
