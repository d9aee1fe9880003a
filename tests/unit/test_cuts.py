"""Which connections a change of the rules or the settings cuts: the table in docs/how-it-works.md."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from clawker_fw.model import Files, Machine, Sibling, Slots
from clawker_fw.reconcile.cuts import Cut, cut
from clawker_fw.reconcile.desired import Capacities, desired
from clawker_fw.rules.policy import Policy
from clawker_fw.settings.values import ResourceSettings
from clawker_fw.stack import coredns, virtual
from clawker_fw.stack.envoy import chains, inspection, virtual_listeners
from clawker_fw.stack.envoy import sibling as envoy
from clawker_fw.stack.envoy.inspected import Inspection
from clawker_fw.stack.envoy.listeners import listeners
from clawker_fw.stack.envoy.sibling import CLUSTERS, LISTENERS
from clawker_fw.stack.files import public
from clawker_fw.stack.resources import discovery_response
from clawker_fw.stack.topology import Addressing
from devkit import stacks
from devkit.memory.engine import MemoryEngine

Entry = str | Mapping[str, Any]

WEB: Entry = {"dst": "h.test", "proto": "http"}
SHELL: Entry = {"dst": "t.test", "proto": "tcp", "port": "8000-8002"}
QUIC: Entry = {"dst": "q.test", "proto": "udp", "port": 443}
BELOW, OUTER = ".in.sub.test", ".sub.test"
RULES: tuple[Entry, ...] = ("a.test", "z.test", WEB, SHELL, QUIC, BELOW, OUTER)

CASES: dict[str, tuple[tuple[Entry, ...], tuple[str, ...]]] = {
    "nothing": (RULES, ()),
    "rule added": ((*RULES, "new.test", {"dst": "new.test", "proto": "http"}), ()),
    "first rule on a port": ((*RULES, {"dst": "x.test", "port": 8443}), ()),
    "end added": (({"dst": "a.test", "until": "2099-01-01T00:00:00Z"}, *RULES[1:]), ()),
    "https rule removed": (RULES[1:], ("https a.test:443",)),
    "https rule made private": (({"dst": "a.test", "allow_private": True}, *RULES[1:]), ("https a.test:443",)),
    "http rule removed": (tuple(each for each in RULES if each != WEB), ("http h.test:80",)),
    "udp rule removed": (tuple(each for each in RULES if each != QUIC), ("udp q.test:443",)),
    "udp rule made private": (
        (
            *(each for each in RULES if each != QUIC),
            {"dst": "q.test", "proto": "udp", "port": 443, "allow_private": True},
        ),
        ("udp q.test:443",),
    ),
    "tcp rule with fewer ports": (
        (*(each for each in RULES if each != SHELL), {"dst": "t.test", "proto": "tcp", "port": "8000-8001"}),
        ("tcp t.test:8002",),
    ),
    "name denied below a subtree": (
        (*RULES, {"dst": "x.in.sub.test", "action": "deny"}),
        ("https .in.sub.test:443", "https .sub.test:443"),
    ),
    "name that gets an address of its own": (
        (*RULES, {"dst": "a.test", "proto": "tcp", "port": 22}),
        (),
    ),
}


_DENIED = {"path": "/v1/x", "action": "deny"}


def rendered(*rules: Entry, **settings: Any) -> Files:  # noqa: ANN401 - any of the settings
    """Return Envoy's hot files."""
    blueprint = stacks.blueprint(MemoryEngine().facts(), *rules, **settings)
    addresses = Addressing(IPv4Network("10.213.0.0/20"), IPv4Network("10.214.0.0/24"))
    before = stacks.blueprint(MemoryEngine().facts(), *RULES).policy.opaque  # whose numbers a stack keeps
    kept = virtual.assigned(before, virtual.Numbers(), addresses.room)
    numbers = virtual.assigned(blueprint.policy.opaque, kept, addresses.room)
    has = Capacities(*(each.capacity(ResourceSettings(), Machine(2, 8 << 30)) for each in (envoy, coredns)))
    wanted = desired(blueprint, replace(addresses, numbers=numbers), has, Slots(0, 0))
    return wanted.siblings[Sibling.ENVOY].hot


