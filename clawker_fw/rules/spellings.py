"""Expressions for paths that account for escapes. Pure.

Servers may read `%3A` as `:` and `%2F` as `/`. So deny expressions are widened to match every escaped spelling of
a match; allow expressions are narrowed so that an escape passes only where its character would. Both replace the
atoms of an expression, characters and character classes, with small syntax trees, which `_printed` writes. The
hexadecimal digits of an escape match in either case (RFC 3986, section 6.2.2.1).
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

import re2

RAW_OR_ESCAPED = "!$&'()*+,/:;=@[]"
"""Characters that a path may contain as they are or escaped (RFC 3986, section 2.2)."""

UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_VISIBLE = tuple(map(chr, range(0x21, 0x7F)))
_REFUSED_BELOW_A_DENY = frozenset("/\\?#")
"""Characters that no request may escape below the beginning of an expression that denies (`HIDING`)."""
_ESCAPABLE = tuple(
    character for character in map(chr, range(0x20, 0x7F)) if character not in UNRESERVED | _REFUSED_BELOW_A_DENY
)
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
_BEYOND_ASCII = "(?:%[89a-fA-F][0-9a-fA-F])+"

_ESCAPE = "%[0-9a-fA-F]{2}"
_ENDING, CUT = "(?:[.]|%20)", r"(?:;|%3[bB]|(?::|%3[aA]){2}(?:\$|%24))"
HIDING = f"(?:%2[fF]|%23|%3[fF]|{CUT}|{_ENDING}(?:[/?]|$))"
"""What lets a server read another path. Some read `%2F` as `/`, end a path at `%23` or `%3F`, or ignore the rest
of a segment from `;` (RFC 3986, section 3.3). Windows ignores last dots and spaces, and `x::$DATA` is `x`."""
SLASH = f"(?:{_ENDING}*(?:{CUT}[^/]*)?(?:/|%2[fF]))+"
"""An expression for everything that some server reads as one slash."""
BELOW = f"{_ENDING}*(?:(?:/|%2[fF]|%23|%3[fF]|{CUT}).*)?"
"""An expression for what may follow a path."""

_TOKEN = re.compile(
    r"""
    \\Q(?P<quoted>.*?)(?:\\E|$)
    | (?P<escape>%[0-9a-fA-F]{2})(?![*+?{])
    | (?P<boundary>\\[bB])
    | (?P<structure>\\[Az] | \(\?[imsU-]*[:)] | \(\?P?<\w+> | \{\d+(?:,\d*)?\} | [()|*+?^$])
    | (?P<class>
        \\[pP](?:\{\^?\w+\}|\w) | \\[dDwWsSC] | [.]
        | \[\^?\]?(?:\[:\^?\w+:\] | \\[pP]\{\^?\w+\} | \\Q.*?\\E | \\. | [^\]\\])*\]
      )
    | (?P<character>\\x(?:\{[0-9a-fA-F]+\} | [0-9a-fA-F]{2}) | \\[0-7]{1,3} | \\. | .)
    """,
    re.VERBOSE | re.DOTALL,
)


@functools.lru_cache(maxsize=4096)
def compiled(expression: str) -> Any:  # noqa: ANN401 - RE2's package has no types
    """Return a compiled expression. RE2, because agents choose the text to match and RE2 takes linear time.

    Callers use `programsize`, `fullmatch(text)` and `possiblematchrange(length)`, which returns the least and the
    greatest bytes of all matches, cut at about this length.

    Raises:
        ValueError: with RE2's message, when the expression is invalid.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        words = error.args[0] if error.args else error
        raise ValueError(words.decode() if isinstance(words, bytes) else str(words)) from error


_RANGE = 4_000
"""The length at which bounds are cut: more than the longest path in a rule."""


@functools.lru_cache(maxsize=4096)
def bounds(expression: str) -> tuple[bytes, bytes]:
    """Return the least and the greatest path that an expression may match."""
    first, last = compiled(expression).possiblematchrange(_RANGE)
    return first, last


class _Token(NamedTuple):
    """A part of an expression, and whether `*` or `+` follows it."""

    kind: str
    text: str
    repeated: bool


class _Characters(NamedTuple):
    """A character out of a set of code points."""

    codes: frozenset[int]


class _InOrder(NamedTuple):
    """Expressions one after another."""

    parts: "tuple[_Tree, ...]"


class _Either(NamedTuple):
    """One of several expressions."""

    choices: "tuple[_Tree, ...]"


_Tree = str | _Characters | _InOrder | _Either
"""The tree of an expression. Texts are expressions that are written as they are."""


def _printed(tree: _Tree) -> str:
    match tree:
        case str():
            return tree
        case _Characters(codes):
            return _class(codes)
        case _InOrder(parts):
            return "".join(map(_printed, parts))
        case _Either(choices):
            return f"(?:{'|'.join(map(_printed, choices))})"


