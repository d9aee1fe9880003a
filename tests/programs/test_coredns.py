"""The real CoreDNS with our policy plugin, on loopback, compared with the policy."""

import ctypes
import itertools
import os
import random
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.stack.release import Release
from devkit.coredns import ADDRESSING, Program, document
from devkit.dns import query
from devkit.stacks import rule_set
from devkit.strategies import names_near, random_rules
from devkit.waiting import until
from tests.programs.observed import observed_rules

ENVOY = ADDRESSING.envoy(0)
QUESTIONS = 40_000

MOST_LONGER = 256
"""Bytes by which an answer may be longer than its query."""

REFUSED, ADDRESS, EMPTY = 3, 0, 0
"""Response codes (RFC 1035, section 4.1.1)."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Program]:
    """The resolver, for all tests of this module."""
    with Program(tmp_path_factory.mktemp("coredns"), release) as started:
        yield started


def test_coredns_answers_what_the_policy_resolves(program: Program, pytestconfig: pytest.Config) -> None:
    """For any combination of rules, exactly the names that a rule allows have an address."""
    seed = secrets.randbits(32)
    chosen = random.Random(seed)  # noqa: S311 - for variety
    questions = QUESTIONS * pytestconfig.getoption("--thorough")
    asked = allowed = 0
    while asked < questions:
        rules = observed_rules(chosen, chosen.choice((0, 1, 5, 50, 500, 2000)))
        program.serve(rules)
        compiled = Policy(rules)
        ordered = sorted(compiled.opaque)
        for name, answer in zip(names := _sample(chosen, rules), program.resolver.ask_all(names), strict=True):
            own = ADDRESSING.virtual(0, ordered.index(name)) if name in compiled.opaque else ENVOY
            expected = (0, (str(own),)) if compiled.resolves(name) else (REFUSED, ())
            assert (answer.code, answer.addresses) == expected, f"{name} of seed {seed}"
            allowed += answer.code == 0
        asked += len(names)
    assert questions / 20 < allowed < asked - questions / 20


def _sample(chosen: random.Random, rules: RuleSet) -> Sequence[str]:
    near = names_near(rules)
    return chosen.sample(near, min(len(near), 5000))


def test_a_name_ends_by_itself(program: Program) -> None:
    """Without a new list, a name no longer exists once its rule has expired."""
    until_ = int(time.time()) + 2
    ending = {"dst": ".ends.test", "until": datetime.fromtimestamp(until_, UTC).isoformat()}
    program.serve(rule_set("a.test", ending)[1])
    names = ("ends.test", "x.ends.test")
    assert all(program.ask(name).addresses == (str(ENVOY),) for name in names)
    until(lambda: all(program.ask(name).code == REFUSED for name in names))
    assert until_ <= time.time() <= until_ + 10
    assert program.ask("a.test").addresses == (str(ENVOY),)


def test_the_name_of_the_page_always_has_an_address(program: Program) -> None:
    """Whatever the rules, `clawker.internal` has Envoy's address, and names below it have none."""
    around = {"dst": ".internal", "force": True}
    for rules in ([], [around], [{"dst": ".internal", "action": "deny"}]):
        program.serve(rule_set(*rules)[1])
        assert program.ask("clawker.internal").addresses == (str(ENVOY),)
        assert program.ask("CLAWKER.internal").addresses == (str(ENVOY),)
        assert program.ask("x.clawker.internal").code == REFUSED
        assert (program.ask("other.internal").code == REFUSED) == (around not in rules)


def test_answers_repeat_the_question_as_it_was_asked(program: Program) -> None:
    """Names in mixed case, which clients use against forged answers, come back unchanged, also over TCP."""
    program.serve(rule_set("a.test")[1])
    for tcp in (False, True):
        answer = program.resolver.ask(query("A.tEsT"), tcp=tcp)
        assert (answer.code, answer.name, answer.ttl) == (0, b"\x01A\x04tEsT\x00", 1)


