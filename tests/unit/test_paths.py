"""Rules by path, method and repository: their syntax, and what they decide."""

import itertools
import random
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clawker_fw.rules.path_words import MOST_PATHS, MOST_REPOSITORIES
from clawker_fw.rules.paths import HIDING_PATTERN, PathRule, Paths, also, seen
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.ruleset import MOST_INSPECTED, ConflictsError, RuleSet, TooManyError
from clawker_fw.rules.schema import RuleEntry, mistake
from devkit.requests import random_paths, random_request


def rule(**words: Any) -> Rule:  # noqa: ANN401 - as in the settings
    return RuleEntry.model_validate({"dst": "a.test", **words}).rule(words.get("note", ""))


def paths(**words: Any) -> Paths:  # noqa: ANN401 - as in the settings
    found = rule(**words).paths
    assert found is not None
    return found


def allow(path: str, *methods: str) -> dict[str, Any]:
    return {"path": path, **({"methods": [*methods]} if methods else {})}


def deny(path: str, *methods: str) -> dict[str, Any]:
    return {**allow(path, *methods), "action": "deny"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"inspect": True}, "https a.test:443 inspected"),
        ({"path_rules": [deny("/x")]}, "https a.test:443 inspected (deny /x, others)"),
        ({"path_rules": [allow("/x")], "path_default": "allow"}, "https a.test:443 inspected (/x, others)"),
        (
            {"path_rules": [allow("/x", "GET"), deny("/x", "DELETE"), allow("~/y[0-9]"), allow("/xy/z")]},
            "https a.test:443 inspected (/xy/z, deny DELETE /x, GET /x, 1 more (b16c99472b687002), deny others)",
        ),
        ({"git": {"a/b": "read"}, "lfs": True}, "https a.test:443 inspected (git read a/b, git lfs, deny others)"),
        (
            {"inspect": True, "insecure_skip_tls_verify": True, "port": 8443, "allow_private": True},
            "https a.test:8443 private inspected (unverified)",
        ),
        (
            {"git": {"a/b": "read"}, "inject": "github"},
            "https a.test:443 inspected (git read a/b, deny others, inject github as basic)",
        ),
        (
            {"path_rules": [allow("/")], "inject": {"secret": "x", "as": "raw"}},
            "https a.test:443 inspected (/, deny others, inject x as raw)",
        ),
    ],
)
def test_a_rule_is_one_line(words: dict[str, Any], text: str) -> None:
    """A rule's text is one line; a long list is shortened to a digest."""
    assert str(rule(**words)) == text


