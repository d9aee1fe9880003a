"""The upstream proxy: which rules go through it, what is refused when they are read, and what Envoy gets."""

import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.agents.deciding import files as deciding_files
from clawker_fw.denials.advice import Adviser
from clawker_fw.denials.refusal import refusals_in
from clawker_fw.diagnose.explanation import Explainer
from clawker_fw.errors import RefusedError, SettingsError
from clawker_fw.model.stacks import Sibling
from clawker_fw.rules.paths import Form
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.review import review
from clawker_fw.rules.rule import Protocol
from clawker_fw.rules.target import parse_target
from clawker_fw.settings.loaded import Loaded
from clawker_fw.settings.secrets.declared import SecretsFile
from clawker_fw.settings.secrets.sources import header_value
from clawker_fw.settings.secrets.wanted import WantedSecret, wanted
from clawker_fw.settings.shell_proxy import offer
from clawker_fw.settings.sources import Source
from clawker_fw.settings.validation import validated
from clawker_fw.settings.values import LimitSettings
from clawker_fw.stack import virtual
from clawker_fw.stack.capacity import Capacity
from clawker_fw.stack.envoy import sibling as envoy
from devkit.coredns import ADDRESSING
from devkit.stacks import installed_release

PROXY = "http://proxy.corp.example:3128"
RULES = (
    {"dst": "a.test"},
    {"dst": "h.test", "proto": "http"},
    {"dst": "h.test", "proto": "http", "port": 8080},
    {"dst": "s.test", "proto": "ssh"},
    {"dst": "i.test", "inspect": True},
    {"dst": ".sub.test"},
    {"dst": "fixed.test", "proto": "tcp", "port": 443},
)
DIRECT = (
    {"dst": "git.corp.example", "allow_private": True},
    {"dst": "dns.corp.example", "proto": "udp", "port": 53, "allow_private": True},
    {"dst": "host", "proto": "tcp", "port": 5432},
)
OBSERVE = {"until": "2099-01-01T00:00:00Z"}
EXEMPT = {"no_proxy": [".corp.example"], "connect_ports": [443, 22]}


def load(*rules: Mapping[str, Any], upstream: object = None, **settings: object) -> Loaded:
    """Return validated settings with rules, by default behind the proxy."""
    document = {
        "rules": rules,
        "upstream": {"proxy": PROXY, **EXEMPT} if upstream is None else upstream,
        **settings,
    }
    return validated((Source(Path("f.yaml"), json.dumps(document)),), "", {})


@pytest.mark.parametrize(
    ("upstream", "sentence"),
    [
        ({"proxy": "http://me:word@p.test:1"}, "declare a secret, and name it in `auth`"),
        ({"proxy": "http://p.test"}, "needs a port, as in `http://p.test:3128`"),
        ({"proxy": "socks5://p.test:1"}, "write `http://HOST:PORT` or `https://HOST:PORT`"),
        ({"proxy": PROXY, "auth": "NTLM"}, "run a helper that can, such as cntlm or px"),
        ({"proxy": PROXY, "auth": "negotiate"}, "Envoy can't do negotiate"),
        ({"proxy": PROXY, "ca_file": "corp.pem"}, "`upstream.ca_file` is for a proxy with `https://`"),
        ({"auth": "corp"}, "`upstream.auth` has no effect without `upstream.proxy`"),
        ({"proxy": PROXY, "no_proxy": ["10.0.0.0/8"]}, "is a network"),
    ],
)
def test_settings_that_could_not_work_are_errors(upstream: object, sentence: str) -> None:
    """Each mistake is refused with what to write instead."""
    with pytest.raises(SettingsError) as caught:
        load(upstream=upstream)
    assert sentence in caught.value.message


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"dst": "a.test", "proto": "udp", "port": 53}, "can't pass an HTTP proxy"),
        ({"dst": "a.test", "allow_private": True}, "the proxy looks the name up and decides"),
        ({"dst": ".example", "force": True}, "add a rule for `.corp.example` with the same protocol and port"),
        ({"dst": "10.0.0.1", "as": "db.test", "proto": "tcp", "port": 1, "allow_private": True}, "db.test"),
    ],
)
def test_rules_that_the_proxy_cannot_carry_are_errors(rule: Mapping[str, Any], sentence: str) -> None:
    """Such a rule would never work or would be decided by someone else, so the error names `no_proxy`."""
    with pytest.raises(SettingsError) as caught:
        load(rule, upstream={"proxy": PROXY, "no_proxy": [".corp.example"]})
    assert caught.value.code == "rule-not-through-proxy"
    assert sentence in caught.value.message
    assert "`upstream.no_proxy`" in caught.value.message
    assert load(rule, upstream={}).rules.rules[0].proxied is False