def test_an_answer_is_hardly_longer_than_its_question(program: Program) -> None:
    """Answers have at most one record, and a reason on request, so that they can't flood a spoofed victim."""
    program.serve(rule_set("a.test", "b.test")[1])
    for kind, name, edns in itertools.product(
        (1, 16, 28, 48, 255), ("a.test", "no.test", "x" * 63), (False, True)
    ):
        question = query(name, kind=kind, edns=edns)
        assert len(program.resolver.ask(question).message) <= len(question) + MOST_LONGER, (kind, name, edns)


def test_refusals_explain_themselves_to_those_who_ask(program: Program) -> None:
    """A refusal has an Extended DNS Error if the query has EDNS; other answers never have one (RFC 8914)."""
    program.serve(rule_set("a.test")[1])
    text = f"{Reason.NO_RULE.sentence}: clawker-fw explain https://b.test".encode()
    for tcp in (False, True):
        assert b"\x00\x0f" + text in program.resolver.ask(query("b.test", edns=True), tcp=tcp).message
    assert b"no rule" not in program.ask("b.test").message
    assert b"no rule" not in program.ask("a.test", edns=True).message


def test_refusals_are_not_kept(program: Program) -> None:
    """A newly allowed name resolves at once, because the negative TTL is one second."""
    program.serve(RuleSet())
    assert (program.ask("late.test").code, program.ask("late.test").ttl) == (REFUSED, 1)
    program.serve(rule_set("late.test")[1])
    assert (program.ask("late.test").addresses, program.ask("late.test").ttl) == ((str(ENVOY),), 1)


@pytest.mark.parametrize("content", [b"", b'{"ttl":1,"addresses":{},"names":{"A.test":{"at":"deny"}}}', None])
def test_a_list_that_cannot_be_used_leaves_the_old_one_in_force(content: bytes | None, program: Program) -> None:
    """An unreadable or missing list is not loaded, the old one stays, and the process reports the reason."""
    program.serve(rule_set("a.test")[1])
    before = program.status
    if content is None:
        program.list.unlink()
    else:
        program.write(content)
    refused = until(lambda: found if (found := program.status)["reason"] else None)
    assert refused["digest"] == before["digest"]
    assert program.ask("a.test").code == 0
    program.serve(rule_set("b.test")[1])
    assert (program.ask("a.test").code, program.ask("b.test").code) == (REFUSED, 0)
    assert program.status["reason"] == ""


def test_no_query_is_lost_while_lists_change(program: Program) -> None:
    """Every query is answered from exactly one list, the old or the new one."""
    always = rule_set({"dst": "always.example", "allow_private": True})[1]
    program.serve(always)
    rules = [random_rules(random.Random(number), 2000) for number in range(2)]  # noqa: S311 - for variety
    documents = [document(RuleSet.of([*each.rules, *always.rules])) for each in rules]
    end = time.monotonic() + 1
    for number in itertools.count():
        program.write(documents[number % 2])
        assert [each.code for each in program.resolver.ask_all(["always.example", "b.none"] * 200)] == [
            0,
            REFUSED,
        ] * 200
        if time.monotonic() > end:
            break


_PIDFD_GETFD = 438
"""The number of pidfd_getfd(2) on every architecture."""


def _fail(process: int, port: int) -> None:
    """Make a process's next accept at a port fail."""
    listening = next(
        fields[9]
        for fields in map(str.split, Path(f"/proc/{process}/net/tcp6").read_text().splitlines())
        if fields[1].endswith(f":{port:04X}") and fields[3] == "0A"
    )
    files = Path(f"/proc/{process}/fd").iterdir()
    file = next(each for each in files if str(each.readlink()) == f"socket:[{listening}]")
    there = os.pidfd_open(process)
    copied = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, there, int(file.name), 0)
    os.close(there)
    assert copied >= 0, os.strerror(ctypes.get_errno())
    with socket.socket(fileno=copied) as listener:
        listener.shutdown(socket.SHUT_RDWR)


def test_coredns_ends_with_a_listener(tmp_path: Path, release: Release) -> None:
    """If it can't accept connections any more, CoreDNS exits, so that the engine restarts it."""
    with Program(tmp_path, release) as started:
        assert started.resolver.ask(query("a.test"), tcp=True).code == REFUSED
        assert started.process.poll() is None
        _fail(started.process.pid, started.port)
        assert started.process.wait(30) == 1
