"""The resolver's list of names, as far as it is read back."""

from dataclasses import replace

import pytest

from clawker_fw.rules.policy import Policy
from clawker_fw.stack import virtual
from clawker_fw.stack.files import public
from clawker_fw.stack.policy import POLICY, content, envoy_address
from devkit.coredns import ADDRESSING
from devkit.stacks import rule_set


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_it_says_which_address_is_envoys(slot: int, count: int) -> None:
    """However many names are in the list, and whether some have addresses of their own."""
    for more in ([], [{"dst": "addresses", "proto": "ssh", "force": True}]):
        policy = Policy(rule_set(*(f"n{number}.test" for number in range(count)), *more)[1])
        numbers = virtual.assigned(policy.opaque, virtual.Numbers(), ADDRESSING.room)
        written = content(policy, replace(ADDRESSING, numbers=numbers), slot)
        assert envoy_address({POLICY: public(written)}) == str(ADDRESSING.envoy(slot))


@pytest.mark.parametrize(
    "written",
    [b"", b"{", b"\xff", b"[]", b'{"ttl":1}', b'{"addresses":7}', b'{"addresses":{}}', b'{"addresses":{"envoy":'],
)
def test_what_is_no_list_says_nothing(written: bytes) -> None:
    """A list that can't be read names no address."""
    assert envoy_address({POLICY: public(written)}) == ""
    assert envoy_address({}) == ""
