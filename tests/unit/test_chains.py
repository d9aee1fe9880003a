"""How many filter chains there are, and which change with the rules."""

import pytest

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.schema import Protocol
from clawker_fw.stack.envoy import chains
from devkit.stacks import rule_set

KINDS = pytest.mark.parametrize(("dst", "shares"), [("n{}.test", 1), (".n{}.test", 10)], ids=["names", "subtrees"])


def made(dst: str, count: int, *others: dict[str, str]) -> chains.Chains:
    """Return the chains for so many rules, and others."""
    rules = rule_set(*({"dst": dst.format(number)} for number in range(count)), *others)[1]
    return chains.chains("tls", Policy(rules), Protocol.HTTPS, 443)


@KINDS
def test_many_rules_take_no_more_chains_than_some(dst: str, shares: int) -> None:
    """Up to 2,000 names and 200 subtrees have chains of their own. All others share 1,000 and 100."""
    alone, shared = chains.ALONE // shares, chains.SHARED // shares
    assert len(set(made(dst, alone).names.values())) == alone
    assert len(chains.forwarding(made(dst, alone), "tls", 3600)) == alone * shares
    assert alone < len(set(made(dst, 5 * alone).names.values())) <= alone + shared


@KINDS
def test_one_rule_more_moves_at_most_one_other(dst: str, shares: int) -> None:
    """Whatever their number, only what the new rule shares a chain with, or what makes room for it, is renamed."""
    for count in (3, chains.ALONE // shares, 2 * chains.ALONE // shares):
        before, after = made(dst, count).names, made(dst, count + 1).names
        gone = set(before.values()) - set(after.values())
        assert len(gone) <= 2
        assert sum(chain in gone for chain in before.values()) <= count / chains.SHARED * shares * 10


def test_a_chain_is_renamed_when_another_part_of_it_is_denied() -> None:
    """Its open connections may be with what is denied now. Those of other rules go on."""
    before = set(made("n{}.test", 2, {"dst": ".w.test"}).names.values())
    denied = {"dst": "no.w.test", "action": "deny"}
    after = set(made("n{}.test", 2, {"dst": ".w.test"}, denied).names.values())
    assert before - after == {"tls .w.test guarded"}
    assert len(after) == 3
    assert after == set(
        made("n{}.test", 2, {"dst": ".w.test"}, denied, {"dst": "x.other.test", "action": "deny"}).names.values()
    )
