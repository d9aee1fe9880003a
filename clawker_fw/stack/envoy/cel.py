"""CEL expressions over Envoy's attributes: a syntax tree, and one printer.

The printer writes only the parentheses that the grammar requires (CEL's language definition, "Syntax").
"""

import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass


class Expression:
    """An expression. Its methods return larger ones, in which texts and numbers are literals."""

    def is_set(self) -> "Expression":
        """Whether the request or connection has this attribute. Reading an absent one is an error."""
        return Call("has", (self,))

    def equals(self, value: "str | int") -> "Expression":
        """Whether it is this text or number."""
        return Binary("==", self, Literal(value))

    def differs_from(self, value: "str | int | Expression") -> "Expression":
        """Whether it is not this text, number or value."""
        return Binary("!=", self, value if isinstance(value, Expression) else Literal(value))

    def is_in(self, values: "Iterable[str] | Expression") -> "Expression":
        """Whether it is one of these texts, or a key of a map."""
        return Binary("in", self, values if isinstance(values, Expression) else Literal(tuple(values)))

    def less_than(self, number: int, *, unsigned: bool = False) -> "Expression":
        """Whether it is less than a number, which may be of the unsigned type."""
        return Binary("<", self, Literal(number, unsigned))

    def starts_with(self, text: str) -> "Expression":
        """Whether it begins with a text."""
        return Call("startsWith", (Literal(text),), self)

    def ends_with(self, text: str) -> "Expression":
        """Whether it ends with a text."""
        return Call("endsWith", (Literal(text),), self)

    def contains(self, text: str) -> "Expression":
        """Whether it contains a text."""
        return Call("contains", (Literal(text),), self)

    def matches(self, regular_expression: str) -> "Expression":
        """Whether a part of it matches a regular expression (RE2)."""
        return Call("matches", (Literal(regular_expression),), self)

    def has_bit(self, number: int) -> "Expression":
        """Whether a bit of a number is set, counted from 0. CEL has no operators on bits."""
        return Binary("%", Binary("/", self, Literal(1 << number)), Literal(2)).equals(1)

    def __and__(self, other: "Expression") -> "Expression":
        """Whether both are true."""
        return Binary("&&", self, other)

    def __or__(self, other: "Expression") -> "Expression":
        """Whether one of them is true."""
        return Binary("||", self, other)

    def __invert__(self) -> "Expression":
        """Whether it is false."""
        return Not(self)


@dataclass(frozen=True, slots=True)
class Attribute(Expression):
    """An attribute of Envoy, such as `response.code`."""

    path: str


@dataclass(frozen=True, slots=True)
class Literal(Expression):
    """A text, a number, a truth value, or a list of texts. `unsigned` numbers have another type."""

    value: str | int | tuple[str, ...]
    unsigned: bool = False


@dataclass(frozen=True, slots=True)
class Call(Expression):
    """A call of a function, or of a method of `subject`."""

    function: str
    arguments: tuple[Expression, ...]
    subject: Expression | None = None


@dataclass(frozen=True, slots=True)
class Not(Expression):
    """A negation."""

    operand: Expression


@dataclass(frozen=True, slots=True)
class Binary(Expression):
    """Two expressions with an operator between them."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Choice(Expression):
    """One of two expressions, by a condition."""

    condition: Expression
    then: Expression
    otherwise: Expression


_CHOICE, _OR, _AND, _RELATION, _PRODUCT, _UNARY, _PRIMARY = range(7)
"""How tightly expressions bind, the loosest first."""

_BINDINGS = {"||": _OR, "&&": _AND, "/": _PRODUCT, "%": _PRODUCT}


def any_of(expressions: Iterable[Expression]) -> Expression:
    """Return whether at least one of some expressions is true, which is false for none."""
    several = [*expressions]
    return functools.reduce(operator.or_, several) if several else Literal(value=False)


def printed(expression: Expression, least: int = _CHOICE) -> str:
    """Return an expression as text, in parentheses if it binds less tightly than `least`."""
    binding = _PRIMARY
    match expression:
        case Attribute(text):
            pass
        case Literal(value, unsigned):
            text = _literal(value) + ("u" if unsigned else "")
        case Call(function, arguments, subject):
            method = f"{printed(subject, _PRIMARY)}." if subject else ""
            text = f"{method}{function}({', '.join(map(printed, arguments))})"
        case Not(operand):
            text, binding = f"!{printed(operand, _UNARY)}", _UNARY
        case Binary(symbol, left, right):
            binding = _BINDINGS.get(symbol, _RELATION)
            associative = binding in {_OR, _AND}
            text = f"{printed(left, binding)} {symbol} {printed(right, binding + (not associative))}"
        case Choice(condition, then, otherwise):
            text = f"{printed(condition, _OR)} ? {printed(then, _OR)} : {printed(otherwise)}"
            binding = _CHOICE
        case _:
            raise TypeError(f"{expression!r} can't be printed")
    return text if binding >= least else f"({text})"


def _literal(value: str | int | tuple[str, ...]) -> str:
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, int):
        return str(value).lower()  # also truth values
    return f"[{', '.join(map(_literal, value))}]"
