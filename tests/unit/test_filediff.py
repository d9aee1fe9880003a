"""Unified diffs: equal to the standard library's, and fast for large files."""

import json

from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.report.filediff import unified

LINES = st.lists(st.text("abc", min_size=1, max_size=2), max_size=30)


def text(lines: list[str]) -> bytes:
    """Return the content of a file with these lines."""
    return "".join(f"{line}\n" for line in lines).encode()


def patched(before: list[str], diff: list[str]) -> list[str]:
    """Apply a unified diff, as patch(1) does."""
    result: list[str] = []
    at = 0
    for line in diff[2:]:
        if line.startswith("@@"):
            start, _, length = line.split()[1].removeprefix("-").partition(",")
            to = int(start) - (length != "0")
            result += before[at:to]
            at = to
        elif line.startswith("+"):
            result.append(line[1:].rstrip("\n"))
        else:
            assert before[at] == line[1:].rstrip("\n")
            if line.startswith(" "):
                result.append(before[at])
            at += 1
    return result + before[at:]


@given(LINES, LINES)
def test_a_diff_leads_from_the_one_to_the_other(before: list[str], after: list[str]) -> None:
    """Applied to the first file, the diff gives the second one; for equal files it is empty."""
    diff = list(unified(text(before), text(after), "one", "other"))
    assert patched(before, diff) == after
    assert bool(diff) == (before != after)


def test_large_json_is_spread_over_lines_without_its_version() -> None:
    """One more name among thousands adds one line."""
    names = [f"host{number}.example.com" for number in range(10_000)]
    before, after = (
        json.dumps({"version_info": version, "resources": names + more}, separators=(",", ":")).encode()
        for version, more in (("1", []), ("2", ["new.example.com"]))
    )
    diff = list(unified(before, after, "one", "other"))
    assert '+"new.example.com"]}\n' in diff
    assert not any("version_info" in line for line in diff)
    assert len(diff) < 10
