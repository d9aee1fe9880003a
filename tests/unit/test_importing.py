"""Reading a rules file of clawker."""

from pathlib import Path
from typing import Any

import pytest

from clawker_fw.rules.importing import Imported, import_rules
from clawker_fw.settings.document import document_of

ELSEWHERE = "may match other requests there; write it in the settings"
"""Why what is said about paths is not imported."""


def imported(text: str) -> list[Imported]:
    """Return what becomes of each entry."""
    document = document_of(text, Path("old.yaml"))
    return import_rules(document.values, document.place)


def one(entry: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the rule of one entry, and the remarks about it."""
    (found,) = imported(f"rules:\n- {entry}\n")
    return str(found.rule) if found.rule else None, found.remarks


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ("{dst: .a.test, proto: https, port: 443, action: allow}", "https .a.test:443"),
        ("{dst: a.test, proto: tls, port: 0}", "https a.test:443"),
        ("{dst: a.test, proto: ws, port: 8080}", "http a.test:8080"),
        (
            "{dst: a.test, path_rules: [], path_default: '', insecure_skip_tls_verify: false}",
            "https a.test:443",
        ),
        ("{dst: a.test, proto: http, port: 1, action: deny}", "deny http a.test:1"),
    ],
)
def test_an_entry_is_taken_over(entry: str, rule: str) -> None:
    """Without a remark, it means the same."""
    assert one(entry) == (rule, ())


@pytest.mark.parametrize(
    ("entry", "rule", "remark"),
    [
        ("{dst: '*.a.test'}", "https .a.test:443", "is for a.test itself as well"),
        ("{dst: a.test, proto: http, action: deny}", "deny http a.test", "without a port, it denies every port"),
    ],
)
def test_a_difference_is_named(entry: str, rule: str, remark: str) -> None:
    """The rule is taken over, and what differs is said."""
    found, (said,) = one(entry)
    assert found == rule
    assert remark in said


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (
            "{dst: a.test, path_rules: [{path: /x}]}",
            "`path_rules` denies `/x`, there also what only begins like it",
        ),
        (
            "{dst: a.test, path_rules: [{path: /x, action: allow}], path_default: allow}",
            f"`path_default` {ELSEWHERE}",
        ),
        ("{dst: a.test, path_rules: [{path: /x/, action: allow}]}", "`path: /x/` ends in `/`"),
        (
            "{dst: a.test, path_rules: [{path: /x, action: allow, headers: {}}]}",
            "`headers` in `path_rules` is not",
        ),
        ("{dst: a.test, path_rules: [{path: /x, action: allow, methods: GET}]}", "`path_rules.0.methods`: "),
        ("{dst: a.test, insecure_skip_tls_verify: true}", f"`insecure_skip_tls_verify` {ELSEWHERE}"),
        ("{dst: a.test, proto: opaque, port: 22}", "`proto: opaque` is not supported yet"),
        ("{dst: a.test, methods: [GET]}", "`methods` is not known, and its meaning would be lost"),
        ("a.test", "it is not a mapping"),
    ],
)
def test_an_entry_that_cannot_be_kept_is_left_out(entry: str, reason: str) -> None:
    """No rule is made of it: a rule without its restriction would allow more."""
    rule, reasons = one(entry)
    assert rule is None
    assert any(each.startswith(reason) for each in reasons)


@pytest.mark.parametrize(
    ("entry", "rule", "remarks"),
    [
        (
            "{dst: a.test, path_rules: [{path: /v1, action: Allow}], path_default: deny}",
            "https a.test:443 inspected (/v1, deny others)",
            ("`/v1` is now for what is below it, and not for `/v1x`", "WebSockets need `proto: wss`"),
        ),
        (
            "{dst: a.test, proto: wss, path_rules: [{path: /v1, action: allow, methods: [POST, GET]}]}",
            "https a.test:443 inspected (GET,POST /v1, deny others, websocket)",
            ("`/v1` is now for what is below it, and not for `/v1x`",),
        ),
    ],
)
def test_paths_that_are_allowed_are_for_less(entry: str, rule: str, remarks: tuple[str, ...]) -> None:
    """Whatever is not named is refused, as it was, and so is what only begins like a path."""
    assert one(entry) == (rule, remarks)


def test_what_leaving_out_a_denial_means_is_said() -> None:
    """Another rule may allow what it denied."""
    rule, reasons = one("{dst: a.test, action: Deny, path_rules: [{path: /x}]}")
    assert rule is None
    assert "what it denied may be allowed by another rule" in reasons


def test_every_entry_has_its_line_and_other_settings_are_named() -> None:
    """The lines are those of the file; what is no rule is not ignored silently."""
    found = imported("version: 1\nrules:\n  - dst: a.test\n\n  - dst: b.test\n    path_rules: [{path: /}]\n")
    assert [(each.place, each.rule is None) for each in found] == [
        ("old.yaml, line 3", False),
        ("old.yaml, line 5", True),
        ("old.yaml, line 1", True),
    ]
    assert [each.entry for each in found] == ["", "b.test", "version"]


@pytest.mark.parametrize("values", [{}, {"rules": {"dst": "a.test"}}, {"rules": "a.test"}])
def test_a_file_without_a_list_of_rules_is_an_error(values: dict[str, Any]) -> None:
    """It is not taken for a file with no rules."""
    with pytest.raises(ValueError, match="it has no `rules`"):
        import_rules(values, str)
