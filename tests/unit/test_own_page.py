"""The page that shows agents their refusals: its name is reserved."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from clawker_fw.diagnose.explanation import Explainer
from clawker_fw.diagnose.remedies import remedy_of
from clawker_fw.rules.target import parse_target
from devkit.stacks import rule_set

NOW = 1_800_000_000.0

AROUND: Mapping[str, Any] = {"dst": ".internal", "force": True}
RULES: tuple[tuple[Mapping[str, Any], ...], ...] = (
    (),
    (AROUND,),
    ({**AROUND, "proto": "http"}, {**AROUND, "proto": "http", "port": 8080}),
)


@pytest.mark.parametrize(
    "entry",
    [
        {"dst": ".clawker.internal"},
        {"dst": "x.clawker.internal", "proto": "http"},
        {"dst": "clawker.internal", "action": "deny"},
        {"dst": "192.0.2.1", "as": "clawker.internal", "proto": "tcp", "port": 80},
        {"dst": "host", "as": "clawker.internal", "proto": "tcp", "port": 80},
    ],
)
def test_no_rule_is_for_the_name(entry: Mapping[str, Any]) -> None:
    """A rule for the page's name, or one below it, is refused with an explanation."""
    with pytest.raises(
        ValidationError, match=r"can't be in a rule: clawker\.internal is the page on which agents"
    ):
        rule_set(entry)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ("http://clawker.internal/", True),
        ("http://clawker.internal:8080", False),
        ("https://clawker.internal", False),
        ("http://x.clawker.internal", False),
        ("tcp://clawker.internal:80", False),
    ],
)
def test_explain_knows_it(rules: tuple[Mapping[str, Any], ...], asked: str, *, allowed: bool) -> None:
    """`explain` allows the page without a rule, and explains that no rule can cover its name."""
    explained = Explainer(rule_set(*rules)[1], NOW).explain(parse_target(asked))
    remedy = remedy_of(explained)
    assert (explained.allowed, explained.rule, explained.is_own_page) == (allowed, None, allowed)
    assert (remedy and remedy.text) == (None if allowed else "No rule can be for this name.")
    assert allowed or explained.sentence.startswith("this name is kept for http://clawker.internal/")