@pytest.mark.parametrize(
    ("written", "matched"),
    [
        ("/%70x", "/px"),
        ("/café/{id}", "/caf%C3%A9/%7Bid%7D"),
        ("/@scope%2fpkg", "/@scope%2Fpkg"),
        ("/100%25/a%20b", "/100%25/a%20b"),
    ],
)
def test_a_path_is_read_as_envoy_sees_it(written: str, matched: str) -> None:
    """Unneeded escapes are decoded; others are in upper case, as RFC 3986 recommends."""
    assert paths(path_rules=[allow(written)]).rules[0].path == matched


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        *(
            ({"path_rules": [allow(path)]}, sentence)
            for path, sentence in {
                "": "has to begin with `/`",
                "/x?y": "write the path before the `?`",
                "/a//b": "has an empty segment",
                "/a/../b": "has `.` or `..` in it",
                "/a/%2e%2e/b": "has an escaped dot",
                "/x/": "write `/x`, which is for everything below it, too",
                "/a b": "write a space as `%20`",
                "/a\\b": "write `/`",
                "/a/*": "`~` begins an expression",
                "/a%zz": "write `%25`",
                "/a%2541": "can never match",
                "/a/..;/b": "can be written without `..;`",
                f"/{'a' * 2000}": "has 2,001 characters; 2,000 is the most",
                "~/a|b": "has to begin with `/` in each of its alternatives",
                "~/(?=a)": "is not an expression of RE2: invalid perl operator",
                "~/(?:[^/]{1,60}/){12}": "is too large for Envoy",
                "~/é": "is not ASCII",
            }.items()
        ),
        ({"path_rules": [allow("/x", "get")]}, "write `GET`"),
        ({"path_rules": [allow("/x", "GET,HEAD")]}, "each by itself"),
        ({"path_rules": [allow("/x"), deny("/x")]}, "`/x` never decides: `deny /x` comes first"),
        (
            {"path_rules": [allow("/v1"), deny("~/v1/.*secret")]},
            "`deny ~/v1/.*secret` never decides: `/v1` comes first",
        ),
        ({"path_rules": [deny("/b"), allow("/b%2fc")]}, "hosts may read it as a path of `deny /b`"),
        (
            {"path_rules": [allow(f"/{n}") for n in range(MOST_PATHS + 1)]},
            "1,001 `path_rules`; 1,000 are the most",
        ),
        ({"git": {f"a/b{n}": "read" for n in range(MOST_REPOSITORIES + 1)}}, "101 repositories; 100 are the most"),
        ({"git": {"a/b.git": "read"}}, "write `a/b`, which is for both spellings"),
        ({"git": {"../b": "read"}}, "'../b' is not a repository"),
        ({"git": {"a/b": "admin"}}, "should be 'read' or 'write', not 'admin'"),
        ({"lfs": True, "inspect": True}, "`lfs` is about the repositories in `git`"),
        ({"path_default": "deny"}, "`path_default` needs `inspect: true`, `path_rules` or `git`"),
        ({"path_default": "deny", "inspect": True}, "leaves nothing"),
        ({"insecure_skip_tls_verify": True}, "needs `inspect: true`"),
        (
            {"inspect": False, "path_rules": [allow("/x")]},
            "`inspect: false` and `path_rules` contradict each other",
        ),
        ({"inspect": True, "proto": "http"}, "is for `proto: https`"),
        ({"inspect": True, "action": "deny"}, "is for rules that allow"),
        ({"inspect": True, "dst": "192.0.2.1", "as": "b.test"}, "is for names"),
        ({"inject": "github"}, "`github` would go with every request to the host"),
        ({"dst": ".a.test", "path_rules": [allow("/x")], "inject": "github"}, "needs an exact name"),
        (
            {"path_rules": [allow("/x")], "inject": "github", "insecure_skip_tls_verify": True},
            "anybody on the way would get `github`",
        ),
        ({"inject": "github", "inspect": False}, "contradict each other"),
        ({"inject": "github", "proto": "http"}, "nothing is inspected over http"),
        ({"path_rules": [allow("/x")], "inject": "Git.Hub"}, "is not a name for a secret"),
        ({"path_rules": [allow("/x")], "inject": {"secret": "x", "as": "digest"}}, "inject"),
        ({"path_rules": [deny(r"~/a\b.*")]}, "an escape has other boundaries"),
        ({"path_rules": [deny("~/[^/]{1,200}")]}, "is too large for Envoy"),
        ({"path_rules": [allow("/v1", "GET"), allow("~/v1/x", "POST")]}, "`POST ~/v1/x` never decides: `GET /v1`"),
        ({"path_rules": [allow("/x", "TRACK")]}, "TRACK, which is always refused"),
    ],
)
def test_a_mistake_is_one_sentence_with_what_to_write(words: dict[str, Any], sentence: str) -> None:
    """A path that could never match, or would match something unexpected, is an error with a correction."""
    with pytest.raises(ValidationError) as caught:
        rule(**words)
    assert sentence in "; ".join(map(mistake, caught.value.errors()))


def test_an_odd_path_is_a_bad_request_wherever_its_method_is_not_allowed() -> None:
    """The reason is that of Envoy, which has no route for the methods that nothing allows."""
    limited = paths(path_rules=[allow("/a", "GET"), deny("~/(?:a|b)+", "DELETE")], path_default="deny")
    assert limited.decide("DELETE", "/a/%2fb;b").reason is Reason.BAD_REQUEST


