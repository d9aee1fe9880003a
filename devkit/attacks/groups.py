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
        "DNS queries",
        "Tunnels through every record type, over UDP and TCP, at each address of CoreDNS; transfers, updates, "
        "other classes and operations; malformed messages; large answers.",
        "No query leaves CoreDNS. Only names with a rule have an address, and no other data. An answer is at most "
        "256 bytes longer than its query.",
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
        (
            "tests/programs/test_envoy.py::test_envoy_decides_as_the_policy_does",
            "tests/attack/test_names.py::test_what_is_looked_up_is_what_was_matched",
            "tests/attack/test_ends.py::test_connections_are_not_confused",
        ),
    ),
    Group(
        "HTTP",
        "Hosts without a rule, two hosts, ambiguous hosts, the absolute form, CONNECT, TRACE, HTTP/2, redirects.",
        "A request is forwarded only if a rule allows its host on its port, and the forwarded request names only "
        "this host. The agent follows redirects itself, as new requests.",
        REQUESTS,
        (
            f"{_ENFORCEMENT}test_the_origin_sees_the_request_as_the_agent_wrote_it",
            "tests/attack/test_unanswered.py::test_a_request_without_an_answer_is_on_record",
        ),
    ),
    Group(
        "Requests in inspected TLS",
        "Paths and methods without a rule, denied paths in many spellings, hosts other than the connection's, "
        "names of secrets.",
        "A request is forwarded only if a rule allows its path and method, to the connection's host, with the "
        "path in the form that was checked.",
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
            "tests/programs/test_page.py::test_the_page_is_told_who_asks",
            "tests/programs/test_page.py::test_what_can_be_read_in_two_ways_does_not_arrive",
            "tests/engine/test_page.py::test_an_agent_reads_its_own_refusals_alone",
            "tests/engine/test_page.py::test_who_gets_the_address_of_another_learns_nothing",
            "go/internal/page/server_test.go::TestHostileNames",
            "go/internal/page/store_test.go::TestBounds",
            "go/internal/kernel/limits_test.go::TestPrivatePlacesAreClosedToAgents",
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
        (
            f"{_ENFORCEMENT}test_what_private_names_lead_to_is_there",
            f"{_ENFORCEMENT}test_the_world_is_reached_though_a_private_address_is_offered_too",
            f"{_ENFORCEMENT}test_a_name_that_changes_between_check_and_connect",
            f"{_ENFORCEMENT}test_nothing_else_listens",
            "go/internal/kernel/network_test.go::TestSources",
        ),
    ),
    Group(
        "Names with a virtual address",
        "Other names, hosts and ports at the virtual address of a name.",
        "A virtual address leads to one host, on the ports of its rules, whatever the agent sends.",
        OPAQUE,
        (
            f"{_ENFORCEMENT}test_nobody_comes_in_by_the_way_out",
            "tests/attack/test_virtual.py::test_each_address_leads_to_its_own_host",
            "tests/engine/test_virtual.py::test_each_name_leads_to_its_own_host",
        ),
    ),
    Group(
        "Datagrams",
        "Datagrams to names that resolve elsewhere, and to other ports and addresses; removed rules.",
        "A virtual address leads to one host, on the ports of its rules. The kernel refuses private addresses, as "
        "for connections.",
        DATAGRAMS,
        (
            f"{_ENFORCEMENT}test_nobody_reaches_the_address_of_a_name_by_the_way_out",
            f"{_ENFORCEMENT}test_a_rule_for_datagrams_taken_away",
            "tests/attack/test_datagrams.py::test_a_removed_rule_ends_its_sessions_and_no_others",
            "tests/attack/test_datagrams.py::test_a_session_that_leads_nowhere_is_on_record",
        ),
    ),
    Group(
        "Addresses",
        "Connections and datagrams to the internet, the host and its gateway, the cloud's services, other "
        "networks; other ports of Envoy and CoreDNS; relays.",
        "Agents reach only Envoy, CoreDNS and other agents. Envoy and CoreDNS listen only on the ports of the "
        "rules and of DNS; their administration sockets are files inside their containers.",
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
        "Only Envoy, CoreDNS and other agents answer. Without `NET_RAW`, an agent can't send raw packets.",
        PACKETS,
        (
            f"{_ENFORCEMENT}test_no_ping_arrives",
            "go/internal/kernel/limits_test.go::TestOnlyTCPIsTracked",
            "go/internal/kernel/limits_test.go::TestSixIsDropped",
        ),
    ),
    Group(
        "Agents that were started otherwise",
        "Agents with `NET_RAW` that forge packets, and take over addresses of Envoy, CoreDNS or neighbours; "
        "agents on a second network.",
        "Envoy and CoreDNS decide as for any other agent, and ignore packets from addresses outside the agent "
        "network. `drift` warns if another host answers for an address of Envoy or CoreDNS.",
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
        "Questions of `denials --ask`",
        "Names that are addresses, private, public suffixes, shell words, escapes or look-alikes; ten thousand "
        "names at once.",
        "The question is only about host names, once for each, without a lookup. Exactly the approved rule is "
        "applied.",
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
        "Stopped containers",
        "Envoy or CoreDNS is stopped, restarted, or restarts with Docker.",
        "While one is missing, no name resolves, or nothing is forwarded. A refused host always stays refused.",
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
        "No rules; files that are unreadable or rejected by a program; rules removed while connections are open.",
        "No rules deny everything. An unusable file is never applied, and the earlier rules stay in force. "
        "Connections of a removed rule end.",
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
            "tests/cli/test_watch.py::test_an_emptied_settings_file_cuts_nobody",
            "tests/engine/test_bad_days.py::test_a_rule_is_taken_away_while_the_disk_is_full",
            "go/internal/hot/good_test.go::TestStartGoodFailsClosed",
        ),
    ),
    Group(
        "Every step of a replacement",
        "A `run` that fails or is killed at any of its calls, while agents are served; addresses of the other "
        "slot.",
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
