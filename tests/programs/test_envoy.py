"""The rendered listeners in the real Envoy on loopback, compared with the policy."""

import http.client
import json
import random
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from clawker_fw.rules.policy import Policy, PolicyDecision
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.envoy import chains
from clawker_fw.stack.envoy.messages import TYPES, extension, socket, stdout
from clawker_fw.stack.envoy.sibling import DRAIN_SECONDS, LOG_LEVELS
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import HERE, PROVEN, Loading, Proxy, Request, Resolving, Running, program, shipped
from devkit.programs import MANY_PORTS, free_port
from devkit.stacks import rule_set
from devkit.strategies import CONNECTIONS, names_near, rule_sets
from devkit.waiting import until
from tests.programs.observed import observed_rules


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Proxy]:
    """The proxy, for all tests of this module."""
    with Proxy(tmp_path_factory.mktemp("envoy"), program(release)) as started:
        yield started


PAGE = "http://clawker.internal/ says what was refused, why, and what a person can do\n"

SEEDS, REQUESTS, RULES = 2, 10_000, 40


@pytest.mark.parametrize("number", range(SEEDS))
def test_envoy_decides_as_the_policy_does(proxy: Proxy, number: int, pytestconfig: pytest.Config) -> None:
    """For random rules of every kind, with random names near them, over every protocol."""
    seed = secrets.randbits(32)
    chosen = random.Random(seed)  # noqa: S311 - for variety
    wanted = REQUESTS * pytestconfig.getoption("--thorough")
    asked = allowed = 0
    while asked < wanted:
        policy = Policy(observed_rules(chosen, chosen.choice((2, 10, RULES, 4 * RULES))))
        proxy.obey(policy.rules)
        requests = _sample(chosen, policy, proxy)
        wrong = _disagreeing(proxy, policy, requests)
        for _ in range(20):
            # An update reaches workers after the main thread, and an answer before the request causes a 503.
            if wrong:
                time.sleep(0.1)
                wrong = _disagreeing(proxy, policy, wrong)
        assert not wrong, f"{_told(proxy, policy, wrong[0])} in run {number} with seed {seed}"
        allowed += sum(policy.decide(each.name, each.protocol, each.port).allowed for each in requests)
        asked += len(requests)
    assert wanted / 50 < allowed < asked - wanted / 50


def _told(proxy: Proxy, policy: Policy, request: Request) -> str:
    found = proxy.outcome(request)
    return f"{request} got {found!r} instead of {_expected(policy, request)}"


def _disagreeing(proxy: Proxy, policy: Policy, requests: Sequence[Request]) -> list[Request]:
    """Make requests, and return those that Envoy treats differently than the policy."""
    return [each for each in requests if _plain(proxy.outcome(each)) not in _expected(policy, each)]


def _expected(policy: Policy, request: Request) -> set[str]:
    decision = policy.decide(request.name, request.protocol, request.port)
    if request.protocol.opaque:
        return {request.protocol.transport.value if decision.allowed else ""}
    prefix = "tls" if request.protocol is Protocol.HTTPS else f"http {request.port}"
    return _outcomes(prefix, decision, "")


def _sample(chosen: random.Random, policy: Policy, proxy: Proxy) -> list[Request]:
    """Return requests for names near the rules, at the address with a listener for them."""
    near, served = names_near(policy.rules), policy.allowed_at(proxy.virtual)
    requests = []
    for name in chosen.sample(near, min(len(near), 300)):
        own = served.get(name, {})
        for protocol, port in CONNECTIONS:
            if protocol is Protocol.UDP:
                requests += [Request(name, protocol, port, proxy.virtual[name])] if own else []
                continue
            listening = {
                transport.opaque for transport, its in own if its == port and transport is not Protocol.UDP
            }
            at = proxy.virtual[name] if listening else HERE
            shared = not listening and not protocol.opaque and port in policy.rules.ports
            if shared or listening == {protocol.opaque}:
                requests.append(Request(name, protocol, port, at))
    return requests


