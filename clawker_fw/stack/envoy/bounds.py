"""How much Envoy takes on at once. All bounds follow from the container's memory, never the other way round.

A connection costs at most what its buffers hold, so there may be as many as the memory has room for. What Envoy
uses beyond that, configuration and libraries, has its own share.
"""

from clawker_fw.model.stacks import Sibling
from clawker_fw.stack import container
from clawker_fw.stack.envoy.messages import Json

_KIBIBYTE = 1024
_MEBIBYTE = 1024 * _KIBIBYTE

MEMORY = 2048 * _MEBIBYTE
"""The container's memory limit in bytes, at which the kernel would end Envoy, on a machine that has enough."""

BUFFER = 32 * _KIBIBYTE
"""How much is kept for one end of a connection that does not read: of a forwarded one, there are two."""

INNER_BUFFER, PIPE = 16 * _KIBIBYTE, 8 * _KIBIBYTE
"""The same per end of the connection through which an HTTP request is forwarded, and for what is between."""

_BUFFERS = 13
"""Kept for a connection at most (measured: 367 to 387 KiB). The most is kept for a WebSocket in TLS that is looked
into, whose ends both don't read: in each direction what the buffers on its way hold, and what was read before they
were full, and at both ends the state of TLS, with records of 16 KiB. Smaller buffers inside, between Envoy's two
listeners, would save 10 KiB. A request over HTTP/2 to a host keeps up to 330 KiB, other connections up to 260."""

A_CONNECTION = _BUFFERS * BUFFER
"""Bytes of heap that a connection costs at most."""

AGENT_SOCKET = 64 * _KIBIBYTE
"""What the kernel keeps at most per direction of a connection from an agent, which is near."""

SOCKETS = 2 * AGENT_SOCKET + container.RECEIVED[Sibling.ENVOY] + container.SENT[Sibling.ENVOY]
"""Bytes that the kernel keeps of a connection at most: from the agent and to the host, if neither end reads."""

OWN_CONNECTIONS = 128
"""For CoreDNS and its replacement, which see whether Envoy refuses agents as it should. They hold nothing."""

_PROGRAM, _WORKER = 240 * _MEBIBYTE, 8 * _MEBIBYTE
"""Bytes of memory for Envoy's configuration, and for what each worker keeps of it (measured: 4.5 MB for 1,000
ports)."""

_FILES_OF_A_CONNECTION, _FILES_OF_A_WORKER = 2, 4096
"""Each connection from an agent leads to one upstream; ports, sockets and files come on top, and connections to
origins that are kept: no more than requests in `REUSE_SECONDS` (3,700 for a worker: docs/benchmarks.md)."""

_MOST_FILES = 1 << 20
"""The most that a kernel allows one process by default (`fs.nr_open`)."""

HEADERS_KIBIBYTES = 32
"""The most that the headers of a request may have: they are kept until they are complete."""

WAIT_SECONDS = 1
"""For how long a request waits that is beyond its agent's rate (`limits.requests_per_second`).

It is not refused, and is on record like any other. One request waits on each connection, and the kernel counts
these. So an agent has no more requests a second than its rate and its connections together. At 1,000 a second,
refused requests take a sixth of a processor and forwarded ones a quarter (measured).
"""

BURSTS = 4
"""An agent may make one in so many of a second's requests at once. All of them would delay others by 0.2 s."""

RESETS = 20
"""A connection ends if half of so many requests are reset within a second (HTTP/2 Rapid Reset, CVE-2023-44487).

A request that is reset does not wait. The kernel counts new connections.
"""

PACED_AGENTS = 4096
"""Agents whose rates are known at once, more than most networks have. Beyond that, silent ones begin anew."""

HELLO_SECONDS = 10
"""For how long a connection may take to say what it wants: a TLS hello, or the headers of a request."""