def test_a_nearer_rule_decides_for_exempt_names() -> None:
    """A subtree may include names in `no_proxy` if another rule decides for them, whether it allows or denies."""
    for nearer in ({"dst": ".corp.example"}, {"dst": "corp.example", "action": "deny"}):
        exempt = [nearer["dst"]]
        loaded = load({"dst": ".example", "force": True}, nearer, upstream={"proxy": PROXY, "no_proxy": exempt})
        assert {str(rule.destination): rule.proxied for rule in loaded.rules.rules} == {
            ".example": True,
            nearer["dst"]: False,
        }


def test_everything_else_goes_through_the_proxy() -> None:
    """Only names in `no_proxy` and the Docker host are reached directly; a port without CONNECT is a warning."""
    loaded = load(*RULES, *DIRECT, {"dst": "p.test", "port": 8443})
    through = {rule.destination.name for rule in loaded.rules.rules if rule.proxied}
    assert through == {"a.test", "h.test", "s.test", "i.test", "sub.test", "fixed.test", "p.test"}
    assert [(remark.code, remark.rule.destination.name) for remark in review(loaded.rules, 0)] == [
        ("connect-port", "p.test")
    ]


def test_observing_goes_through_the_proxy_and_leaves_exempt_names_closed() -> None:
    """What no rule names passes through the proxy, but never directly."""
    loaded = load(observe=OBSERVE).rules
    policy = Policy(loaded)
    assert all(rule.proxied for rule in policy.observed.values())
    assert policy.decide("any.example.com", Protocol.HTTPS, 443).reason is Reason.OBSERVED
    assert policy.decide("git.corp.example", Protocol.HTTPS, 443).reason is Reason.NO_RULE


def test_explain_says_which_way() -> None:
    """An allowed host is explained with its way; Envoy does not look up what the proxy looks up."""
    explainer = Explainer(load(*RULES, *DIRECT).rules, 0)
    proxy = "through proxy.corp.example:3128 as"
    rest = "; the proxy looks the name up and may refuse it"
    for url, way in (
        ("https://a.test", f"{proxy} CONNECT a.test:443{rest}"),
        ("http://h.test:8080", f"{proxy} http://h.test:8080{rest}"),
        ("https://git.corp.example", "direct: no_proxy .corp.example"),
        ("tcp://host.docker.internal:5432", "direct: the Docker host"),
    ):
        explained = explainer.decide(parse_target(url))
        assert (explained.way, explained.looks_up) == (way, way.startswith("direct"))
    assert explainer.decide(parse_target("https://other.test")).way == ""


def test_the_password_goes_only_to_the_proxy() -> None:
    """The user's file must allow the proxy's host and port."""
    proxy = load(upstream={"proxy": PROXY, "auth": "corp"}).rules.proxy
    for hosts, code in (
        (["proxy.corp.example:3128"], ""),
        (["proxy.corp.example"], "secret-not-for-host"),
        (None, "secret-unknown"),
    ):
        entries = {"corp": {"from": {"env": "A"}, "hosts": hosts}} if hosts else {}
        declared = SecretsFile.model_validate({"secrets": entries})
        if not code:
            assert wanted([], declared, Path("s"), proxy) == (WantedSecret("corp", Form.PROXY),)
            continue
        with pytest.raises(RefusedError) as caught:
            wanted([], declared, Path("s"), proxy)
        assert caught.value.code == code
    assert header_value("me:word", Form.PROXY) == "Basic bWU6d29yZA=="


def hot(loaded: Loaded) -> Mapping[str, Any]:
    policy = Policy(loaded.rules)
    numbers = virtual.assigned(policy.opaque, virtual.Numbers(), ADDRESSING.room)
    made = envoy.hot(policy, replace(ADDRESSING, numbers=numbers), 0, LimitSettings())
    return {path: json.loads(made[path].content) for path in (envoy.LISTENERS, envoy.ROUTES, envoy.CLUSTERS)}


def test_nothing_leads_directly_to_a_proxied_host() -> None:
    """Chains of proxied rules know no other cluster, so a proxy that is down fails closed."""
    listeners = {
        listener["name"]: listener
        for listener in hot(load(*RULES, *DIRECT, observe=OBSERVE))[envoy.LISTENERS]["resources"]
    }
    ways: dict[bool, set[str]] = {True: set(), False: set()}
    for listener in listeners.values():
        for chain in listener.get("filter_chains", ()):
            for filter_ in chain["filters"]:
                if cluster := filter_["typed_config"].get("cluster"):
                    exempt = any(
                        name in f"{listener['name']} {chain['name']}" for name in ("corp.", "host.docker")
                    )
                    ways[exempt].add(cluster)
    assert ways == {False: {"proxy"}, True: {"exempt named"}}


