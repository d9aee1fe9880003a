"""Discovery responses for Envoy, and values in them that are encoded only once."""

import json

from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.stack.resources import Encoded, discovery_response

TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda values: st.lists(values) | st.dictionaries(TEXT, values),
)


@given(st.lists(st.tuples(VALUES, VALUES)))
def test_what_is_encoded_before_leaves_the_bytes_as_they_are(pairs: list[tuple[object, object]]) -> None:
    """A response has the same bytes, whether values in it are encoded with it or before."""
    plain = [{"name": str(number), "a": [one], "z": other} for number, (one, other) in enumerate(pairs)]
    before = [
        {"name": str(number), "a": [Encoded(one)], "z": Encoded(other)}
        for number, (one, other) in enumerate(pairs)
    ]
    assert discovery_response(before) == discovery_response(plain)


def test_resources_and_their_fields_are_sorted() -> None:
    """Resources are sorted by name, and fields as well, so equal rules have equal files."""
    response = discovery_response([{"name": "b", "a": 1}, {"name": "a", "é": {"z": 1, "y": 2}}])
    assert response.decode().startswith('{"resources":[{"name":"a","é":{"y":2,"z":1}},{"a":1,"name":"b"}],')
    assert json.loads(response)["version_info"] == "0"