def _outcomes(prefix: str, decision: PolicyDecision, refused: str) -> set[str]:
    """Return the possible outcomes: a rule's chain, or a refusal, marked as denied only if a rule denies it."""
    if decision.reason is Reason.OBSERVED:
        return {f"{prefix} {chains.OBSERVED}"}
    if decision.rule is None or decision.allowed:
        return {_chain(prefix, decision.rule) if decision.rule else refused}
    return {refused, chains.DENIED}


def _plain(chain: str) -> str:
    return re.sub(" without [0-9a-f]{16}", "", chain)


def _chain(prefix: str, rule: Rule) -> str:
    return f"{prefix} {rule.destination} {'exempt' if rule.allow_private else 'guarded'}"


def test_the_ports_of_a_rule_change(proxy: Proxy) -> None:
    """A removed port closes, an added one opens, and others stay open, except for connections just accepted."""
    ranged = {"dst": "ports.test", "proto": "tcp", "port": "9000-9002"}
    denied = {"dst": "ports.test", "action": "deny", "port": 9001}
    alone = {**ranged, "port": 9000}
    for rules, expected in (
        ([ranged], [9000, 9001, 9002]),
        ([ranged, denied], [9000, 9002]),
        ([ranged], [9000, 9001, 9002]),
        ([alone], [9000]),
        ([{**ranged, "port": "8999-9001"}], [8999, 9000, 9001]),
        ([alone, {**ranged, "port": "9001-9002"}], [9000, 9001, 9002]),
        ([{**ranged, "allow_private": True}], [9000, 9001, 9002]),
    ):
        proxy.apply(*rules)
        until(partial(_listens, proxy, "ports.test", expected), DRAIN_SECONDS)  # and not after a drain


def _listens(proxy: Proxy, name: str, ports: list[int]) -> bool:
    return [port for port in range(8999, 9004) if proxy.opened(port, proxy.virtual[name])] == ports


