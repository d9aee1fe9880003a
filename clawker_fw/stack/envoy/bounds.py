"""Envoy's limits. All of them follow from the container's memory, never the other way round.

A connection costs at most the size of its buffers, so the memory limits the number of connections. Configuration
and libraries have their own share.
"""

from clawker_fw.model.stacks import Sibling
from clawker_fw.stack import container
from clawker_fw.stack.envoy.messages import Json

_KIBIBYTE = 1024
_MEBIBYTE = 1024 * _KIBIBYTE

MEMORY = 2048 * _MEBIBYTE
"""The container's memory limit in bytes on a host with enough memory. Beyond it, the kernel kills Envoy."""

BUFFER = 32 * _KIBIBYTE
"""The buffer for one side of a connection that does not read. A forwarded connection has two sides."""

INNER_BUFFER, PIPE = 16 * _KIBIBYTE, 8 * _KIBIBYTE
"""The same for each side of a connection through the internal listener, and for the buffer in between."""

_BUFFERS = 13
"""The most heap that a connection takes (measured: 367 to 387 KiB). An inspected WebSocket takes most if neither
side reads: in each direction the full buffers and the data that was read before they were full, and on both sides
the TLS state, with records of 16 KiB. Smaller buffers between Envoy's two listeners would save 10 KiB. A request
over HTTP/2 to a host takes up to 330 KiB, other connections up to 260."""

A_CONNECTION = _BUFFERS * BUFFER
"""The most heap that a connection takes, in bytes."""

AGENT_SOCKET = 64 * _KIBIBYTE
"""The kernel's buffer per direction of a connection from an agent, which is on the same host."""

SOCKETS = 2 * AGENT_SOCKET + container.RECEIVED[Sibling.ENVOY] + container.SENT[Sibling.ENVOY]
"""The most bytes that the kernel buffers for a connection if neither the agent nor the host reads."""

OWN_CONNECTIONS = 128
"""Connections of CoreDNS and its replacement, which test that Envoy refuses agents. They take little memory."""

_PROGRAM, _WORKER = 240 * _MEBIBYTE, 8 * _MEBIBYTE
"""Bytes for Envoy's configuration, and for every worker's copy of parts of it (measured: 4.5 MB for 1,000
ports)."""

_FILES_OF_A_CONNECTION, _FILES_OF_A_WORKER = 2, 4096
"""Open files in addition to an agent's connection and its upstream one: ports, sockets, files, and idle
connections to origins, at most as many as requests in `REUSE_SECONDS` (3,700 for a worker: docs/benchmarks.md)."""

_MOST_FILES = 1 << 20
"""The kernel's default limit for one process (`fs.nr_open`)."""

HEADERS_KIBIBYTES = 32
"""The size limit of a request's headers, which Envoy buffers until they are complete."""

WAIT_SECONDS = 1
"""The delay of a request beyond its agent's rate (`limits.requests_per_second`).

Delayed requests are not refused. Only one request waits on a connection, and the kernel limits connections. So an
agent has at most as many requests per second as its rate and its connections together. At 1,000 per second,
refused requests take a sixth of a processor and forwarded ones a quarter (measured).
"""

BURSTS = 4
"""This part of a second's requests may come at once. All of them at once would delay other agents by 0.2 s."""

RESETS = 20
"""If half of this many requests are reset within a second, the connection ends (Rapid Reset, CVE-2023-44487).

Reset requests are not delayed. The kernel limits new connections.
"""

PACED_AGENTS = 4096
"""How many agents' rates Envoy tracks, more than most networks have. Beyond that, it forgets inactive ones."""

HELLO_SECONDS = 10
"""How long a connection may take to send its TLS ClientHello or the headers of its request."""

STREAMS = 1
"""Concurrent requests on one HTTP/2 connection. The kernel limits connections, and the limits that are derived
from their number assume one request per connection, as with HTTP/1. (RFC 9113 recommends 100.)
"""

UNBOUNDED = 1 << 20
"""No limits on what agents share, because one agent could use them up.

An agent's connection has one upstream connection, and idle ones are kept for `REUSE_SECONDS`. A connection waits
for at most one lookup; `fwctl forward` limits concurrent lookups. The kernel limits UDP sessions, of which Envoy
would allow 1,024 per host and port.
"""

