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


@pytest.fixture(autouse=True)
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the rules that have a chain each, and of the chains that the others share."""
    monkeypatch.setattr(chains, "ALONE", chains.ALONE // 10)
    monkeypatch.setattr(chains, "SHARED", chains.SHARED // 10)


@KINDS
def test_so_many_rules_have_a_chain_each(dst: str) -> None:
    """So a removed rule ends its connections and no others. Many more share some chains."""
    alone, most = made(dst, chains.ALONE), chains.ALONE + chains.SHARED
    assert len(chains.forwarding(alone, "tls", 3600, "")) == len(set(alone.names.values())) == chains.ALONE
    many = made(dst, 3 * chains.ALONE)
    assert chains.ALONE < len(chains.forwarding(many, "tls", 3600, "")) <= most
    assert len(many.names) == 3 * chains.ALONE


@KINDS
def test_one_rule_more_moves_at_most_one_other(dst: str) -> None:
    """Whatever their number, only what the new rule shares a chain with, or what makes room for it, is renamed."""
    for count in (3, chains.ALONE - 1, chains.ALONE, 2 * chains.ALONE):
        before, after = made(dst, count).names, made(dst, count + 1).names
        gone = set(before.values()) - set(after.values())
        assert len(gone) <= (2 if count >= chains.ALONE else 0)
        assert sum(chain in gone for chain in before.values()) <= count / chains.SHARED * 10
