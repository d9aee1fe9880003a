"""Virtual addresses: the number of a name, and where the addresses lie."""

import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.errors import SettingsError
from clawker_fw.model.stacks import Sibling
from clawker_fw.stack import virtual
from clawker_fw.stack.envoy.sibling import LISTENERS
from clawker_fw.stack.files import public
from clawker_fw.stack.name_list import POLICY
from clawker_fw.stack.topology import Addressing
from clawker_fw.stack.virtual import Numbers, assigned
from devkit import stacks
from devkit.memory.engine import MemoryEngine

EGRESS = IPv4Network("10.214.0.0/24")
NAMES = st.sets(st.sampled_from("abcdefgh"), max_size=5)


@given(st.lists(NAMES, max_size=8), st.sampled_from([5, 8]))
def test_a_name_keeps_its_number(changes: list[set[str]], room: int) -> None:
    """A needed name keeps its unique number; with enough room, a removed name keeps it too."""
    numbers = Numbers()
    for wanted in changes:
        before, numbers = dict(numbers.names), assigned(wanted, numbers, room)
        found = dict(numbers.names)
        assert wanted <= found.keys()
        assert len(set(found.values())) == len(found)
        assert set(found.values()) <= set(range(room))
        assert all(found[name] == before[name] for name in wanted & before.keys())
        assert room < 8 or before.items() <= found.items()
        assert assigned(wanted, numbers, room) == numbers


def test_more_names_than_addresses() -> None:
    """The error says what to do."""
    with pytest.raises(SettingsError, match=r"has room for 2 names with tcp, .* not for 3\.") as caught:
        assigned("abc", Numbers(), 2)
    assert caught.value.code == "subnet-small"


@pytest.mark.parametrize(
    ("prefix", "room", "publishers"), [(20, 959, 30), (22, 191, 30), (23, 63, 30), (24, 0, 30), (25, 0, 0)]
)
def test_where_the_addresses_are(prefix: int, room: int, publishers: int) -> None:
    """They lie in the upper half, separate for the two slots and from agents that publish ports."""
    agents = IPv4Network((IPv4Address("10.213.0.0"), prefix))
    addressing = Addressing(agents, EGRESS)
    assert (addressing.room, addressing.publishers) == (room, publishers)
    names = [addressing.virtual(slot, number) for slot in (0, 1) for number in range(room)]
    published = [
        place(number)
        for number in range(publishers)
        for place in (addressing.publisher, addressing.publishing_relay)
    ]
    siblings = [
        addressing.service,
        addressing.trial,
        *(each(slot) for slot in (0, 1) for each in (addressing.envoy, addressing.coredns, addressing.relay)),
    ]
    every = [*names, *published, *siblings, agents.broadcast_address]
    assert len(set(every)) == len(every)
    last_of_agents = next(agents.subnets()).broadcast_address  # assigned by the engine
    assert all(address in agents and address > last_of_agents for address in (*names, *published))
    for slot in (0, 1):
        blocks = addressing.blocks(slot)
        assert all(any(addressing.virtual(slot, number) in block for block in blocks) for number in range(room))
        assert not any(address in block for block in blocks for address in (*published, *siblings))


def test_the_record_is_read_back() -> None:
    """An unusable record counts as none, and names get new numbers."""
    numbers = assigned(["a.test", "b.test"], Numbers(), 9)
    files = {virtual.NUMBERS: public(virtual.content(numbers))}
    assert virtual.recorded(files) == numbers
    for content in (b"", b"{}", b"[]", b'{"names":[],"next":0}', b'{"names":{"a":-1},"next":0}', b"[" * 100_000):
        assert virtual.recorded({virtual.NUMBERS: public(content)}) == Numbers()
    assert virtual.recorded({virtual.NUMBERS: public(b'{"names":{"a":1,"b":1},"next":2}')}) == Numbers()
    assert virtual.recorded({}) == virtual.recorded() == Numbers()


LOSSES: dict[str, Callable[[MemoryEngine], None]] = {
    "CoreDNS is removed": lambda memory: memory.remove("clawker-coredns"),
    "Envoy is removed": lambda memory: memory.remove("clawker-envoy"),
    "CoreDNS's record is removed": lambda memory: _delete(memory, "clawker-coredns"),
    "Envoy's record is removed": lambda memory: _delete(memory, "clawker-envoy"),
}


def _delete(memory: MemoryEngine, container: str) -> None:
    del memory.inside(container).files[virtual.NUMBERS]


@pytest.mark.parametrize("loss", LOSSES)
def test_either_sibling_can_be_lost(loss: str, memory: MemoryEngine) -> None:
    """If one record is lost, the other one preserves the numbers, even of removed names."""
    rules = [{"dst": f"{name}.test", "proto": "ssh"} for name in "cba"]
    for some in (rules[:1], rules[:2], rules[1:]):
        wanted = stacks.blueprint(memory.facts(), *some)
        stacks.converged(memory, wanted)
    LOSSES[loss](memory)
    after = stacks.converged(memory, wanted)
    for seen in after.observed.siblings.values():
        assert dict(virtual.recorded(seen.files).names) == {"c.test": 0, "b.test": 1, "a.test": 2}
    assert (
        b'"a.test":{"at":"virtual","at_number":2}'
        in after.observed.siblings[Sibling.COREDNS].files[POLICY].content
    )


@pytest.mark.parametrize("kept", [{"dst": "a.test"}, {"dst": ".a.test"}, {"dst": ".test", "force": True}])
def test_a_name_keeps_its_address_for_its_other_rules(kept: dict[str, object], memory: MemoryEngine) -> None:
    """Agents keep using the address while any rule for the name is left; then nothing listens there."""
    ssh, entry = {"dst": "a.test", "proto": "ssh"}, b'"a.test":{"at":"virtual","at_number":0'
    for rules, listening in (
        ((ssh, kept), {"tcp a.test:22", "a.test port-443"}),
        ((kept,), {"a.test port-443"}),
        ((), set()),
    ):
        seen = stacks.converged(memory, stacks.blueprint(memory.facts(), *rules))
        files = {sibling: each.files for sibling, each in seen.observed.siblings.items()}
        assert (entry in files[Sibling.COREDNS][POLICY].content) is bool(listening)
        listeners = json.loads(files[Sibling.ENVOY][LISTENERS].content)["resources"]
        assert {each["name"] for each in listeners} - {"inspected", "port-80", "port-443"} == listening
