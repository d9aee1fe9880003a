"""How much Envoy takes on at once. All bounds follow from the container's memory, never the other way round.

A connection costs at most what its buffers hold, so there may be as many as the memory has room for. What Envoy
uses beyond that, configuration and libraries, has its own share.
"""

_KIBIBYTE = 1024
_MEBIBYTE = 1024 * _KIBIBYTE

MEMORY_MEBIBYTES = 2048
"""The container's memory limit, at which the kernel would end Envoy."""

HEAP = MEMORY_MEBIBYTES * _MEBIBYTE * 85 // 100
"""The heap that Envoy may use: the kernel counts its program, stacks and socket buffers as well."""

BUFFER = 32 * _KIBIBYTE
"""How much is kept for one end of a connection that does not read: of a forwarded one, there are two."""

INNER_BUFFER, PIPE = 16 * _KIBIBYTE, 8 * _KIBIBYTE
"""The same for each end of the connection through which an HTTP request is forwarded, and for what is between."""

_BUFFERS = 9
"""Kept for a connection at most (measured: 252 KiB). The most is kept for a WebSocket whose ends both don't read:
in each direction what the buffers on its way hold, and what was read before they were full."""

A_CONNECTION = _BUFFERS * BUFFER
"""Bytes of memory that a connection costs at most."""

MOST_CONNECTIONS = (HEAP - 256 * _MEBIBYTE) // A_CONNECTION
"""From agents, at once."""

OWN_CONNECTIONS = 128
"""Of these, kept for CoreDNS and its replacement, which see whether Envoy refuses agents as it should."""

OPEN_FILES = 2 * MOST_CONNECTIONS + 8192
"""Each connection from an agent leads to one upstream; ports, sockets and files come on top."""

HEADERS_KIBIBYTES = 32
"""The most that the headers of a request may have: they are kept until they are complete."""

HELLO_SECONDS = 10
"""For how long a connection may take to say what it wants: a TLS hello, or the headers of a request."""

STREAMS = 100
"""Requests at once on one HTTP/2 connection (RFC 9113, section 6.5.2, recommends no fewer)."""

LOOKUPS = 50
"""Requests and connections of one share of agents, below one group of rules, that wait for a lookup at once.

The next ones fail. Those that wait for the same name count as well, but not those for a name that is known. The
engine's own resolver takes on 1,024 queries at once for a container, and gives up after 4 s. For a name that is
never answered, it is asked five times in 5 s: four of these queries wait at any time, so one share can use 200,
and 600 below rules of all three groups.
"""

CACHED_NAMES = 65536
"""Addresses of names that are known at once; for the next ones a request fails."""

KEPT_HEAP = 48 * _MEBIBYTE
"""Beyond so many bytes of heap, Envoy gives free memory back. Otherwise it keeps all that it has ever used."""

SESSION_SECONDS = 60
"""For how long datagrams of the same two ports belong together: an answer that comes later is lost.

The kernel counts sessions like connections (limits.go). It forgets one after 30 s without an answer, and after two
minutes with one, so Envoy has at most twice as many, of which each is one socket.
"""

DATAGRAM = 65507
"""The most octets of a datagram (RFC 768 over IPv4): Envoy drops longer ones, and by default those above 1,500."""

REUSE_SECONDS = 10
"""For how long a connection to an origin is kept for the next HTTP request of any agent."""
