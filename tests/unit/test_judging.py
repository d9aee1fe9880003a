"""Finding the smallest rules and request of which the policy and Envoy make something else."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from clawker_fw.rules.policy import Policy
from clawker_fw.rules.rule import Protocol
from devkit.judging import smallest
from devkit.requests import AskedRequest, Found, random_asked, random_entries, rules_of

PORTS = (8080, 8443)


def decides(found: Found) -> tuple[bool, str]:
    """Return whether a request is allowed, and by which words of a rule."""
    entries, asked = found
    try:
        policy = Policy(rules_of(entries))
    except ValueError:
        return False, ""
    decided = policy.decide(asked.name, Protocol.HTTPS, asked.port, asked.method, asked.target)
    return decided.allowed, str(decided.path or "")


@pytest.mark.parametrize(
    ("differs", "smallest_found"),
    [
        (
            lambda found: decides(found)[0] and "//" in found[1].target,
            ([{"dst": "a.test", "port": 8080}], AskedRequest("a.test", 8080, "GET", "//")),
        ),
        (
            lambda found: decides(found) == (True, "git write a/b") and found[1].over == "h2",
            (
                [{"dst": "a.test", "port": 8080, "git": {"a/b": "write"}}],
                AskedRequest("a.test", 8080, "POST", "/a/b/git-receive-pack", "h2"),
            ),
        ),
        (
            lambda found: decides(found)[1].endswith("/x/y") and not decides(found)[0],
            (
                [{"dst": "a.test", "port": 8080, "path_rules": [{"path": "/x/y", "action": "deny"}]}],
                AskedRequest("a.test", 8080, "GET", "/x/y"),
            ),
        ),
    ],
    ids=["a tricky path", "git", "a denied path"],
)
def test_what_has_nothing_to_do_with_a_difference_is_left_out(
    differs: Callable[[Found], bool], smallest_found: Found
) -> None:
    """Of many rules and a long request, what remains is needed for the difference."""
    entries: list[dict[str, Any]] = [
        {"dst": "c.test", "port": 8443, "inspect": True},
        {
            "dst": "a.test",
            "port": 8080,
            "inspect": True,
            "path_rules": [
                {"path": "/x/y", "action": "deny"},
                {"path": "/x", "methods": ["GET", "POST"]},
                {"path": "~/a/.*", "methods": ["PUT"]},
            ],
            "path_default": "allow",
            "git": {"a/b": "write", "a/c": "read"},
            "lfs": True,
        },
        {"dst": ".w.test", "action": "deny"},
    ]
    for asked in (
        AskedRequest("a.test", 8080, "PUT", "/b//c?q=1", "h2"),
        AskedRequest("a.test", 8080, "POST", "/a/b/git-receive-pack", "h2"),
        AskedRequest("a.test", 8080, "DELETE", "/x/y/z?q", "h2"),
    ):
        if differs((entries, asked)):
            assert smallest((entries, asked), differs) == smallest_found
            return
    raise AssertionError


def test_random_rules_contradict_nothing() -> None:
    """They and their requests can be tried, and they are of every kind."""
    chosen = random.Random(1)  # noqa: S311 - for variety
    words: set[str] = set()
    for _ in range(100):
        entries = random_entries(chosen, PORTS)
        rules_of(entries)
        words |= {key for each in entries for key, value in each.items() if value}
        assert random_asked(chosen, entries, PORTS).port in PORTS
    assert words >= {"path_rules", "path_default", "git", "lfs", "proto", "action", "insecure_skip_tls_verify"}
