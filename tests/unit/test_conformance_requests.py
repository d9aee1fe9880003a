"""Requests that `conformance` tries in inspected TLS."""

import random

from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.diagnose.conformance.requests import InspectedHost, attempts_in_tls, inspected_host
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol
from clawker_fw.stack.container import REFUSED_NAME
from devkit.requests import random_entries, rules_of

ENVOY = "192.0.2.1"


def host_of(policy: Policy) -> InspectedHost:
    found = inspected_host(policy)
    assert found
    return found


@given(st.randoms(use_true_random=False))
def test_nothing_is_tried_that_rules_allow(chosen: random.Random) -> None:
    """Only the control requests something that the rules allow."""
    policy = Policy(rules_of(random_entries(chosen, (443, 8443))))
    host = inspected_host(policy)
    for case in attempts_in_tls(ENVOY, host, "the roots") if host else ():
        port = int(case.address.removeprefix(f"{ENVOY}:"))
        if case.kind == "certificate":
            decided = policy.decide(case.name, Protocol.HTTPS, port)
            assert case.control == decided.allowed
            assert case.roots == "the roots"
            continue
        method, target, _ = case.text.split(" ", 2)
        if case.control:
            assert method in {"GET", "OPTIONS"}
            assert policy.decide(case.name, Protocol.HTTPS, port, method, target).allowed
            continue
        assert method in {"GET", "OPTIONS", "PROPFIND", "TRACE"}
        assert case.text.endswith("\r\n\r\n")
        if REFUSED_NAME not in case.text:
            assert not policy.decide(case.name, Protocol.HTTPS, port, method, target).allowed


def test_each_kind_of_rule_is_attacked_where_it_can_be() -> None:
    """A rule that allows everything has no refused path to try. Hosts that surely exist come first."""
    everything = {"dst": "a.test", "inspect": True}
    some = {"dst": "b.test", "path_rules": [{"path": "/v1"}], "git": {"o/r": "read"}}
    for first, path_refused in ((everything, False), (some, True)):
        host = host_of(Policy(rules_of([{**everything, "dst": ".c.test"}, first, {**some, "dst": "d.test"}])))
        assert host.name == first["dst"]
        tried = {each.id for each in attempts_in_tls(ENVOY, host, "")}
        assert {"inspected", "inspected-trace", "inspected-host", "inspected-stranger"} < tried
        assert ({"inspected-path", "inspected-push", "inspected-dots"} <= tried) == path_refused
