"""Whether a change of rules or settings cuts connections: the table in docs/how-it-works.md."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from clawker_fw.model.engines import Machine
from clawker_fw.model.files import Files
from clawker_fw.model.stacks import Sibling, Slots
from clawker_fw.reconcile.desired_state import desired_state
from clawker_fw.reconcile.summarize import ends_connections
from clawker_fw.rules.policy import Policy
from clawker_fw.settings.values import LimitSettings
from clawker_fw.stack import virtual
from clawker_fw.stack.envoy import chains
from clawker_fw.stack.envoy.listeners import listeners
from clawker_fw.stack.envoy.sibling import CLUSTERS, LISTENERS
from clawker_fw.stack.envoy.telemetry import Serving
from clawker_fw.stack.files import public
from clawker_fw.stack.resources import discovery_response
from clawker_fw.stack.topology import Addressing, EnvoyAddresses
from devkit import stacks
from devkit.memory.engine import MemoryEngine

Entry = str | Mapping[str, Any]

WEB: Entry = {"dst": "h.test", "proto": "http"}
SHELL: Entry = {"dst": "t.test", "proto": "tcp", "port": "8000-8002"}
QUIC: Entry = {"dst": "q.test", "proto": "udp", "port": 443}
BELOW, OUTER = ".in.sub.test", ".sub.test"
RULES: tuple[Entry, ...] = ("a.test", "z.test", WEB, SHELL, QUIC, BELOW, OUTER)

CASES: dict[str, tuple[tuple[Entry, ...], bool]] = {
    "nothing": (RULES, False),
    "rule added": ((*RULES, "new.test", {"dst": "new.test", "proto": "http"}), False),
    "first rule on a port": ((*RULES, {"dst": "x.test", "port": 8443}), False),
    "end added": (({"dst": "a.test", "until": "2099-01-01T00:00:00Z"}, *RULES[1:]), False),
    "https rule removed": (RULES[1:], True),
    "https rule made private": (({"dst": "a.test", "allow_private": True}, *RULES[1:]), True),
    "http rule removed": (tuple(each for each in RULES if each != WEB), True),
    "udp rule removed": (tuple(each for each in RULES if each != QUIC), True),
    "tcp rule with fewer ports": (
        (*(each for each in RULES if each != SHELL), {"dst": "t.test", "proto": "tcp", "port": "8000-8001"}),
        True,
    ),
    "name denied below a subtree": (
        (*RULES, {"dst": "x.in.sub.test", "action": "deny"}),
        True,
    ),
    "last rule on a port removed": (RULES[:2], True),
    "name that gets an address of its own": (
        (*RULES, {"dst": "a.test", "proto": "tcp", "port": 22}),
        False,
    ),
}


_DENIED = {"path": "/v1/x", "action": "deny"}


def rendered(*rules: Entry, **settings: Any) -> Files:  # noqa: ANN401 - any of the settings
    blueprint = stacks.blueprint(MemoryEngine().facts(), *rules, **settings)
    addresses = Addressing(IPv4Network("10.213.0.0/20"), IPv4Network("10.214.0.0/24"))
    before = stacks.blueprint(MemoryEngine().facts(), *RULES).policy.opaque  # its numbers are kept by a stack
    kept = virtual.assigned(before, virtual.Numbers(), addresses.room)
    numbers = virtual.assigned(blueprint.policy.opaque, kept, addresses.room)
    wanted = desired_state(blueprint, replace(addresses, numbers=numbers), Machine(2, 8 << 30), Slots(0, 0))
    return wanted.siblings[Sibling.ENVOY].hot


@pytest.mark.parametrize("name", CASES)
def test_whether_a_change_of_rules_cuts_anything(name: str) -> None:
    """Each row of the table: only removed or changed rules end connections."""
    rules, cut = CASES[name]
    assert ends_connections(rendered(*RULES), rendered(*rules)) is cut


def test_another_time_for_idle_connections() -> None:
    """A changed idle timeout ends connections without a change of rules."""
    assert ends_connections(rendered(*RULES), rendered(*RULES, limits={"idle": "77s"}))


def test_rules_that_share_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that share a chain: one more rule may end connections."""
    monkeypatch.setattr(chains, "ALONE", 1)
    monkeypatch.setattr(chains, "SHARED", 1)
    before, after = rendered("a.test", "b.test", "c.test"), rendered("a.test", "b.test", "c.test", "d.test")
    assert ends_connections(before, after)


PATHS = {"dst": "p.test", "path_rules": [{"path": "/v1"}, {"path": "/v2", "methods": ["GET", "PUT"]}]}


@pytest.mark.parametrize(
    ("rules", "cut"),
    [
        ((PATHS, "a.test"), False),
        (({**PATHS, "path_rules": [{"path": "/v1"}, {"path": "/v3"}]},), True),
        (({**PATHS, "path_default": "deny", "path_rules": [*PATHS["path_rules"], _DENIED]},), True),
        ((PATHS, {"dst": "x.p.test", "action": "deny"}), False),
        (("p.test",), True),
    ],
)
def test_requests_in_tls_that_is_looked_into(rules: tuple[Entry, ...], *, cut: bool) -> None:
    """A request ends if its path is removed, or if more of that path is denied."""
    assert ends_connections(inspecting(PATHS), inspecting(*rules)) is cut


def inspecting(*rules: Entry) -> Files:
    """Return the files of an Envoy that inspects TLS."""
    here = IPv4Address("10.213.1.10")
    policy = Policy(stacks.rule_set(*rules)[1])
    made = listeners(Serving(policy, EnvoyAddresses(here, here, here, here), LimitSettings()))
    return {LISTENERS: public(discovery_response(made)), CLUSTERS: public(discovery_response([]))}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"resources":[{}]}'])
def test_files_that_can_not_be_read(content: bytes) -> None:
    """With unreadable files, Envoy may have loaded anything, so connections may end."""
    rendered_files = rendered(*RULES)
    running = {**rendered_files, LISTENERS: rendered_files[LISTENERS].saying(content)}
    assert ends_connections(running, rendered_files)
    assert ends_connections({}, rendered_files)