def test_two_rules_for_the_same_must_say_the_same_of_paths() -> None:
    """Contradictory paths for one host are an error with both places; equal rules are merged."""
    one, other, plain = rule(inspect=True, note="1"), rule(path_rules=[allow("/x")], note="2"), rule(note="3")
    for first, second, why in (
        (one, other, "differ in their paths"),
        (other, plain, "only one of them inspects TLS"),
    ):
        with pytest.raises(ConflictsError, match=why) as caught:
            RuleSet.of([first, second])
        assert {caught.value.conflicts[0].first.place, caught.value.conflicts[0].second.place} == {
            first.place,
            second.place,
        }
    assert len(RuleSet.of([one, rule(inspect=True)]).rules) == 1
    assert RuleSet.of([one]).digest != RuleSet.of([plain]).digest


@pytest.mark.parametrize(
    ("words", "added", "expected"),
    [
        ({"path_rules": [allow("/v1", "GET")]}, allow("/v1/x", "POST"), ["GET,POST /v1/x"]),
        ({"path_rules": [allow("/v1", "GET")]}, allow("/v1/x"), ["/v1/x"]),
        ({"path_rules": [allow("/v1")]}, allow("/v1/x", "POST"), ["/v1/x"]),
        ({"path_rules": [deny("/v1", "POST", "PUT")]}, allow("/v1/x", "POST"), ["deny PUT /v1/x", "/v1/x"]),
        ({"path_rules": [allow("~/v1/.*", "GET")]}, allow("/v1/x", "POST"), ["GET,POST /v1/x"]),
        ({"path_rules": [allow("/v1", "GET")]}, allow("~/v1/x", "POST"), ["POST ~/v1/x"]),
        ({"path_rules": [allow("/v1", "GET")]}, deny("/v1/x", "GET"), ["deny GET /v1/x"]),
    ],
)
def test_a_longer_path_that_is_added_repeats_what_its_path_allows(
    words: dict[str, Any], added: dict[str, Any], expected: list[str]
) -> None:
    """A longer path decides for all methods, so adding it repeats the methods allowed by the shorter path."""
    (new,) = paths(**{**words, "path_rules": [added], "path_default": None}).rules
    assert [*map(str, also(paths(**words), new))] == expected


def readings(path: str) -> set[str]:
    """Return what servers may read: `%2F` as `/`, `;` as the end of a segment, and no last dots."""
    parts = ([part, "/"] if part in {"%2F", "%2f"} else [part] for part in re.split("(%2[fF])", path))
    found = {"".join(each) for each in itertools.product(*parts)}
    for ignored in ("%23.*|%3[fF].*", "(?:;|%3[bB]|::[$])[^/]*", "(?:;|%3[bB]).*", "(?:[.]|%20)+(?=/|$)"):
        found |= {re.sub(ignored, "", each) for each in found}
    found |= {re.sub("%2[fF]", "/", each) for each in found}
    return {re.sub("/+", "/", each) for each in found}


@given(st.randoms(use_true_random=False))
def test_no_reading_of_an_allowed_request_is_denied(chosen: random.Random) -> None:
    """No server reads an allowed request as a denied one, or as a limited one, unless a rule spells its path."""
    words, made = random_paths(chosen)
    for _ in range(50):
        method, target = random_request(chosen, words)
        normal = seen(target) or ""
        path, mark, query = normal.partition("?")
        decided = made.decide(method, target)
        if normal and decided.reason is None:
            spelled = isinstance(decided.by, PathRule) and HIDING_PATTERN.search(decided.by.path)
            for reading in readings(path):
                refused = replace(made, others=True).decide(method, reading + mark + query)
                assert refused.reason is None or (spelled and not refused.by), (words, target, reading)


def test_so_many_rules_look_into_tls() -> None:
    """The number is limited: each has routes and filter chains, which cost Envoy time and at least 20 KB."""
    many = [rule(dst=f"n{number}.test", inspect=True) for number in range(MOST_INSPECTED + 1)]
    assert len(RuleSet.of(many[1:]).rules) == MOST_INSPECTED
    with pytest.raises(TooManyError, match="10,001 rules that inspect TLS; at most 10,000"):
        RuleSet.of(many)


@given(st.lists(st.randoms(use_true_random=False), min_size=2, max_size=4))
def test_different_paths_are_different_lines(chosen: list[random.Random]) -> None:
    """Rules with different paths have different texts."""
    made = [random_paths(each)[1] for each in chosen]
    assert len(set(made)) == len(set(map(str, made)))
    assert all("\n" not in str(each) for each in made)
