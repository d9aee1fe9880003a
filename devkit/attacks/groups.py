"""All attacks in groups: what is tried, and what holds against it. Groups without rows have tests of their own."""

from devkit.attacks.addresses import ADDRESSES, BEHIND_NAMES
from devkit.attacks.attack import Group
from devkit.attacks.datagrams import DATAGRAMS
from devkit.attacks.floods import CROWDS, FLOODS
from devkit.attacks.inspected import REQUESTS_IN_TLS
from devkit.attacks.literals import LITERALS
from devkit.attacks.names import QUESTIONS, SERVER_NAMES
from devkit.attacks.opaque import OPAQUE
from devkit.attacks.packets import OTHERWISE, PACKETS
from devkit.attacks.page import READING
from devkit.attacks.requests import BEHIND, REQUESTS
from devkit.attacks.resolvers import RESOLVERS

GROUPS = (
    Group(
        "DNS queries",
        "Tunnels through every record type, over UDP and TCP, at each address of CoreDNS; transfers, updates, "
        "other classes and operations; malformed messages; large answers.",
        "No query leaves CoreDNS. Only names with a rule have an address, and no other data. An answer is at most "
        "256 bytes longer than its query.",
        QUESTIONS,
    ),
    Group(
        "Other resolvers",
        "DNS over HTTPS and over TLS: on the internet, through Envoy, at Envoy and CoreDNS.",
        "They are hosts like any other, and need a rule.",
        RESOLVERS,
    ),
    Group(
        "TLS",
        "Server names that have no rule, differ from the requested name, are invalid, come in fragments or are "
        "hidden.",
        "A connection is forwarded only if a rule allows its server name on its port, and only to the host of "
        "that name.",
        SERVER_NAMES,
    ),
    Group(
        "HTTP",
        "Hosts without a rule, two hosts, ambiguous hosts, the absolute form, CONNECT, TRACE, HTTP/2, redirects.",
        "A request is forwarded only if a rule allows its host on its port, and the forwarded request names only "
        "this host. The agent follows redirects itself, as new requests.",
        REQUESTS,
    ),
    Group(
        "Requests in inspected TLS",
        "Paths and methods without a rule, denied paths in many spellings, hosts other than the connection's, "
        "names of secrets.",
        "A request is forwarded only if a rule allows its path and method, to the connection's host, with the "
        "path in the form that was checked.",
        REQUESTS_IN_TLS,
    ),
    Group(
        "One HTTP request behind another",
        "A second request within a possible body of the first.",
        "Envoy checks both, or the connection ends.",
        BEHIND,
    ),
    Group(
        "The page about refusals",
        "Other agents' addresses in headers and queries; other methods and paths; one request behind another; the "
        "helper that serves CoreDNS's part.",
        "An agent reads only refusals of the address from which it connected. The name leads only to this page, "
        "on port 80.",
        READING,
    ),
    Group(
        "Addresses instead of names",
        "Every spelling of an address, in DNS queries, server names and `Host`.",
        "Each is a name without a rule, or an invalid name.",
        LITERALS,
    ),
    Group(
        "Allowed names that lead elsewhere",
        "Names that resolve to private addresses, the host, Envoy, CoreDNS or agents; several addresses, aliases, "
        "IPv6; answers that change between check and connection.",
        "The kernel refuses each of these addresses at the time of the connection. 0.0.0.0 becomes Envoy's own "
        "source address, where nothing listens.",
        BEHIND_NAMES,
    ),
    Group(
        "Names with a virtual address",
        "Other names, hosts and ports at the virtual address of a name.",
        "A virtual address leads to one host, on the ports of its rules, whatever the agent sends.",
        OPAQUE,
    ),
    Group(
        "Datagrams",
        "Datagrams to names that resolve elsewhere, and to other ports and addresses; removed rules.",
        "A virtual address leads to one host, on the ports of its rules. The kernel refuses private addresses, as "
        "for connections.",
        DATAGRAMS,
    ),
    Group(
        "Addresses",
        "Connections and datagrams to the internet, the host and its gateway, the cloud's services, other "
        "networks; other ports of Envoy and CoreDNS; relays.",
        "Agents reach only Envoy, CoreDNS and other agents. Envoy and CoreDNS listen only on the ports of the "
        "rules and of DNS; their administration sockets are files inside their containers.",
        ADDRESSES,
    ),
    Group(
        "Packets",
        "ICMP, QUIC and other datagrams, IPv6, raw packets.",
        "Only Envoy, CoreDNS and other agents answer. Without `NET_RAW`, an agent can't send raw packets.",
        PACKETS,
    ),
    Group(
        "Agents that were started otherwise",
        "Agents with `NET_RAW` that forge packets, and take over addresses of Envoy, CoreDNS or neighbours; "
        "agents on a second network.",
        "Envoy and CoreDNS decide as for any other agent, and ignore packets from addresses outside the agent "
        "network. `drift` warns if another host answers for an address of Envoy or CoreDNS.",
        OTHERWISE,
        unstopped={
            "With `NET_RAW`, taking over the address of Envoy or CoreDNS from a neighbour": "Agents share an "
            "Ethernet network, and anyone on it can forge ARP. Without `NET_RAW`, an agent can't.",
        },
    ),
    Group(
        "Floods",
        "One agent, or eight at once, take all connections, queries, lookups, refusals and memory that they can "
        "get, for 30 s each. Meanwhile, another agent is measured.",
        "The other agent is served, its refusals are on record, and Envoy and CoreDNS keep running.",
        floods=(*FLOODS, *CROWDS),
    ),
    Group(
        "Other groups",
        "An agent connects to the Envoy and the agents of another group, asks for the hosts of its rules, floods "
        "its own Envoy, or makes it crash.",
        "Groups share no network, no container and no rules. The agents of other groups are served meanwhile.",
    ),
    Group(
        "Observing",
        "While a stack is observed, and after the end: denied, private and plain addresses, other protocols and "
        "ports; a flood of invented names; connections that are still open at the end.",
        "Only what no rule names passes, over HTTP and TLS to public hosts, and all of it is on record. An agent "
        "makes no more lookups than its share. Within a second of the end, no host is reached.",
    ),
    Group(
        "Questions of `denials --ask`",
        "Names that are addresses, private, public suffixes, shell words, escapes or look-alikes; ten thousand "
        "names at once.",
        "The question is only about host names, once for each, without a lookup. Exactly the approved rule is "
        "applied.",
    ),
    Group(
        "Stopped containers",
        "Envoy or CoreDNS is stopped, restarted, or restarts with Docker.",
        "While one is missing, no name resolves, or nothing is forwarded. A refused host always stays refused.",
    ),
    Group(
        "Rules that are missing, corrupt or removed",
        "No rules; files that are unreadable or rejected by a program; rules removed while connections are open.",
        "No rules deny everything. An unusable file is never applied, and the earlier rules stay in force. "
        "Connections of a removed rule end.",
    ),
    Group(
        "Every step of a replacement",
        "A `run` that fails or is killed at any of its calls, while agents are served; addresses of the other "
        "slot.",
        "At each step, allowed requests succeed, and a refused name stays refused at every address of Envoy.",
    ),
)
