"""The rendered listeners in the real Envoy, on loopback: its choices, compared with the policy.

Only what follows the decision is replaced: a chain answers with its name.
"""

import http.client
import json
import random
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from clawker_fw.rules.policy import Policy, PolicyDecision
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Protocol, Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.envoy import chains
from clawker_fw.stack.envoy.refusals import BUCKETS
from clawker_fw.stack.envoy.sibling import DRAIN_SECONDS, RESOURCES
from clawker_fw.stack.release import Release
from clawker_fw.stack.resources import Resource, discovery_response
from devkit.dns import NameServer
from devkit.envoy import HERE, Loading, Proxy, Request, Resolving, program
from devkit.programs import MANY_PORTS
from devkit.stacks import rule_set
from devkit.strategies import CONNECTIONS, names_near, random_rules, rule_sets
from devkit.waiting import until


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Proxy]:
    """The proxy, for all tests here."""
    started = Proxy(tmp_path_factory.mktemp("envoy"), program(release))
    yield started
    started.process.terminate()
    started.process.wait()


PAGE = "http://clawker.internal/ says what was refused, why, and what a person can do\n"

PROVEN = [each for each in RESOURCES if each.envoy]
"""What Envoy itself reads."""

SEEDS, REQUESTS, RULES = 2, 20_000, 40


@pytest.mark.parametrize("number", range(SEEDS))
def test_envoy_decides_as_the_policy_does(proxy: Proxy, number: int, pytestconfig: pytest.Config) -> None:
    """For random rules of every kind, and random names near them, each over every protocol."""
    seed = secrets.randbits(32)
    chosen = random.Random(seed)  # noqa: S311 - for variety
    wanted = REQUESTS * pytestconfig.getoption("--thorough")
    asked = allowed = 0
    while asked < wanted:
        policy = Policy(random_rules(chosen, chosen.choice((2, 10, RULES, 4 * RULES))))
        proxy.serve(policy.rules)
        until(proxy.serves)
        requests = _sample(chosen, policy, proxy)
        wrong = _disagreeing(proxy, policy, requests)
        for _ in range(20):
            # An update reaches Envoy's workers after its main thread, and a chain that answers before it has the
            # request makes Envoy answer with 503.
            if wrong:
                time.sleep(0.1)
                wrong = _disagreeing(proxy, policy, wrong)
        assert not wrong, f"{_told(proxy, policy, wrong[0])} in run {number} with seed {seed}"
        allowed += sum(policy.decide(each.name, each.protocol, each.port).allowed for each in requests)
        asked += len(requests)
    assert wanted / 50 < allowed < asked - wanted / 50


def _told(proxy: Proxy, policy: Policy, request: Request) -> str:
    (found,) = proxy.outcomes([request])
    return f"{request} got {found!r} instead of {_expected(policy, request)}"


def _disagreeing(proxy: Proxy, policy: Policy, requests: Sequence[Request]) -> list[Request]:
    """Make requests, and return those of which Envoy makes something else than the policy."""
    found = proxy.outcomes(requests)
    return [
        request
        for request, outcome in zip(requests, found, strict=True)
        if _plain(outcome) not in _expected(policy, request)
    ]


def _expected(policy: Policy, request: Request) -> set[str]:
    decision = policy.decide(request.name, request.protocol, request.port)
    if request.protocol.opaque:
        return {request.protocol.transport.value if decision.allowed else ""}
    prefix = "tls" if request.protocol is Protocol.HTTPS else f"http {request.port}"
    return _outcomes(prefix, decision, "")


def _sample(chosen: random.Random, policy: Policy, proxy: Proxy) -> list[Request]:
    """Return requests for names near the rules, at the address that has a listener for them."""
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
    """Return what may happen: a rule's chain, or a refusal, which says that it was denied only if it was."""
    if decision.rule is None or decision.allowed:
        return {_chain(prefix, decision.rule) if decision.rule else refused}
    return {refused, chains.DENIED}


def _plain(chain: str) -> str:
    """Return the name of a chain without its exceptions."""
    return re.sub(" without [0-9a-f]{16}", "", chain)


def _chain(prefix: str, rule: Rule) -> str:
    """Return the name of the chain for a rule."""
    return f"{prefix} {rule.destination} {'exempt' if rule.allow_private else 'guarded'}"


def test_the_ports_of_a_rule_change(proxy: Proxy) -> None:
    """A port that is taken away is closed, one that is added is open, and all others stay open.

    A changed listener may end a connection that it has taken just before.
    """
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
        proxy.serve(rule_set(*rules)[1])
        until(proxy.serves)
        until(partial(_listens, proxy, "ports.test", expected), DRAIN_SECONDS)  # and not after a drain


def _listens(proxy: Proxy, name: str, ports: list[int]) -> bool:
    return [port for port in range(8999, 9004) if proxy.opened(port, proxy.virtual[name])] == ports


def test_the_refusal_names_the_port(proxy: Proxy) -> None:
    """A refusal by the shared route table contains the port and says that it was the firewall."""
    proxy.serve(rule_set({"dst": "a.test", "proto": "http"})[1])
    until(proxy.serves)
    for port in (80, 443):
        connection = http.client.HTTPConnection("127.0.0.1", proxy.ports[port], timeout=5)
        connection.request("GET", "/", headers={"Host": "b.test"})
        response = connection.getresponse()
        text = f"clawker-fw: {Reason.NO_RULE.sentence} over http on port {proxy.ports[port]}\n{PAGE}"
        assert (response.status, response.read().decode()) == (403, text)
        connection.close()


