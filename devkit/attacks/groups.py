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

_ENFORCEMENT = "tests/attack/test_enforcement.py::"

GROUPS = (
    Group(
        "Questions to the resolver",
        "Tunnels by every type of record, over UDP and TCP, at each address of the resolver; transfers, updates, "
        "other classes and operations; octets that are no message; answers that are large.",
        "No question leaves the resolver. Only names with a rule have an address, and no other data; an answer "
        "is at most 256 octets longer than its question.",
        QUESTIONS,
        (
            "tests/programs/test_coredns.py::test_coredns_answers_what_the_policy_resolves",
            "tests/programs/test_coredns.py::test_an_answer_is_hardly_longer_than_its_question",
            "tests/programs/test_coredns.py::test_odd_names_are_refused",
            "tests/attack/test_lookups.py::test_no_search_domain",
            "tests/matrix/test_smoke.py::test_a_container_that_is_called_like_a_host",
            "go/internal/policy/handler_test.go::TestServeDNSOperations",
        ),
    ),
    Group(
        "Other resolvers",
        "DNS over HTTPS and over TLS: in the internet, through Envoy, at the siblings.",
        "They are hosts like any other: what no rule allows is not reached.",
        RESOLVERS,
    ),
    Group(
        "TLS",
        "Server names without a rule, that differ from what is asked for, that are no names, in pieces, hidden.",
        "A connection is forwarded if a rule allows its server name on its port, to where this name leads.",
        SERVER_NAMES,
        (
            "tests/programs/test_envoy.py::test_envoy_decides_as_the_policy_does",
            "tests/attack/test_names.py::test_what_is_looked_up_is_what_was_matched",
            "tests/attack/test_ends.py::test_connections_are_not_confused",
        ),
    ),
    Group(
        "HTTP",
        "Hosts without a rule, two hosts, hosts that can be read in two ways, the absolute form, CONNECT, TRACE, "
        "HTTP/2, redirects.",
        "A request is forwarded if a rule allows its host on its port, and what is forwarded names this host and "
        "no other. Redirects are for the agent to follow, like any other request.",
        REQUESTS,
        (
            f"{_ENFORCEMENT}test_the_origin_sees_the_request_as_the_agent_wrote_it",
            "tests/attack/test_unanswered.py::test_a_request_without_an_answer_is_on_record",
        ),
    ),
    Group(
        "Requests in inspected TLS",
        "Paths and methods without a rule, denied paths in many spellings, hosts that TLS has not named, names of "
        "secrets.",
        "A request is forwarded if a rule allows its path and method, to the host that TLS has named, which gets "
        "the path in the form in which it was judged.",
        REQUESTS_IN_TLS,
        (
            "tests/programs/test_inspected.py::test_envoy_judges_requests_as_the_policy_does",
            "tests/programs/test_git.py::test_other_repositories_are_refused",
            "tests/programs/test_injected.py::test_it_goes_nowhere_else",
            "go/internal/signing/server_test.go::TestStream",
        ),
    ),
    Group(
        "One HTTP request behind another",
        "A second request within what may be the body of the first.",
        "Both are seen, or the connection ends: no request reaches a host for which it was not checked.",
        BEHIND,
    ),
    Group(
        "The page about refusals",
        "Other agents' addresses in headers and in the query; other methods and paths; one request behind "
        "another; the helper that knows the other half.",
        "An agent reads what was refused to the address that it has connected from, or nothing. The name leads to "
        "this page on port 80 and nowhere else.",
        READING,
        (
            "tests/programs/test_page.py::test_the_page_is_told_who_asks",
            "tests/programs/test_page.py::test_what_can_be_read_in_two_ways_does_not_arrive",
            "tests/engine/test_page.py::test_an_agent_reads_its_own_refusals_alone",
            "tests/engine/test_page.py::test_who_gets_the_address_of_another_learns_nothing",
            "go/internal/page/server_test.go::TestHostileNames",
            "go/internal/page/store_test.go::TestBounds",
            "go/internal/kernel/limits_test.go::TestAPrivatePortIsClosedToAgents",
        ),
    ),
    Group(
        "Addresses instead of names",
        "Every way to write an address, as a question, as a server name, as a host.",
        "No rule is for an address: each is a name that no rule allows, or no name.",
        LITERALS,
    ),
    Group(
        "Allowed names that lead elsewhere",
        "Names that lead to private addresses, to the host, to the siblings, to agents; several addresses, "
        "aliases, IPv6, and answers that change between check and connect.",
        "The kernel refuses each such address when it is connected to. For 0.0.0.0 it takes Envoy's own source "
        "address, where nobody listens.",
        BEHIND_NAMES,
        (
            f"{_ENFORCEMENT}test_what_private_names_lead_to_is_there",
            f"{_ENFORCEMENT}test_the_world_is_reached_though_a_private_address_is_offered_too",
            f"{_ENFORCEMENT}test_a_name_that_changes_between_check_and_connect",
            f"{_ENFORCEMENT}test_nothing_else_listens",
            "go/internal/kernel/network_test.go::TestGuardedSource",
            "go/internal/kernel/network_test.go::TestExemptSource",
        ),
    ),
    Group(
        "Names with an address of their own",
        "Other names, hosts and ports at the address of a name that is forwarded as it is.",
        "An address leads to one host, on the ports of its rules, whatever is sent.",
        OPAQUE,
        (
            f"{_ENFORCEMENT}test_nobody_comes_in_by_the_way_out",
            "tests/attack/test_virtual.py::test_each_address_leads_to_its_own_host",
            "tests/engine/test_virtual.py::test_each_name_leads_to_its_own_host",
        ),
    ),
    Group(
        "Datagrams",
        "Datagrams to names that lead elsewhere, to other ports and addresses; rules that are taken away.",
        "An address leads to one host, on the ports of its rules. The kernel refuses private addresses, as for "
        "connections.",
        DATAGRAMS,
        (
            f"{_ENFORCEMENT}test_nobody_reaches_the_address_of_a_name_by_the_way_out",
            f"{_ENFORCEMENT}test_a_rule_for_datagrams_taken_away",
            "tests/attack/test_datagrams.py::test_a_removed_rule_ends_its_sessions_and_no_others",
            "tests/attack/test_datagrams.py::test_a_session_that_leads_nowhere_is_on_record",
            "tests/engine/test_virtual.py::test_sessions_over_udp",
        ),
    ),
    Group(
        "Addresses",
        "Connections and datagrams to addresses: the internet, the host and its gateway, the cloud's services, "
        "other networks; other ports of the siblings, for administration, for probes; relays.",
        "There is no way but to the siblings and to other agents. The siblings listen on the ports of the rules "
        "and of DNS; their sockets for administration and probes are files in their containers.",
        ADDRESSES,
        (
            f"{_ENFORCEMENT}test_agents_have_no_other_way_out",
            f"{_ENFORCEMENT}test_nobody_comes_in_by_the_way_out",
            f"{_ENFORCEMENT}test_nothing_else_listens",
            f"{_ENFORCEMENT}test_a_sibling_is_no_router",
            f"{_ENFORCEMENT}test_privileges_are_gone",
            f"{_ENFORCEMENT}test_nobody_else_administers_envoy",
            "tests/engine/test_published.py::test_a_relay_carries_nothing_outwards",
            "tests/engine/test_published.py::test_relays_are_kept_apart",
            "go/internal/relay/listen_test.go::TestOnlyThePublishingNetworkConnects",
            "go/internal/relay/listen_test.go::TestARelayIsKeptApart",
            "tests/cli/test_strangers.py::test_an_image_with_our_labels_is_in_nobody_s_way",
            "tests/engine/test_open_agents.py::test_whoever_shares_something_of_a_sibling_is_open",
            "tests/matrix/test_smoke.py::test_no_other_way_out",
            f"{_ENFORCEMENT}test_what_agents_broadcast",
        ),
    ),
    Group(
        "Packets",
        "ICMP, QUIC and other datagrams, IPv6, raw packets.",
        "Nothing but the siblings and other agents answers, and without `NET_RAW` no raw packet is sent.",
        PACKETS,
        (
            f"{_ENFORCEMENT}test_no_ping_arrives",
            "go/internal/kernel/limits_test.go::TestOnlyTCPIsTracked",
            "go/internal/kernel/limits_test.go::TestSixIsDropped",
        ),
    ),
    Group(
        "Agents that were started otherwise",
        "Agents with `NET_RAW`, which send what the kernel would not, and take over addresses of the siblings or "
        "of neighbours; agents on a second network.",
        "The siblings decide as for any other agent, and ignore packets from addresses outside of the agents' "
        "network. `drift` warns if somebody else answers for the address of a sibling when that asks.",
        OTHERWISE,
        (
            f"{_ENFORCEMENT}test_a_host_that_does_not_check_sources_hears_more",
            f"{_ENFORCEMENT}test_a_false_source_is_ignored",
            f"{_ENFORCEMENT}test_a_forger_takes_an_address_over_unseen",
            "tests/engine/test_verdict.py::test_a_spoofer_can_accuse_nobody",
            "tests/unit/test_watch.py::test_an_agent_with_an_address_of_ours_is_taken_off",
            "go/internal/arp/holders_test.go::TestOthersWhoHaveOurAddress",
        ),
        {
            "With `NET_RAW`, the address of a sibling, taken over from a neighbour": "Agents share an Ethernet "
            "network, on which ARP believes everybody. Without `NET_RAW` no agent can forge such a packet.",
        },
    ),
    Group(
        "Floods",
        "One agent takes all the connections, questions, lookups, refusals and memory that it can get, for 30 s "
        "each, while another one is measured.",
        "The other agent is served, and the siblings bear it.",
        (),
        (
            "python -m bench fair",
            "tests/attack/test_limits.py::test_connections",
            "tests/attack/test_limits.py::test_resolver_connections",
            "tests/attack/test_limits.py::test_queries",
            "tests/attack/test_limits.py::test_neighbours",
            "tests/attack/test_limits.py::test_what_the_kernel_counts_for_a_user",
            "tests/attack/test_limits.py::test_all_watches_of_a_user",
            "tests/attack/test_upstream.py::test_requests_at_once_on_one_connection",
            "tests/attack/test_upstream.py::test_every_connection_is_watched",
            "tests/attack/test_evidence.py::test_many_requests_on_each_connection",
            "tests/attack/test_evidence.py::test_every_refusal_is_told_of",
            "tests/attack/test_evidence.py::test_a_flood_of_long_requests_is_told_of",
            "go/internal/kernel/limits_test.go::TestHalfClosedConnectionsCount",
            "go/internal/kernel/limits_test.go::TestHalfClosedConnectionsThatAreNotReadCount",
            "go/internal/kernel/limits_test.go::TestEndedConnectionsAreForgotten",
            "tests/attack/test_tracked.py::test_what_is_bridged_is_not_tracked",
            "tests/engine/test_published.py::test_no_published_port_has_the_kernel_track_what_is_bridged",
            "tests/attack/test_shared_origins.py::test_what_one_agent_does_not_read",
            "tests/attack/test_shared_origins.py::test_no_connection_is_used_for_two_agents",
            "tests/attack/test_shared_origins.py::test_no_connection_is_used_for_two_agents_over_plain_http",
            "go/internal/refusals/journal_test.go::TestAReaderThatStalls",
            "go/internal/policy/record_test.go::TestAReaderThatStalls",
            "tests/attack/test_lookups.py::test_one_agent_s_lookups_are_in_nobody_else_s_way",
            "tests/attack/test_lookups.py::test_names_of_exact_rules_within_a_subtree",
            "tests/attack/test_memory.py::test_a_download_that_is_not_read",
            "tests/attack/test_memory.py::test_a_request_in_inspected_tls_to_a_host_with_http2",
            "tests/attack/test_memory.py::test_headers_that_never_end",
            "tests/attack/test_records.py::test_a_flood_leaves_room_for_others",
            "tests/attack/test_watcher.py::test_nothing_that_an_agent_sends_makes_a_watcher_act",
            "tests/engine/test_bad_days.py::test_refusals_after_a_full_disk_are_on_record",
        ),
    ),
    Group(
        "Questions to a person",
        "Names that are addresses, private, anybody's, a shell's words, escapes, in letters that look alike; ten "
        "thousand of them at once.",
        "A person is asked about host names alone, once for each, and nothing is looked up for that. What is "
        "applied is just what was asked.",
        (),
        (
            "tests/unit/test_questions.py::test_names_that_nobody_is_asked_about",
            "tests/unit/test_questions.py::test_international_names_in_both_forms",
            "tests/unit/test_questions.py::test_what_is_approved_is_what_is_applied",
            "tests/cli/test_asking.py::test_ten_thousand_names_hide_nothing",
            "tests/cli/test_asking.py::test_what_is_typed_too_early_is_no_answer",
            "tests/cli/test_asking.py::test_whatever_agents_name",
        ),
    ),
    Group(
        "Stopped siblings",
        "Each sibling is stopped, restarted, or restarts with the engine.",
        "While one is missing, no name resolves, or nothing is forwarded. What no rule allows is always refused.",
        (),
        (
            f"{_ENFORCEMENT}test_a_stopped_sibling_lets_nothing_through",
            "tests/engine/test_bad_days.py::test_an_engine_that_restarts_in_the_middle",
            "tests/matrix/test_smoke.py::test_restarts_need_nobody",
            "tests/matrix/test_smoke.py::test_engine_restart_needs_nobody",
        ),
    ),
    Group(
        "Rules that are missing, corrupt or removed",
        "No rules; files that can't be read or that a program refuses; rules that end while connections are open.",
        "No rules deny everything. What can't be used is never applied, and the rules before it stay in force. "
        "What a removed rule allowed ends.",
        (),
        (
            f"{_ENFORCEMENT}test_no_rules_denies_everything",
            f"{_ENFORCEMENT}test_a_rule_taken_away_ends_its_connections",
            "tests/attack/test_ends.py::test_a_removed_rule_ends_what_it_allowed",
            "tests/programs/test_coredns.py::test_a_list_that_cannot_be_used_leaves_the_old_one_in_force",
            "tests/programs/test_coredns.py::test_a_missing_list_leaves_the_old_one_in_force",
            "tests/engine/test_failures.py::test_a_refused_hot_file_keeps_the_old_rules",
            "tests/engine/test_commit.py::test_a_file_that_ends_the_proxy_is_no_outage",
            "tests/engine/test_commit.py::test_what_was_put_into_a_stopped_resolver_is_never_served",
            "tests/engine/test_commit.py::test_a_resolver_without_anything_proven_does_not_start",
            "tests/engine/test_settings.py::test_an_emptied_file_cuts_nobody",
            "tests/engine/test_bad_days.py::test_a_rule_is_taken_away_while_the_disk_is_full",
            "go/internal/hot/good_test.go::TestStartGoodFailsClosed",
        ),
    ),
    Group(
        "Every step of a replacement",
        "A `run` that ends at any of its calls, or is killed, while agents are served; the other slot's "
        "addresses.",
        "At each step, allowed requests succeed, and a refused name stays refused at every address of Envoy.",
        (),
        (
            "tests/unit/test_sweep.py::test_a_run_that_ends_at_any_call_is_finished_by_the_next",
            "tests/engine/test_failures.py::test_a_run_that_is_killed_is_finished_by_the_next",
            "tests/engine/test_failures.py::test_a_release_that_does_not_work_is_taken_back",
            "tests/matrix/test_smoke.py::test_replacement_is_not_noticed",
            f"{_ENFORCEMENT}test_the_other_slot_decides_alike",
        ),
    ),
)