STREAMS = 1
"""Requests at once on one HTTP/2 connection, of an agent or to a host. The kernel counts connections, and what is
derived from their number counts on one request for each, as with HTTP/1. (RFC 9113 recommends 100.)
"""

UNBOUNDED = 1 << 20
"""No bound on what agents share, so that none could use it up for all.

Each connection of an agent leads to one origin, and those that are kept for the next request are kept for
`REUSE_SECONDS`. No more wait for a lookup than there are connections; `fwctl forward` bounds how many names are
looked up at once. The kernel counts the sessions of UDP, of which Envoy would allow 1,024 of each host and port.
"""

CACHED_NAMES = 1 << 18
"""Addresses of names that are known at once; for the next ones a request fails.

No agent reaches it. `fwctl forward` lets Envoy have 200 names of an agent below subtrees and 500 exact ones, and
tells apart 256 agents.
"""

KEPT_HEAP = 48 * _MEBIBYTE
"""Beyond so many bytes of heap, Envoy gives free memory back. Otherwise it keeps all that it has ever used.

It is read at start, so it can't follow the rules. Measured with 50,000 names, which take more, it costs nothing.
"""

SESSION_SECONDS = 60
"""For how long datagrams of the same two ports belong together: an answer that comes later is lost.

The kernel counts sessions like connections (limits.go). It forgets one after 30 s without an answer, and after two
minutes with one, so Envoy has at most twice as many, of which each is one socket.
"""

DATAGRAM = 65507
"""The most octets of a datagram (RFC 768 over IPv4): Envoy drops longer ones, and by default those above 1,500."""

REUSE_SECONDS = 1
"""For how long a connection to an origin is kept for the next HTTP request of the same agent.

So no more are kept than a worker forwards requests in that time. It is shorter than origins keep them, of which
the quickest end a connection after 2 to 5 s: a request that is sent just then has no answer.
"""

LONGEST_REUSE_SECONDS = 2
"""For how long a connection to an origin is used for further requests, however many there are.

It leads where the name led when it was opened, and nobody looks that up again.
"""

KEEPALIVE_SECONDS, KEEPALIVE_PROBES = 20, 3
"""After how many silent seconds the kernel asks an agent whether its connection is still there, and how often.

The kernel's count of an agent's connections (limits.go) forgets one that the agent has half closed after 60 s
without a packet, though Envoy may still have it. A probe is such a packet.
"""

BACKLOG = 4096
"""Connections that may wait at a listener until Envoy takes them: more than an agent may begin at once."""


def room(memory: int, processors: int) -> int:
    """Return for how many connections of agents there is room, which may be negative."""
    by_memory = (_used(memory) - _PROGRAM - processors * _WORKER) // (A_CONNECTION + SOCKETS)
    by_files = (_MOST_FILES - open_files(0, processors)) // _FILES_OF_A_CONNECTION
    return min(by_memory, by_files)


def heap(memory: int) -> int:
    """Return the heap that Envoy may use: what is left if the sockets of all connections are full."""
    return _used(memory) - (_used(memory) - _PROGRAM) * SOCKETS // (A_CONNECTION + SOCKETS)


def _used(memory: int) -> int:
    """Return what heap and sockets may use: the kernel counts the program, its stacks and `fwctl` as well."""
    return memory * 90 // 100


def open_files(connections: int, processors: int) -> int:
    """Return the limit of open files. Each worker has a socket of its own per port of each address."""
    return _FILES_OF_A_CONNECTION * (connections + OWN_CONNECTIONS) + processors * _FILES_OF_A_WORKER


def watched() -> Json:
    """Return what a listener for TCP has: room for a burst, small buffers, and a kernel that asks for agents.

    The kernel hands the options of a listening socket down to its connections (tcp(7)).
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
        # Numbers of 64 bits are text in canonical JSON.
        "socket_options": [
            {"level": str(level), "name": str(name), "int_value": str(value)} for level, name, value in options
        ],
    }
