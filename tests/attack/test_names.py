"""Names that mean one thing to Envoy and another to a resolver, judged by an authoritative server's log."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import Resolving, program
from devkit.stacks import rule_set

RULES = rule_set(
    *(
        {"dst": name, "proto": protocol, "allow_private": name == ".tree.test"}
        for name in ("a.test", ".tree.test", "b.tree.test")
        for protocol in ("http", "https")
    )
)[1]

ENDS = (b"tree.test", b".tree.test", b"a.test", b"b.tree.test", b".b.tree.test")
ODD = (
    *(b"\\", b"\\.", b"\\046", b"\\000", b"%2e", b".", b"..", b"\0", b" ", b"@", b"/", b"#", b"?", b"*", b":1"),
    *(b"\xc3\xa9", b"[", b"A", b"x", b"x" * 64),
)
AFTER = (b"", b"", b".", b":80", b"\\")


def odd_names() -> st.SearchStrategy[bytes]:
    """Return names that end like an allowed one, and begin with anything."""
    pieces = st.one_of(st.sampled_from(ODD), st.binary(min_size=1, max_size=4))
    before = st.lists(pieces, max_size=5).map(b"".join)
    return st.tuples(before, st.sampled_from(ENDS), st.sampled_from(AFTER)).map(b"".join)


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    """Envoy's name server, which knows no names, so that no connection leads anywhere."""
    with NameServer() as server:
        yield server


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release, names: NameServer) -> Iterator[Resolving]:
    """The proxy, with rules for names and for a subtree."""
    folder = tmp_path_factory.mktemp("names")
    with Resolving(folder, program(release), names.port, refreshing=False) as started:
        started.obey(RULES)
        yield started


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(odd_names())
@example(b"x\\.tree.test")
@example(b"evil\\.example\\.tree.test")
@example(b"x" * 64 + b".tree.test")
@example(b"x." * 122 + b".tree.test")
@example(b"\n\nb.tree.test")
def test_what_is_looked_up_is_what_was_matched(proxy: Resolving, names: NameServer, name: bytes) -> None:
    """Whatever an agent sends as a name, no other name is looked up."""
    names.asked.clear()
    proxy.hello(name, 443)
    over_tls = {b".".join(labels) for labels in names.asked}
    assert over_tls <= {name.lower()}
    names.asked.clear()
    sent = name.replace(b"\n", b"").replace(b"\r", b"")  # a line break would end the header
    proxy.request(sent, 80)
    host = sent.strip(b" \t").lower()  # white space around a header's value does not belong to it (RFC 9110, 5.5)
    over_http = {b".".join(labels) for labels in names.asked}
    assert over_http <= {host.removesuffix(b":80").removesuffix(b".")}
    for asked in over_tls | over_http:
        assert Policy(RULES).decide(asked.decode("ascii"), Protocol.HTTPS, 443).allowed


def test_a_host_name_is_looked_up(proxy: Resolving, names: NameServer) -> None:
    """The control: a valid host name is looked up in lower case."""
    for name in (b"control.tree.test", b"C_1.x-y.tree.test", b"c." * 120 + b"tree.test"):
        names.asked.clear()
        assert proxy.hello(name, 443) == b""
        assert proxy.request(b"h" + name, 80) == b"HTTP/1.1 503 Service Unavailable"
        assert names.asked == [tuple(asked.lower().split(b".")) for asked in (name, b"h" + name)]
    assert proxy.request(b"x*.tree.test", 80) == b"HTTP/1.1 403 Forbidden"


@pytest.mark.parametrize("length", [251, 252, 253])
def test_a_name_that_is_too_long_is_not_waited_for(proxy: Resolving, names: NameServer, length: int) -> None:
    """Envoy asks for a name with the agent's number: here, 250 characters are left, and nobody is asked."""
    name = (b"c." * 125)[: length - 11] + b"c.tree.test"
    assert len(name) == length
    names.asked.clear()
    assert proxy.hello(name, 443) == b""
    assert proxy.request(b"h" + name[1:], 80) == b"HTTP/1.1 503 Service Unavailable"
    assert not names.asked
