"""All attacks in groups: what is tried, what holds against it, and which further tests there are.

What is tried elsewhere is named here and not repeated.
"""

from devkit.attacks.addresses import ADDRESSES, BEHIND_NAMES
from devkit.attacks.attack import Group
from devkit.attacks.datagrams import DATAGRAMS
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
        (
            "tests/programs/test_coredns.py",
            "tests/attack/test_lookups.py",
            "tests/matrix/test_smoke.py",
            "go/internal/policy/handler_test.go",
        ),
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
        ("tests/programs/test_envoy.py", "tests/attack/test_names.py", "tests/attack/test_ends.py"),
    ),
    Group(
        "HTTP",
        "Hosts without a rule, two hosts, ambiguous hosts, the absolute form, CONNECT, TRACE, HTTP/2, redirects.",
        "A request is forwarded only if a rule allows its host on its port, and the forwarded request names only "
        "this host. The agent follows redirects itself, as new requests.",
        REQUESTS,
        ("tests/attack/test_enforcement.py", "tests/attack/test_unanswered.py"),
    ),
    Group(
        "Requests in inspected TLS",
        "Paths and methods without a rule, denied paths in many spellings, hosts other than the connection's, "
        "names of secrets.",
        "A request is forwarded only if a rule allows its path and method, to the connection's host, with the "
        "path in the form that was checked.",
        REQUESTS_IN_TLS,
        (
            "tests/programs/test_inspected.py",
            "tests/programs/test_git.py",
            "tests/programs/test_injected.py",
            "go/internal/signing/server_test.go",
        ),
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
        (
            "tests/programs/test_page.py",
            "tests/engine/test_page.py",
            "go/internal/page/server_test.go",
            "go/internal/page/store_test.go",
            "go/internal/kernel/limits_test.go",
        ),
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
        ("tests/attack/test_enforcement.py", "go/internal/kernel/network_test.go"),
    ),
    Group(
        "Names with a virtual address",
        "Other names, hosts and ports at the virtual address of a name.",
        "A virtual address leads to one host, on the ports of its rules, whatever the agent sends.",
        OPAQUE,
        ("tests/attack/test_enforcement.py", "tests/attack/test_virtual.py", "tests/engine/test_virtual.py"),
    ),
    Group(
        "Datagrams",
        "Datagrams to names that resolve elsewhere, and to other ports and addresses; removed rules.",
        "A virtual address leads to one host, on the ports of its rules. The kernel refuses private addresses, as "
        "for connections.",
        DATAGRAMS,
        ("tests/attack/test_enforcement.py", "tests/attack/test_datagrams.py", "tests/engine/test_virtual.py"),
    ),
    Group(
        "Addresses",
        "Connections and datagrams to the internet, the host and its gateway, the cloud's services, other "
        "networks; other ports of Envoy and CoreDNS; relays.",
        "Agents reach only Envoy, CoreDNS and other agents. Envoy and CoreDNS listen only on the ports of the "
        "rules and of DNS; their administration sockets are files inside their containers.",
        ADDRESSES,
        (
            "tests/attack/test_enforcement.py",
            "tests/engine/test_published.py",
            "go/internal/relay/listen_test.go",
            "tests/cli/test_strangers.py",
            "tests/engine/test_open_agents.py",
            "tests/matrix/test_smoke.py",
        ),
    ),
    Group(
        "Packets",
        "ICMP, QUIC and other datagrams, IPv6, raw packets.",
        "Only Envoy, CoreDNS and other agents answer. Without `NET_RAW`, an agent can't send raw packets.",
        PACKETS,
        ("tests/attack/test_enforcement.py", "go/internal/kernel/limits_test.go"),
    ),
    Group(
        "Agents that were started otherwise",
        "Agents with `NET_RAW` that forge packets, and take over addresses of Envoy, CoreDNS or neighbours; "
        "agents on a second network.",
        "Envoy and CoreDNS decide as for any other agent, and ignore packets from addresses outside the agent "
        "network. `drift` warns if another host answers for an address of Envoy or CoreDNS.",
        OTHERWISE,
        (
            "tests/attack/test_enforcement.py",
            "tests/engine/test_verdict.py",
            "tests/unit/test_watch.py",
            "go/internal/arp/holders_test.go",
        ),
        {
            "With `NET_RAW`, taking over the address of Envoy or CoreDNS from a neighbour": "Agents share an "
            "Ethernet network, and anyone on it can forge ARP. Without `NET_RAW`, an agent can't.",
        },
    ),
    Group(
        "Floods",
        "One agent takes all connections, queries, lookups, refusals and memory that it can get, for 30 s each. "
        "Meanwhile, another agent is measured.",
        "The other agent is served, and Envoy and CoreDNS keep running.",
        (),
        (
            "python -m bench fair",
            "tests/attack/test_limits.py",
            "tests/attack/test_upstream.py",
            "tests/attack/test_evidence.py",
            "go/internal/kernel/limits_test.go",
            "tests/attack/test_tracked.py",
            "tests/engine/test_published.py",
            "tests/attack/test_shared_origins.py",
            "go/internal/refusals/journal_test.go",
            "go/internal/policy/record_test.go",
            "tests/attack/test_lookups.py",
            "tests/attack/test_memory.py",
            "tests/attack/test_records.py",
            "tests/attack/test_watcher.py",
            "tests/engine/test_bad_days.py",
        ),
    ),
    Group(
        "Questions of `denials --ask`",
        "Names that are addresses, private, public suffixes, shell words, escapes or look-alikes; ten thousand "
        "names at once.",
        "The question is only about host names, once for each, without a lookup. Exactly the approved rule is "
        "applied.",
        (),
        ("tests/unit/test_questions.py", "tests/cli/test_asking.py"),
    ),
    Group(
        "Stopped containers",
        "Envoy or CoreDNS is stopped, restarted, or restarts with Docker.",
        "While one is missing, no name resolves, or nothing is forwarded. A refused host always stays refused.",
        (),
        ("tests/attack/test_enforcement.py", "tests/engine/test_bad_days.py", "tests/matrix/test_smoke.py"),
    ),
    Group(
        "Rules that are missing, corrupt or removed",
        "No rules; files that are unreadable or rejected by a program; rules removed while connections are open.",
        "No rules deny everything. An unusable file is never applied, and the earlier rules stay in force. "
        "Connections of a removed rule end.",
        (),
        (
            "tests/attack/test_enforcement.py",
            "tests/attack/test_ends.py",
            "tests/programs/test_coredns.py",
            "tests/engine/test_failures.py",
            "tests/engine/test_commit.py",
            "tests/cli/test_watch.py",
            "tests/engine/test_bad_days.py",
            "go/internal/hot/good_test.go",
        ),
    ),
    Group(
        "Every step of a replacement",
        "A `run` that fails or is killed at any of its calls, while agents are served; addresses of the other "
        "slot.",
        "At each step, allowed requests succeed, and a refused name stays refused at every address of Envoy.",
        (),
        (
            "tests/unit/test_sweep.py",
            "tests/engine/test_failures.py",
            "tests/matrix/test_smoke.py",
            "tests/attack/test_enforcement.py",
        ),
    ),
)