def test_only_rules_that_go_another_way_lose_their_connections() -> None:
    """A name added to `no_proxy` gets another chain; other rules keep theirs. `connect_ports` changes nothing."""
    names = []
    for exempt, ports in (
        ([".corp.example"], [443]),
        ([".corp.example"], [443, 22]),
        ([".corp.example", "a.test"], [443]),
    ):
        upstream = {"proxy": PROXY, "no_proxy": exempt, "connect_ports": ports}
        listeners = hot(load(*RULES, upstream=upstream))[envoy.LISTENERS]["resources"]
        names.append({chain["name"] for listener in listeners for chain in listener.get("filter_chains", ())})
    assert names[0] == names[1]
    assert names[0] ^ names[2] == {"tls a.test proxied", "tls a.test guarded"}


def boot(proxy: str) -> Mapping[str, Any]:
    """Return the source address's routing table for a proxy."""
    upstream = load(upstream={"proxy": proxy}).rules.proxy
    capacity = Capacity(1, 1 << 30, 100)
    made = envoy.boot("p", ADDRESSING, 0, limits=LimitSettings(), capacity=capacity, proxy=upstream)
    tables = json.loads(made["boot/sibling.json"].content)["tables"]
    (table,) = (table for table in tables if table["name"] == "proxied")
    return dict(table)


@pytest.mark.parametrize("address", ["192.0.2.9", "10.1.2.3", str(ADDRESSING.egress_gateway)])
def test_the_source_reaches_only_a_proxy_with_an_address(address: str) -> None:
    """The routing table has a route to the proxy, and to no other address."""
    table = boot(f"http://{'host' if address == str(ADDRESSING.egress_gateway) else address}:3128")
    unreachable = [IPv4Network(text) for text in table["unreachable"]]
    assert sum(network.num_addresses for network in unreachable) == 2**32 - 1
    assert not any(IPv4Address(address) in network for network in unreachable)
    assert table["connected"] is (IPv4Address(address) in ADDRESSING.egress)


def test_the_source_reaches_no_agent_by_a_proxy_with_a_name() -> None:
    """A proxy's name may lead to a private address, but never to loopback, metadata services, agents or Envoy."""
    unreachable = [IPv4Network(text) for text in boot(PROXY)["unreachable"]]
    for address in ("127.0.0.1", "169.254.169.254", ADDRESSING.envoy(0), ADDRESSING.guarded(1)):
        assert any(IPv4Address(str(address)) in network for network in unreachable)
    assert not any(IPv4Address("10.1.2.3") in network for network in unreachable)


def test_a_refusal_of_the_proxy_is_told_with_its_words() -> None:
    """Squid's error and the demanded credentials are shown, and no rule is advised."""
    headers = [
        {"key": "x-squid-error", "value": "ERR_CACHE_ACCESS_DENIED 0"},
        {"key": "proxy-authenticate", "value": "NTLM"},
    ]
    record = {
        "name": "a.test",
        "protocol": "tls",
        "port": 443,
        "reason": "proxy-auth",
        "proxy": {"headers": headers},
    }
    (counted,) = refusals_in(Sibling.ENVOY, [("2027-01-01T00:00:00Z", record)])
    assert counted.proxy == "ERR_CACHE_ACCESS_DENIED 0; NTLM"
    adviser = Adviser(Explainer(load(*RULES).rules, 0))
    for reason in (reason for reason in Reason if reason.of_proxy):
        (counted,) = refusals_in(Sibling.ENVOY, [("2027-01-01T00:00:00Z", {**record, "reason": reason.value})])
        advice = adviser.advise(counted)
        assert (advice.remedy.command, reason.failed) == ("", True)
        assert advice.remedy.text.startswith("No rule would")


@pytest.mark.parametrize(
    ("variables", "settings"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": "socks5://p.test:1080"}, ""),
        ({"HTTPS_PROXY": "http://p.test:port"}, ""),
        ({"https_proxy": "http://P.test:3128/"}, '{"proxy": "http://p.test:3128"}'),
        ({"HTTP_PROXY": "http://me:word@p.test"}, '{"proxy": "http://p.test:80"}`. Its password'),
        (
            {"HTTPS_PROXY": "https://p.test", "NO_PROXY": "*.a.test 10.0.0.1,b.test"},
            '"no_proxy": [".a.test", ".b.test"]',
        ),
    ],
)
def test_the_shells_proxy_is_offered_as_settings(variables: Mapping[str, str], settings: str) -> None:
    """What is offered is valid, and has no password."""
    sentence = offer(variables)
    assert (settings in sentence) if settings else sentence == ""
    assert "word@" not in sentence
    if settings:
        load(upstream=json.loads(sentence.partition("`upstream: ")[2].partition("`")[0]))


def test_who_can_change_the_proxys_ca_controls_the_firewall() -> None:
    """The file is among those that decide."""
    loaded = load(upstream={"proxy": "https://p.test:1", "ca_file": "corp.pem"})
    paths = deciding_files("p", loaded, None, (), installed_release())
    assert Path("corp.pem").absolute() in paths
