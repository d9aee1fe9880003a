"""A host that speaks HTTP/2: it sends as much as anybody takes, and reads of some requests nothing."""

import socket
import ssl
from contextlib import suppress
from itertools import count

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from devkit.raw_origin import RawOrigin

LARGE, SINK = "/large", "/sink"
"""Paths: with an answer that never ends, and without any answer."""

ANSWER = b"what was asked for"
"""The answer to a whole request for any other path."""

_CHUNK = bytes(16 << 10)


class Http2Host(RawOrigin):
    """A host on a port. It ends with its context."""

    def __init__(self, port: int, certificate: str, key: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._context.set_alpn_protocols(["h2"])
        self.sent = 0
        """Bytes of answers that never end."""
        self.requests: list[tuple[int, str]] = []
        """The number of the connection and the path of each request, in their order."""
        self._numbers = count(1)
        self._open: set[socket.socket] = set()
        super().__init__(port, self._speak)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for connection in self._open.copy():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _speak(self, plain: socket.socket) -> None:
        with (
            suppress(h2.exceptions.ProtocolError),
            self._context.wrap_socket(plain, server_side=True) as connection,
        ):
            self._open.add(connection)
            try:
                _Connection(self, connection, next(self._numbers)).serve()
            finally:
                self._open.discard(connection)


class _Connection:
    def __init__(self, host: Http2Host, connection: ssl.SSLSocket, number: int) -> None:
        self._host, self._connection, self._number = host, connection, number
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._paths: dict[int, str] = {}
        self._endless: set[int] = set()
        self._ready: set[int] = set()

    def serve(self) -> None:
        self._http.initiate_connection()
        self._flush()
        while received := self._connection.recv(65536):
            for event in self._http.receive_data(received):
                self._handle(event)
            for stream in self._ready.copy():
                if self._http.local_flow_control_window(stream) >= len(ANSWER):
                    self._http.send_data(stream, ANSWER, end_stream=True)
                    self._ready.remove(stream)
            for stream in self._endless:
                self._fill(stream)
            self._flush()

    def _handle(self, event: h2.events.Event) -> None:
        stream = getattr(event, "stream_id", None) or 0
        if isinstance(event, h2.events.StreamReset):
            self._endless.discard(stream)
            self._ready.discard(stream)
        elif isinstance(event, h2.events.RequestReceived):
            self._paths[stream] = path = dict(event.headers or ())[b":path"].decode()
            self._host.requests.append((self._number, path))
            if path == LARGE:
                self._http.send_headers(stream, [(":status", "200")])
                self._endless.add(stream)
        elif self._paths.get(stream) in {LARGE, SINK, None}:
            pass
        elif isinstance(event, h2.events.DataReceived):
            self._http.acknowledge_received_data(event.flow_controlled_length or 0, stream)
        elif isinstance(event, h2.events.StreamEnded):
            self._http.send_headers(stream, [(":status", "200"), ("content-length", str(len(ANSWER)))])
            self._ready.add(stream)

    def _fill(self, stream: int) -> None:
        while room := min(self._http.local_flow_control_window(stream), len(_CHUNK)):
            self._http.send_data(stream, _CHUNK[:room])
            self._flush()
            self._host.sent += room

    def _flush(self) -> None:
        self._connection.sendall(self._http.data_to_send())
