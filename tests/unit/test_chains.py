"""Filter chains: how many there are, and which a change of rules affects."""

import pytest

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol
from clawker_fw.stack.envoy import chains
from devkit.stacks import rule_set

KINDS = pytest.mark.parametrize("dst", ["n{}.test", ".n{}.test"], ids=["names", "subtrees"])


def made(dst: str, count: int, *others: dict[str, str]) -> chains.Chains:
    """Return the chains for this many rules plus others."""
    rules = rule_set(*({"dst": dst.format(number)} for number in range(count)), *others)[1]
    return chains.chains("tls", Policy(rules), Protocol.HTTPS, 443)


@pytest.fixture(autouse=True)
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow a tenth of the usual own chains and shared chains."""
    monkeypatch.setattr(chains, "ALONE", chains.ALONE // 10)
    monkeypatch.setattr(chains, "SHARED", chains.SHARED // 10)


@KINDS
def test_so_many_rules_have_a_chain_each(dst: str) -> None:
    """Rules have their own chains up to a limit; many more rules share a few chains."""
    alone, most = made(dst, chains.ALONE), chains.ALONE + chains.SHARED
    assert len(chains.forwarding(alone, "tls", 3600, "")) == len(set(alone.names.values())) == chains.ALONE
    many = made(dst, 3 * chains.ALONE)
    assert chains.ALONE < len(chains.forwarding(many, "tls", 3600, "")) <= most
    assert len(many.names) == 3 * chains.ALONE


@KINDS
def test_one_rule_more_moves_at_most_one_other(dst: str) -> None:
    """A new rule renames at most the chain that it joins, or one that makes room for it."""
    for count in (3, chains.ALONE - 1, chains.ALONE, 2 * chains.ALONE):
        before, after = made(dst, count).names, made(dst, count + 1).names
        gone = set(before.values()) - set(after.values())
        assert len(gone) <= (2 if count >= chains.ALONE else 0)
        assert sum(chain in gone for chain in before.values()) <= count / chains.SHARED * 10
