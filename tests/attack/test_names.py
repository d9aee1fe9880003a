"""Names that mean one thing to Envoy and another to a resolver: what is looked up is what was matched.

The judge is an authoritative name server's log, octet for octet.
"""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clawker_fw.rules.matcher import Matcher
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import Protocol
from clawker_fw.stack.release import Release
from devkit.dns import NameServer
from devkit.envoy import Resolving, program
from devkit.stacks import rule_set
from devkit.waiting import until

TREE = {"dst": ".tree.test", "allow_private": True}
RULES = rule_set(
    *({**rule, "proto": proto} for rule in ({"dst": "a.test"}, TREE, {"dst": "b.tree.test"}) for proto in ("http", "https"))
)[1]

ENDS = (b"tree.test", b".tree.test", b"a.test", b"b.tree.test", b".b.tree.test")
ODD = (b"\\", b"\\.", b"\\046", b"\\000", b"%2e", b".", b"..", b"\0", b" ", b"@", b"/", b"#", b"?", b"*", b":1", b"\xc3\xa9", b"[", b"A")


def odd_names() -> st.SearchStrategy[bytes]:
    """Return what ends like a name that is allowed, and begins with anything."""
    pieces = st.one_of(st.sampled_from(ODD), st.binary(min_size=1, max_size=4), st.sampled_from((b"x", b"x" * 64)))
    begins = st.lists(pieces, max_size=5).map(b"".join)
    return st.builds(lambda begin, end, rest: begin + end + rest, begins, st.sampled_from(ENDS), st.sampled_from((b"", b"", b".", b":80", b"\\")))


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    """The name server that Envoy asks; it has no name, so that no connection leads anywhere."""
    with NameServer() as server:
        yield server


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, release: Release, names: NameServer) -> Iterator[Resolving]:
    """The proxy, with rules for names and for what is below one."""
    started = Resolving(tmp_path_factory.mktemp("names"), program(release), names.port)
    started.serve(RULES)
    until(started.serves)
    yield started
    started.process.terminate()
    started.process.wait()


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(odd_names())
@example(b"x\\.tree.test")
@example(b"evil\\.example\\.tree.test")
@example(b"x" * 64 + b".tree.test")
@example(b"x." * 122 + b".tree.test")
def test_what_is_looked_up_is_what_was_matched(proxy: Resolving, names: NameServer, name: bytes) -> None:
    """Whatever an agent sends as a name, nobody is asked for another one."""
    names.asked.clear()
    proxy.hello(name, 443)
    proxy.request(name.replace(b"\n", b"").replace(b"\r", b""), 80)
    for labels in names.asked:
        asked = b".".join(labels)
        assert asked == name.lower().removesuffix(b":80").removesuffix(b".")
        assert Matcher(RULES).decide(asked.decode("ascii"), Protocol.HTTPS, 443)