def _tokens(expression: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(expression):
        kind = match.lastgroup or ""
        if kind == "quoted":
            yield from _of_text(match["quoted"])
        else:
            yield _Token(kind, match[0], expression[match.end() : match.end() + 1] in {"*", "+"})


def _of_text(text: str) -> Iterator[_Token]:
    for part in re.findall(f"{_ESCAPE}|.", text):
        escape = len(part) > 1
        yield _Token("escape" if escape else "character", part if escape else re.escape(part), repeated=False)


def _rewritten(rewrite: Callable[[_Token], _Tree], tokens: Iterable[_Token]) -> str:
    return _printed(_InOrder(tuple(map(rewrite, tokens))))


def literal(path: str) -> str:
    """Return an expression for a path, keeping its escapes."""
    return _rewritten(_in_either_case, _of_text(path))


def readings(path: str) -> str:
    """Return an expression for everything that some server reads as a path."""
    parts = re.split("(?:/|%2[fF])+", path)
    return SLASH.join(_rewritten(_widened, _of_text(part)) for part in parts)


def shortest(path: str) -> str:
    """Return the shortest path that some server reads."""
    plain = re.sub(f"(?:%23|%3[fF]).*|{CUT}[^/]*", "", path)
    return unquote(re.sub("(?:/|%2[fF])+", "/", re.sub(f"{_ENDING}+(?=/|%2[fF]|$)", "", plain)), "latin-1")


def uppercase(path: str) -> str:
    """Return a path with the hexadecimal digits of its escapes in upper case."""
    return re.sub(_ESCAPE, lambda match: match[0].upper(), path)


def with_query(expression: str) -> str:
    """Return an expression that also allows any query."""
    return rf"(?:{expression})(?:\?.*)?"


@functools.lru_cache(maxsize=4096)
def has_boundary(expression: str) -> bool:
    """Whether an expression uses word boundaries, which escapes move."""
    return any(token.kind == "boundary" for token in _tokens(expression))


@functools.lru_cache(maxsize=4096)
def widened(expression: str) -> str:
    """Return an expression for all escaped spellings of a match, without `HIDING`."""
    return _rewritten(_widened, _tokens(expression))


@functools.lru_cache(maxsize=4096)
def _widened(token: _Token) -> _Tree:
    kind, text, _ = token
    if kind == "escape":
        character = chr(int(text[1:], 16))
        escaped = _escaped([character])
        plain = (re.escape(character),) if character in RAW_OR_ESCAPED or character in UNRESERVED else ()
        return _Either((escaped, *plain))
    if kind not in {"character", "class"} or text == "%":
        return text
    matches = compiled(text).fullmatch
    if token.repeated and all(map(matches, ("%", *_HEXADECIMAL))):
        return text  # it matches an escape as three characters
    members = list(filter(matches, _ESCAPABLE))
    choices: list[_Tree] = [text]
    if members:
        choices.append(_escaped(members))
    if kind == "class" and matches("\u00e9"):
        choices.append(_BEYOND_ASCII)
    return _Either(tuple(choices)) if len(choices) > 1 else text


@functools.lru_cache(maxsize=4096)
def narrowed(expression: str) -> tuple[str, ...]:
    """Return expressions that must all match: an escape passes only where its character would, too.

    In the last one, a class matches an escape as one character. The original, if returned, checks repetitions.
    """
    tokens = list(_tokens(expression))
    narrow = _rewritten(_narrowed, tokens)
    counted = any(_takes_escapes(token) and not token.repeated for token in tokens)
    return (_rewritten(_in_either_case, tokens), narrow) if counted else (narrow,)


def _in_either_case(token: _Token) -> _Tree:
    if token.kind != "escape":
        return token.text
    return _InOrder(("%", *map(_digit, token.text[1:])))


def _digit(digit: str) -> _Tree:
    return _Characters(frozenset({ord(digit.upper()), ord(digit.lower())})) if digit.isalpha() else digit


def _takes_escapes(token: _Token) -> bool:
    return token.kind == "class" and compiled(token.text).fullmatch("%") is not None


@functools.lru_cache(maxsize=4096)
def _narrowed(token: _Token) -> _Tree:
    if not _takes_escapes(token):
        return _in_either_case(token)
    members = {character for character in _VISIBLE if compiled(token.text).fullmatch(character)}
    passing = (code for code in range(0x100) if chr(code) in members or chr(code) not in RAW_OR_ESCAPED)
    choices: list[_Tree] = []
    if plain := frozenset(map(ord, members - {"%"})):
        choices.append(_Characters(plain))
    if pairs := _pairs(passing, members & _HEXADECIMAL):
        choices.append(_InOrder(("%", _Either(pairs))))
    return _Either(tuple(choices))


def _escaped(characters: Iterable[str]) -> _Tree:
    return _InOrder(("%", _Either(_pairs(map(ord, characters), _HEXADECIMAL))))


def _pairs(codes: Iterable[int], digits: Iterable[str]) -> tuple[_Tree, ...]:
    """Return expressions for bytes as two hexadecimal digits out of the given ones."""
    usable = set(digits)
    second: dict[str, set[str]] = {}
    for code in codes:
        written = f"{code:02x}"
        for digit in {written[0], written[0].upper()} & usable:
            second.setdefault(digit, set()).update({written[1], written[1].upper()} & usable)
    alike: dict[frozenset[str], set[str]] = {}
    for digit, lasts in second.items():
        alike.setdefault(frozenset(lasts), set()).add(digit)
    pairs = (
        _InOrder((_Characters(frozenset(map(ord, firsts))), _Characters(frozenset(map(ord, lasts)))))
        for lasts, firsts in alike.items()
        if lasts
    )
    return tuple(sorted(pairs, key=_printed))


def _class(codes: Iterable[int]) -> str:
    ranges: list[list[int]] = []
    for code in sorted(codes):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    words = (_character(one) + (f"-{_character(last)}" if last > one else "") for one, last in ranges)
    return f"[{''.join(words)}]"


def _character(code: int) -> str:
    return chr(code) if chr(code) in UNRESERVED - {"-"} else f"\\x{code:02x}"
