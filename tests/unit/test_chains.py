"""How many filter chains there are, and which change with the rules."""

import pytest

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol
from clawker_fw.stack.envoy import chains
from devkit.stacks import rule_set

KINDS = pytest.mark.parametrize("dst", ["n{}.test", ".n{}.test"], ids=["names", "subtrees"])


def made(dst: str, count: int, *others: dict[str, str]) -> chains.Chains:
    """Return the chains for so many rules, and others."""
    rules = rule_set(*({"dst": dst.format(number)} for number in range(count)), *others)[1]
    return chains.chains("tls", Policy(rules), Protocol.HTTPS, 443)


@KINDS
def test_ten_thousand_rules_have_a_chain_each(dst: str) -> None:
    """So a removed rule ends its connections and no others. Many more share a thousand chains."""
    alone = made(dst, 10_000)
    assert len(chains.forwarding(alone, "tls", 3600, "")) == len(set(alone.names.values())) == 10_000
    many = made(dst, 30_000)
    assert 10_000 < len(chains.forwarding(many, "tls", 3600, "")) <= 11_000
    assert len(many.names) == 30_000


@KINDS
def test_one_rule_more_moves_at_most_one_other(dst: str) -> None:
    """Whatever their number, only what the new rule shares a chain with, or what makes room for it, is renamed."""
    for count in (3, chains.ALONE - 1, chains.ALONE, 2 * chains.ALONE):
        before, after = made(dst, count).names, made(dst, count + 1).names
        gone = set(before.values()) - set(after.values())
        assert len(gone) <= (2 if count >= chains.ALONE else 0)
        assert sum(chain in gone for chain in before.values()) <= count / chains.SHARED * 10