def test_refusals_say_why(proxy: Proxy) -> None:
    """Refusals name the firewall, the port, and the missing or denying rule, or say that an upgrade is invalid."""
    allowed = ({"dst": ".w.test", "proto": "http"}, ".w.test")
    proxy.apply(*allowed, {"dst": ".no.w.test", "action": "deny"})
    upgrading = {"Connection": "Upgrade", "Upgrade": "spdy"}
    for port, name, headers, said in (
        (80, "b.test", {}, f"{Reason.NO_RULE.sentence} over http on port {proxy.ports[80]}\n{PAGE}"),
        (443, "b.test", {}, f"{Reason.NO_RULE.sentence} over http on port {proxy.ports[443]}\n{PAGE}"),
        (80, "x.no.w.test", {}, f"{Reason.DENIED.sentence} over http on port {proxy.ports[80]}\n{PAGE}"),
        (80, "a.w.test", upgrading, f"{Reason.BAD_REQUEST.sentence}\n"),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", proxy.ports[port], timeout=5)
        connection.request("GET", "/", headers={"Host": name, **headers})
        response = connection.getresponse()
        assert (response.status, response.read().decode()) == (403, f"clawker-fw: {said}")
        connection.close()
    assert proxy.chain("x.no.w.test", 443) == chains.DENIED
    assert proxy.chain("x.yes.w.test", 443).startswith("tls .w.test guarded")


@pytest.fixture(scope="module")
def loading(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Loading]:
    with Loading(tmp_path_factory.mktemp("loading"), program(release)) as started:
        yield started


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(rule_sets(20))
def test_envoy_gives_back_exactly_what_it_was_given(loading: Loading, rules: RuleSet) -> None:
    """Our files are in canonical form: for any rules, they equal what Envoy reports about them."""
    loading.obey(rules)
    until(loading.shows_its_files)


def test_envoy_shows_what_differs(loading: Loading) -> None:
    """One more name in the loaded configuration changes the digest."""
    loading.apply("a.test", {"dst": "h.test", "proto": "http"})
    before = loading.digests_loaded()
    loading.apply("a.test", "b.test", {"dst": "h.test", "proto": "http"})
    after = loading.digests_loaded()
    assert {name for name in before if before[name] != after[name]} == {"listeners"}


def test_the_case_of_a_name_makes_no_difference(proxy: Proxy, tmp_path: Path, release: Release) -> None:
    """Names differing only in case use the same rule and the same entry in Envoy's DNS cache."""
    _, rules = rule_set("a.test", {"dst": "a.test", "proto": "http"})
    proxy.obey(rules)
    for name in ("a.test", "A.TEST", "a.Test"):
        assert proxy.chain(name, 443) == "tls a.test guarded"
        assert proxy.route(name, 80) == "http 80 a.test guarded"
    assert proxy.route("b.test", 80) == ""
    with NameServer() as names, Resolving(tmp_path, program(release), names.port) as resolving:
        resolving.obey(rules)
        for host in (b"a.test", b"A.TEST", b"a.Test:80", b"a.test."):
            # no address resolves for it
            assert resolving.request(host, 80) == b"HTTP/1.1 503 Service Unavailable"
        for name in ("a.test", "A.TEST"):
            assert resolving.chain(name, 443) == ""
        counted = resolving.admin("/stats?filter=dns_cache.guarded.named.host_added").decode().strip()
    assert set(names.asked) == {(b"a", b"test")}
    assert counted == "dns_cache.guarded named.host_added: 2"  # once for each port


def test_envoy_counts_the_checks_that_it_fails(tmp_path: Path, release: Release) -> None:
    """A real bug of this Envoy, which it logs and survives, is in the counter that `fwctl` reads."""
    buckets, types = tmp_path / "buckets.json", TYPES.removesuffix("/envoy")
    bucket = {"@type": f"{TYPES}.type.v3.TokenBucket", "max_tokens": 1, "fill_interval": "1s"}
    named = {"@type": f"{types}/envoy.service.discovery.v3.Resource", "name": "one", "resource": bucket}
    buckets.write_text(json.dumps({"version_info": "1", "resources": [named]}))
    source = {"resource_api_version": "V3", "path_config_source": {"path": str(buckets)}}
    kind = "access_loggers.filters.process_ratelimit.v3.ProcessRateLimitFilter"
    limit = extension(kind, dynamic_config={"resource_name": "another", "config_source": source})
    log = {**stdout(text_format_source={"inline_string": "a"}), "filter": {"extension_filter": limit}}
    empty = {"address": socket(str(HERE), free_port()), "filter_chains": [{}], "access_log": [log]}
    with Running() as envoy:
        bootstrap = {
            "admin": {"address": {"pipe": {"path": str(tmp_path / "admin")}}},
            "static_resources": {"listeners": [empty]},
            "stats_config": shipped()["stats_config"],
        }
        options = f"--service-node a --service-cluster a --component-log-level {LOG_LEVELS}"
        envoy.start(tmp_path, [program(release)], bootstrap, options)
        counted = partial(envoy.admin, r"/stats?type=Counters&filter=^server\.envoy_bug_failures$")
        until((tmp_path / "admin").exists)
        assert counted() == b"server.envoy_bug_failures: 1\n"
        assert "[envoy_bug]" in envoy.log.read_text()


def test_a_thousand_ports(loading: Loading) -> None:
    """One process with two watched files serves the largest number of ports."""
    rules = rule_set(
        *({"dst": f"h{port}.test", "proto": ("http", "https")[port % 2], "port": port} for port in MANY_PORTS)
    )[1]
    loading.obey(rules, 300)
    assert loading.shows_its_files()
    descriptors = Path(f"/proc/{loading.process.pid}/fd")
    watched = [each for each in descriptors.iterdir() if "inotify" in str(each.readlink())]
    assert len(watched) == len(PROVEN)