CACHED_NAMES = 1 << 18
"""How many names Envoy's cache holds. Requests for further names fail.

No agent reaches this limit: `fwctl forward` lets Envoy resolve at most 200 names below subtrees and 500 exact ones
per agent, for 256 agents.
"""

KEPT_HEAP = 48 * _MEBIBYTE
"""Beyond this heap size in bytes, Envoy returns free memory. Otherwise it would keep all memory that it ever used.

Envoy reads it at start, so it can't depend on the rules. It costs nothing (measured with 50,000 names, which take
more).
"""

SESSION_SECONDS = 60
"""How long a UDP session lives without datagrams. Later answers are lost.

The kernel limits sessions like connections (limits.go). It forgets a session after 30 s without an answer, or two
minutes after one. So Envoy has at most twice as many sessions, each with one socket.
"""

DATAGRAM = 65507
"""The size limit of a datagram in bytes (RFC 768 over IPv4). Envoy's default is 1,500; it drops longer ones."""

REUSE_SECONDS = 1
"""How long an idle connection to an origin is kept for the agent's next HTTP request.

It bounds idle connections to the requests that a worker forwards in this time. It is shorter than the idle
timeouts of origins, the shortest of which are 2 to 5 s: a request that is sent when the origin closes has no
answer.
"""

LONGEST_REUSE_SECONDS = 2
"""How long a connection to an origin is reused, however many requests there are.

Its address was looked up when it was opened, and is not looked up again.
"""

KEEPALIVE_SECONDS, KEEPALIVE_PROBES = 20, 3
"""The idle time before TCP keepalive probes to an agent, and their interval, in seconds.

The kernel's count of connections (limits.go) forgets a half-closed one after 60 s without a packet, although Envoy
may still have it. A probe is such a packet.
"""

BACKLOG = 4096
"""The backlog of a listener: more connections than an agent may open at once."""


def room(memory: int, processors: int) -> int:
    """Return how many connections of agents fit into the memory, which may be negative."""
    by_memory = (_used(memory) - _PROGRAM - processors * _WORKER) // (A_CONNECTION + SOCKETS)
    by_files = (_MOST_FILES - open_files(0, processors)) // _FILES_OF_A_CONNECTION
    return min(by_memory, by_files)


def heap(memory: int) -> int:
    """Return the heap that Envoy may use if the socket buffers of all connections are full."""
    return _used(memory) - (_used(memory) - _PROGRAM) * SOCKETS // (A_CONNECTION + SOCKETS)


def _used(memory: int) -> int:
    """Return the memory for heap and sockets, without the program, its stacks and `fwctl`."""
    return memory * 90 // 100


def open_files(connections: int, processors: int) -> int:
    """Return the limit of open files. Every worker has a socket per port and address."""
    return _FILES_OF_A_CONNECTION * (connections + OWN_CONNECTIONS) + processors * _FILES_OF_A_WORKER


def watched() -> Json:
    """Return the TCP options of a listener: its backlog, small buffers, and keepalive probes.

    Accepted connections inherit them from the listening socket (tcp(7)).
    """
    sol_socket, so_sndbuf, so_rcvbuf = 1, 7, 8
    tcp, so_keepalive, tcp_keepidle, tcp_keepintvl, tcp_keepcnt = 6, 9, 4, 5, 6
    options = (
        (sol_socket, so_sndbuf, AGENT_SOCKET // 2),  # the kernel doubles it (socket(7))
        (sol_socket, so_rcvbuf, AGENT_SOCKET // 2),
        (sol_socket, so_keepalive, 1),
        (tcp, tcp_keepidle, KEEPALIVE_SECONDS),
        (tcp, tcp_keepintvl, KEEPALIVE_SECONDS),
        (tcp, tcp_keepcnt, KEEPALIVE_PROBES),
    )
    return {
        "tcp_backlog_size": BACKLOG,
        # 64-bit numbers are strings in canonical JSON.
        "socket_options": [
            {"level": str(level), "name": str(name), "int_value": str(value)} for level, name, value in options
        ],
    }