@pytest.mark.parametrize("name", CASES)
def test_what_a_change_of_rules_cuts(name: str) -> None:
    """Each row of the table: the connections of what is removed or changed, and no others."""
    rules, whose = CASES[name]
    assert cut(rendered(*RULES), rendered(*rules)) == Cut(whose)


def test_the_last_rule_on_a_port() -> None:
    """All connections on it end, those without TLS as well."""
    there = (*RULES, {"dst": "x.test", "port": 8443})
    assert cut(rendered(*there), rendered(*RULES)).whose == ("https x.test:8443", "plain HTTP on port 8443")


def test_another_time_for_idle_connections_cuts_all() -> None:
    """Every connection of TCP ends."""
    found = cut(rendered(*RULES), rendered(*RULES, limits={"idle": "77s"}))
    assert found.everything
    assert "https a.test:443" in found.whose


def test_rules_that_share_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the rules that have a chain each, the answer says how many names are concerned."""
    monkeypatch.setattr(chains, "ALONE", 1)
    monkeypatch.setattr(chains, "SHARED", 1)
    before, after = rendered("a.test", "b.test", "c.test"), rendered("a.test", "b.test", "c.test", "d.test")
    assert any("of one name in" in each for each in cut(before, after).whose)


PATHS = {"dst": "p.test", "path_rules": [{"path": "/v1"}, {"path": "/v2", "methods": ["GET", "PUT"]}]}


@pytest.mark.parametrize(
    ("rules", "whose"),
    [
        ((PATHS, "a.test"), ()),
        (({**PATHS, "path_rules": [{"path": "/v1"}, {"path": "/v3"}]},), ("GET /v2", "PUT /v2")),
        (({**PATHS, "path_default": "deny", "path_rules": [*PATHS["path_rules"], _DENIED]},), ("/v1",)),
        ((PATHS, {"dst": "x.p.test", "action": "deny"}), ()),
    ],
)
def test_requests_in_tls_that_is_looked_into(rules: tuple[Entry, ...], whose: tuple[str, ...]) -> None:
    """Those that a path allowed which is gone, or of which more is denied."""
    found = cut(inspecting(PATHS), inspecting(*rules))
    assert found == Cut(tuple(f"https p.test:443 {each}" for each in whose))


def test_the_last_rule_that_looks_into_tls() -> None:
    """Connections end as well, whatever is asked in them."""
    found = cut(inspecting("a.test", PATHS), inspecting("a.test")).whose
    assert found[-1] == "inspected https on port 443"
    assert len(found) == 4


def inspecting(*rules: Entry) -> Files:
    """Return the files of an Envoy that looks into TLS."""
    how = Inspection("inspected/routes.json", inspection.chain())
    made = listeners(
        Policy(stacks.rule_set(*rules)[1]), IPv4Address("10.213.1.10"), "rds/routes.json", 60, inspection=how
    )
    return {LISTENERS: public(discovery_response(made)), CLUSTERS: public(discovery_response([]))}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"resources":[{}]}'])
def test_files_that_can_not_be_read(content: bytes) -> None:
    """What Envoy may have loaded then is unknown, and not nothing."""
    desired_ = rendered(*RULES)
    running = {**desired_, LISTENERS: desired_[LISTENERS].saying(content)}
    assert cut(running, desired_) == Cut(unknown=True)
    assert cut({}, desired_) == Cut(unknown=True)


def test_ports_that_share_a_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the ports that have a listener each, a rule's ports have one: another number of them cuts its own."""
    monkeypatch.setattr(virtual_listeners, "MOST_APART", 3)
    other: Entry = {"dst": "u.test", "proto": "tcp", "port": "7000-7001"}
    fewer: Entry = {"dst": "t.test", "proto": "tcp", "port": "8000-8001"}
    few, many = (*(each for each in RULES if each != SHELL), fewer), (*RULES, other)
    without = (*(each for each in many if each != SHELL), fewer)
    changed = cut(rendered(*many), rendered(*without)).whose
    assert changed
    assert all("t.test" in each for each in changed)
    crossed = cut(rendered(*few), rendered(*few, other)).whose  # two ports apart, and then four
    assert any("t.test" in each for each in crossed)
    assert not [each for each in crossed if "a.test" in each]
