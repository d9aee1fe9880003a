"""How many filter chains there are."""

import pytest

from clawker_fw.rules.schema import Protocol
from clawker_fw.stack.envoy import chains
from devkit.stacks import rule_set


@pytest.mark.parametrize("dst", ["n{}.test", ".n{}.test"], ids=["names", "subtrees"])
def test_many_rules_take_no_more_chains_than_a_few(dst: str) -> None:
    """Up to 256 rules have chains of their own. With more rules, the number of chains stays below that."""

    def made(count: int) -> int:
        rules = rule_set(*({"dst": dst.format(number)} for number in range(count)))[1]
        named = chains.names("tls 443", rules.on(443, Protocol.HTTPS))
        return len(chains.forwarding(named, "tls", 3600))

    shares = made(1)
    assert made(chains.MOST) == chains.MOST * shares
    assert chains.MOST // 4 < made(chains.MOST + 1) <= made(20 * chains.MOST) <= chains.MOST // 2
