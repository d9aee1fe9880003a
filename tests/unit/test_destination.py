"""`dst`: valid names, and the errors for others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawker_fw.rules.destination import Destination, parse_destination

LABEL = "a" * 63
LONG_NAME = ".".join([LABEL] * 3 + ["b" * 61])


@pytest.mark.parametrize(
    ("text", "name", "subtree"),
    [
        ("API.Example.COM", "api.example.com", False),
        ("api.example.com.", "api.example.com", False),
        (".Example.com.", "example.com", True),
        ("_dmarc.example.com", "_dmarc.example.com", False),
        ("--.example.com-", "--.example.com-", False),
        ("Bücher.example", "xn--bcher-kva.example", False),
        (f"{LABEL}.test", f"{LABEL}.test", False),
        (LONG_NAME, LONG_NAME, False),
    ],
)
def test_a_name_has_one_form(text: str, name: str, subtree: bool) -> None:  # noqa: FBT001 - a column of the table
    """Case, a final dot and international characters are normalized."""
    assert parse_destination(text) == Destination(name, subtree)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("https://a.test", "has a scheme"),
        ("a.test/path", "has a path"),
        ("a.test:443", "has a port"),
        ("a b.test", "has a space"),
        ("a..test", "has an empty label"),
        (f"{LABEL}a.test", "has a label of 64 characters"),
        (f"{LONG_NAME}b", "has 254 characters"),
        ("*.example.com", "write `.example.com`"),
        ("10.0.0.1", "is an address"),
        ("::1", "is an address"),
        ("0x7f.1", "is an address"),
        ("a!.test", "is not a host name: labels consist of letters, digits, `_` and `-`"),
        ("denied.invalid", "can never exist"),
        ("\u2028.test", "is not a valid international domain name"),
    ],
)
def test_what_is_no_name_is_refused_with_its_reason(text: str, complaint: str) -> None:
    """Each common error has its own message."""
    with pytest.raises(ValueError, match=complaint.replace("*", r"\*").replace("(", r"\(")):
        parse_destination(text)


@given(st.text(max_size=300))
def test_anything_is_either_canonical_or_refused(text: str) -> None:
    """Normalizing a normalized name does not change it."""
    try:
        destination = parse_destination(text)
    except ValueError:
        return
    assert parse_destination(str(destination)) == destination
