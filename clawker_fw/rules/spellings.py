"""Expressions for paths that account for escapes. Pure.

Servers may read `%3A` as `:` and `%2F` as `/`. So deny expressions are widened to match every escaped spelling of
a match; allow expressions are narrowed so that an escape passes only where its character would. Both rewrite the
atoms of an expression: characters and character classes. The hexadecimal digits of an escape match in either case
(RFC 3986, section 6.2.2.1).
"""

import functools
import re
from collections.abc import Iterable, Iterator
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


def literal(path: str) -> str:
    """Return an expression for a path, keeping its escapes."""
    return "".join(map(_in_either_case, _of_text(path)))


def readings(path: str) -> str:
    """Return an expression for everything that some server reads as a path."""
    parts = re.split("(?:/|%2[fF])+", path)
    return SLASH.join("".join(map(_widened, _of_text(part))) for part in parts)


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
    return "".join(map(_widened, _tokens(expression)))


@functools.lru_cache(maxsize=4096)
def _widened(token: _Token) -> str:
    kind, text, _ = token
    if kind == "escape":
        character = chr(int(text[1:], 16))
        plain = [re.escape(character)] if character in RAW_OR_ESCAPED or character in UNRESERVED else []
        return f"(?:{'|'.join([_escaped([character]), *plain])})"
    if kind not in {"character", "class"} or text == "%":
        return text
    matches = compiled(text).fullmatch
    if token.repeated and all(map(matches, ("%", *_HEXADECIMAL))):
        return text  # it matches an escape as three characters
    members = list(filter(matches, _ESCAPABLE))
    beyond = [_BEYOND_ASCII] if kind == "class" and matches("\u00e9") else []
    also = [*([_escaped(members)] if members else []), *beyond]
    return f"(?:{'|'.join([text, *also])})" if also else text


@functools.lru_cache(maxsize=4096)
def narrowed(expression: str) -> tuple[str, ...]:
    """Return expressions that must all match: an escape passes only where its character would, too.

    In the last one, a class matches an escape as one character. The original, if returned, checks repetitions.
    """
    tokens = list(_tokens(expression))
    narrow = "".join(map(_narrowed, tokens))
    counted = any(_takes_escapes(token) and not token.repeated for token in tokens)
    return ("".join(map(_in_either_case, tokens)), narrow) if counted else (narrow,)


def _in_either_case(token: _Token) -> str:
    if token.kind != "escape":
        return token.text
    return re.sub("[a-fA-F]", lambda match: f"[{match[0].upper()}{match[0].lower()}]", token.text)


def _takes_escapes(token: _Token) -> bool:
    return token.kind == "class" and compiled(token.text).fullmatch("%") is not None


@functools.lru_cache(maxsize=4096)
def _narrowed(token: _Token) -> str:
    if not _takes_escapes(token):
        return _in_either_case(token)
    members = {character for character in _VISIBLE if compiled(token.text).fullmatch(character)}
    passing = (octet for octet in range(0x100) if chr(octet) in members or chr(octet) not in RAW_OR_ESCAPED)
    plain, pairs = _class(map(ord, members - {"%"})), _pairs(passing, members & _HEXADECIMAL)
    return f"(?:{'|'.join([*([plain] if plain else []), *([f'%(?:{pairs})'] if pairs else [])])})"


def _escaped(characters: Iterable[str]) -> str:
    return f"%(?:{_pairs(map(ord, characters), _HEXADECIMAL)})"


def _pairs(octets: Iterable[int], digits: Iterable[str]) -> str:
    """Return an expression for bytes as two hexadecimal digits out of the given ones."""
    usable = set(digits)
    second: dict[str, set[str]] = {}
    for octet in octets:
        written = f"{octet:02x}"
        for digit in {written[0], written[0].upper()} & usable:
            second.setdefault(digit, set()).update({written[1], written[1].upper()} & usable)
    alike: dict[frozenset[str], set[str]] = {}
    for digit, lasts in second.items():
        alike.setdefault(frozenset(lasts), set()).add(digit)
    return "|".join(
        sorted(f"{_class(map(ord, firsts))}{_class(map(ord, lasts))}" for lasts, firsts in alike.items() if lasts)
    )


def _class(codes: Iterable[int]) -> str:
    ranges: list[list[int]] = []
    for code in sorted(codes):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    words = (_character(one) + (f"-{_character(last)}" if last > one else "") for one, last in ranges)
    written = "".join(words)
    return f"[{written}]" if written else ""


def _character(code: int) -> str:
    return chr(code) if chr(code) in UNRESERVED - {"-"} else f"\\x{code:02x}"
