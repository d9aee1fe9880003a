"""The printer of CEL expressions."""

import pytest

from clawker_fw.stack.envoy.cel import Attribute, Choice, Expression, Literal, any_of, printed

A, B, C = map(Attribute, "abc")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (A & B | C, "a && b || c"),
        (A & (B | C), "a && (b || c)"),
        (A & (B & C), "a && b && c"),
        (~A & ~(A & B), "!a && !(a && b)"),
        (~A.contains("x"), "!a.contains('x')"),
        ((A | B).equals("x"), "(a || b) == 'x'"),
        (A.has_bit(7), "a / 128 % 2 == 1"),
        (A.less_than(2, unsigned=True), "a < 2u"),
        (A.is_in(["x", "y"]), "a in ['x', 'y']"),
        (A.equals(r"it's \d"), r"a == 'it\'s \\d'"),
        (Choice(A, B, Choice(B, C, A)), "a ? b : b ? c : a"),
        (Choice(A, Choice(B, C, A), B), "a ? (b ? c : a) : b"),
        (Choice(A, B, C) & A, "(a ? b : c) && a"),
        (any_of([]), "false"),
        (any_of(map(Literal, "xy")), "'x' || 'y'"),
    ],
)
def test_parentheses_are_written_where_the_grammar_requires_them(expression: Expression, text: str) -> None:
    """CEL binds `!` more tightly than `/`, then relations, `&&`, `||` and `?:`."""
    assert printed(expression) == text
