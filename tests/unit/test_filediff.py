"""Values that differ between two versions of a file, as `drift --diff` shows them."""

import json

from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.report.filediff import changes, shortened


def test_a_long_value_is_shown_where_it_differs() -> None:
    """A long value is shown only around its difference."""
    before = "%CEL((xds.route_name == 'refused' && has(response.code_details)) ? 'denied' : ('no-rule'))%"
    after = before.replace("no-rule", "wrong-port")
    assert shortened(before, after) == ("…? 'denied' : ('no-rule'))%", "…? 'denied' : ('wrong-port'))%")


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=90), st.text(max_size=90))
def test_what_differs_is_never_cut_away(start: str, end: str, one: str, other: str) -> None:
    """Two different values are never shown alike, and none is long."""
    before, after = start + one + end, start + other + end
    shown = shortened(before, after)
    assert (shown[0] == shown[1]) == (before == after)
    assert max(map(len, shown)) <= 62


def test_a_changed_value_of_json_is_shown_in_context() -> None:
    """A changed JSON value is shown with its path."""
    before, after = ({"log": {"reason": f"{'x' * 100}{end}"}} for end in ("one", "two"))
    (change,) = changes(json.dumps(before).encode(), json.dumps(after).encode())
    assert str(change) == f"log.reason: …{'x' * 15}one → …{'x' * 15}two"
