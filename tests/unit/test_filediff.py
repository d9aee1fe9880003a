"""What differs between two versions of a file: values of JSON, and lines."""

import json

import pytest

from clawker_fw.report.filediff import changes, unified


def test_large_json_is_spread_over_lines_without_its_version() -> None:
    """One more name among thousands adds one line."""
    names = [f"host{number}.example.com" for number in range(10_000)]
    before, after = (
        json.dumps({"version_info": version, "resources": names + more}, separators=(",", ":")).encode()
        for version, more in (("1", []), ("2", ["new.example.com"]))
    )
    diff = list(unified(before, after, "one", "other"))
    assert '+  "new.example.com"\n' in diff
    assert not any("version_info" in line for line in diff)
    assert len(diff) <= 10


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"version_info": "1", "a": 1}, {"version_info": "2", "a": True}, ["a: 1 → true"]),
        ({"a": None}, {"b": "x"}, ["- a: null", "+ b: x"]),
        (["x", "y", "y"], ["y"], ["- x", "- y"]),
        ([{"name": "p", "v": 1}, {"name": "q"}], [{"name": "p", "v": 2}], ["p.v: 1 → 2", '- q: {"name": "q"}']),
        ({"a": "x" * 100}, {"a": "y"}, [f"a: {'x' * 59}… → y"]),
    ],
)
def test_a_change_of_json_is_a_line_for_each_value(before: object, after: object, expected: list[str]) -> None:
    """With the value's path, without what is equal."""
    assert [str(each) for each in changes(*(json.dumps(each).encode() for each in (before, after)))] == expected


@pytest.mark.parametrize("other", [b"more\n", b"", b"\xff", b"[" * 100_000])
def test_what_is_no_json_has_no_values(other: bytes) -> None:
    """It has hunks instead."""
    assert changes(other, b"{}") == []