def test_what_is_not_forwarded_is_not_refused_by_a_rule(proxy: Proxy) -> None:
    """An upgrade to something else than a WebSocket is answered with the reason in its record: no missing rule."""
    proxy.serve(rule_set({"dst": "a.test", "proto": "http"})[1])
    until(proxy.serves)
    connection = http.client.HTTPConnection("127.0.0.1", proxy.ports[80], timeout=5)
    connection.request("GET", "/", headers={"Host": "a.test", "Connection": "Upgrade", "Upgrade": "spdy"})
    response = connection.getresponse()
    assert (response.status, response.read().decode()) == (403, f"clawker-fw: {Reason.BAD_REQUEST.sentence}\n")
    connection.close()


def test_a_refusal_by_a_rule_says_so(proxy: Proxy) -> None:
    """What a rule denies within what another one allows is told apart, in TLS by the chain that ends it."""
    allowed = (".w.test", {"dst": ".w.test", "proto": "http"})
    proxy.serve(rule_set(*allowed, {"dst": ".no.w.test", "action": "deny"})[1])
    until(proxy.serves)
    connection = http.client.HTTPConnection("127.0.0.1", proxy.ports[80], timeout=5)
    connection.request("GET", "/", headers={"Host": "x.no.w.test"})
    response = connection.getresponse()
    text = f"clawker-fw: {Reason.DENIED.sentence} over http on port {proxy.ports[80]}\n{PAGE}"
    assert (response.status, response.read().decode()) == (403, text)
    connection.close()
    assert proxy.chain("x.no.w.test", 443) == chains.DENIED
    assert proxy.chain("x.yes.w.test", 443).startswith("tls .w.test guarded")


@pytest.fixture(scope="module")
def loading(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Loading]:
    """The proxy that loads our files."""
    started = Loading(tmp_path_factory.mktemp("loading"), program(release))
    yield started
    started.process.terminate()
    started.process.wait()


def loaded(proxy: Proxy, resource: Resource) -> str:
    """Return the digest of what Envoy has loaded for a resource, computed like by `fwctl`."""
    assert resource.envoy is not None
    if key := resource.envoy.runtime:
        return sha256(json.loads(proxy.admin("/runtime"))["entries"][key]["final_value"].encode()).hexdigest()
    found = []
    for entry in json.loads(proxy.admin(f"/config_dump?resource={resource.envoy.dump}")).get("configs", []):
        for key in resource.envoy.at:
            entry = entry.get(key, {})  # noqa: PLW2901 - one level down
        if entry and resource.envoy.named in {"", entry["name"]}:
            found.append(entry)
    return resource.digest(discovery_response(found))


def written(proxy: Proxy, resource: Resource) -> str:
    """Return the digest of a resource in our file."""
    return resource.digest(
        discovery_response(json.loads((proxy.folder / "hot" / resource.path).read_bytes())["resources"])
    )


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(rule_sets(20))
def test_envoy_gives_back_exactly_what_it_was_given(loading: Loading, rules: RuleSet) -> None:
    """Our files are in canonical form: for any rules, they equal what Envoy shows of them."""
    loading.serve(rules)
    until(loading.serves)
    for resource in PROVEN:
        until(lambda: loaded(loading, resource) == written(loading, resource))  # noqa: B023 - asked at once


def test_envoy_shows_what_differs(loading: Loading) -> None:
    """One more name in the loaded configuration changes the digest."""
    loading.serve(rule_set("a.test", {"dst": "h.test", "proto": "http"})[1])
    until(loading.serves)
    before = {each.name: loaded(loading, each) for each in PROVEN}
    loading.serve(rule_set("a.test", "b.test", {"dst": "h.test", "proto": "http"})[1])
    until(loading.serves)
    after = {each.name: loaded(loading, each) for each in PROVEN}
    assert {name for name in before if before[name] != after[name]} == {"listeners"}


def test_the_case_of_a_name_makes_no_difference(proxy: Proxy, tmp_path: Path, release: Release) -> None:
    """Names differing in case use the same rule and the same entry in Envoy's DNS cache."""
    _, rules = rule_set("a.test", {"dst": "a.test", "proto": "http"})
    proxy.serve(rules)
    until(proxy.serves)
    for name in ("a.test", "A.TEST", "a.Test"):
        assert proxy.chain(name, 443) == "tls a.test guarded"
        assert proxy.route(name, 80) == "http 80 a.test guarded"
    assert proxy.route("b.test", 80) == ""
    with NameServer() as names:
        resolving = Resolving(tmp_path, program(release), names.port)
        try:
            resolving.serve(rules)
            until(resolving.serves)
            for host in (b"a.test", b"A.TEST", b"a.Test:80", b"a.test."):
                # nobody has an address for it
                assert resolving.request(host, 80) == b"HTTP/1.1 503 Service Unavailable"
            for name in ("a.test", "A.TEST"):
                assert resolving.chain(name, 443) == ""
            counted = resolving.admin("/stats?filter=dns_cache.named.host_added").decode().strip()
        finally:
            resolving.process.terminate()
            resolving.process.wait()
    assert set(names.asked) == {(b"a", b"test")}
    assert counted == "dns_cache.named.host_added: 2"  # once for each port


def test_a_thousand_ports(loading: Loading) -> None:
    """One process with two watched files serves the largest number of ports."""
    rules = rule_set(
        *({"dst": f"h{port}.test", "proto": ("http", "https")[port % 2], "port": port} for port in MANY_PORTS)
    )[1]
    loading.serve(rules)
    until(loading.serves, 300)
    for resource in PROVEN:
        assert loaded(loading, resource) == written(loading, resource)
    descriptors = Path(f"/proc/{loading.process.pid}/fd")
    watched = [each for each in descriptors.iterdir() if "inotify" in str(each.readlink())]
    assert len(watched) == len(PROVEN) + BUCKETS
    loading.serve(RuleSet())
    until(loading.serves, 300)
