"""Validation of `path_rules`, `git` and `inject` as users write them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictStr

from clawker_fw.rules import paths, spellings
from clawker_fw.rules.paths import Access, Form, Injection, PathRule, Paths, Repository

MOST_PATHS = 1_000
MOST_REPOSITORIES = 100
LONGEST_PATH = 2_000
LONGEST_METHOD = 32
"""Records cut a method at this length."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A method (RFC 9110, section 5.6.2)."""

_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")
_DOTS = re.compile(r"%2[eE]")
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")


class PathAction(StrEnum):
    """The effect of a path rule on a request."""

    ALLOW = "allow"
    DENY = "deny"


def parse_path(text: str) -> str:
    """Return a path in the form in which it is matched, or an expression with a leading `~`.

    Raises:
        ValueError: when the path could match nothing, or something other than it seems to.
    """
    # Python's form of an argument that is not UTF-8.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("`path` has to be UTF-8: write any other byte as `%` and two hex digits")
    if text.startswith("~"):
        return f"~{_expression(text[1:])}"
    for mistake, hint in _mistakes(text):
        if mistake:
            raise ValueError(f"`path: {text}` {hint}")
    normal = paths.seen(text.encode().decode("latin-1").translate(_OCTETS))
    if normal is not None and normal.count("/") < text.count("/"):
        raise ValueError(f"`path: {text}` can be written without `..;`, which leads to the path above it")
    if normal is None or paths.ALWAYS_BAD_PATTERN.search(normal):
        raise ValueError(f"`path: {text}` can never match: such a path is refused in every request")
    return spellings.uppercase(normal)


_OCTETS = {byte: f"%{byte:02X}" for byte in range(0x80, 0x100)}
"""Clients send non-ASCII UTF-8 bytes as these escapes."""


def _mistakes(text: str) -> Iterable[tuple[object, str]]:
    """Yield each usual error: whether the path has it, and what to write instead."""
    above = text.rstrip("/") or "/"
    return (
        (not text.startswith("/"), "has to begin with `/`, or with `~` if it is an expression"),
        (len(text) > LONGEST_PATH, f"has {len(text):,} characters; {LONGEST_PATH:,} is the most"),
        ("?" in text, "has a query, which decides nothing; write the path before the `?`"),
        ("#" in text, "has a fragment, which is never sent; write the path before the `#`"),
        ("\\" in text, "has a backslash; write `/`"),
        (
            "*" in text,
            "has a `*`; a path is for everything below it, and `~` begins an expression, as `~/a/[^/]+/b`",
        ),
        (_DOTS.search(text), "has an escaped dot; write `.`"),
        ("//" in text, "has an empty segment; Envoy makes one `/` of several"),
        ({".", ".."} & {*text.split("/")}, "has `.` or `..` in it; write the path that it leads to"),
        (
            text != "/" and text.endswith("/"),
            f"ends in `/`; write `{above}`, which is for everything below it, too",
        ),
        (_ESCAPE.search(text), "has a `%` without two hexadecimal digits; write `%25`"),
        (not text.isprintable() or " " in text, "has a space or a control character; write a space as `%20`"),
    )


def _expression(text: str) -> str:
    shown = f"`path: ~{text}`"
    if len(text) > LONGEST_PATH:
        raise ValueError(f"an expression has {len(text):,} characters; {LONGEST_PATH:,} is the most")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            f"{shown} has a space, or what is not ASCII; paths have these escaped, as `%20` and `%C3%A9`"
        )
    try:
        program = spellings.compiled(text)
    except ValueError as error:
        raise ValueError(f"{shown} is not an expression of RE2: {error}") from error
    if program.programsize > paths.LARGEST_PROGRAM:
        raise ValueError(f"{shown} is too large for Envoy; write several, or fewer repetitions")
    if not all(end.startswith(b"/") for end in spellings.bounds(text)):
        raise ValueError(f"{shown} has to begin with `/` in each of its alternatives, as `~/(?:a|b)/c`")
    return text


def parse_method(text: str) -> str:
    """Return a method. Raise ValueError if it is invalid or always refused."""
    if text.upper() == paths.CONNECT:
        raise ValueError("`methods` has CONNECT, which has no path and is always refused")
    if (refused := text.upper()) in paths.REFUSED_METHODS:
        raise ValueError(
            f"`methods` has {refused}, which is always refused: it gives back all headers of a request"
        )
    if not _TOKEN.fullmatch(text) or len(text) > LONGEST_METHOD:
        raise ValueError(f"`methods`: {text!r} is not a method; write it as `GET`, each by itself")
    if text != text.upper():
        raise ValueError(f"`methods`: write `{text.upper()}`; methods are different in another case")
    return text


def not_empty(field: str) -> Callable[[object], object]:
    """Return a validator that refuses an empty list or mapping, which could mean everything or nothing."""

    def check(value: object) -> object:
        if isinstance(value, list | dict) and not value:
            raise ValueError(f"`{field}` is empty; write what it is for, or remove the key")
        return value

    return check


class PathEntry(BaseModel):
    """An entry of `path_rules`."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    path: Annotated[StrictStr, AfterValidator(parse_path)]
    """A path with everything below it, or `~` and an expression (RE2) for whole paths."""
    methods: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(parse_method)], ...], BeforeValidator(not_empty("methods"))
    ] = ()
    """The methods that it is for. Default: all."""
    action: PathAction = PathAction.ALLOW
    """`allow` or `deny`."""

    @property
    def rule(self) -> PathRule:
        """The canonical path rule."""
        expression = self.path.startswith("~")
        return PathRule(
            self.path.removeprefix("~"),
            tuple(sorted({*self.methods})),
            self.action is PathAction.DENY,
            expression,
        )


SECRET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""The form of a secret's name. Without dots it can't collide with a rule's server name."""


def parse_secret_name(text: str) -> str:
    """Return the name of a secret. Raise ValueError if it is invalid."""
    if SECRET_NAME.fullmatch(text):
        return text
    raise ValueError(f"{text!r} is not a name for a secret: 1 to 63 characters of a-z, 0-9, - and _")


class InjectEntry(BaseModel):
    """The long form of `inject`."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    secret: Annotated[StrictStr, AfterValidator(parse_secret_name)]
    """The name of a secret in the user's own `secrets.yaml`, which says where it comes from and to which hosts it
    may go."""
    as_: Literal[Form.BEARER, Form.BASIC, Form.RAW] | None = Field(default=None, alias="as")
    """`bearer`, `basic` or `raw`. Default: `basic` with `git`, `bearer` in the header `authorization`, else
    `raw`."""


def long_form(field: str) -> Callable[[object], object]:
    """Return a validator that turns an entry written as plain text into its long form."""
    return lambda value: {field: value} if isinstance(value, str) else value


def _repository(name: str, access: Access) -> Repository:
    parts = name.split("/")
    if name.endswith(".git"):
        raise ValueError(f"`git`: write `{name.removesuffix('.git')}`, which is for both spellings")
    if not all(_SEGMENT.fullmatch(part) and part.strip(".") and not part.endswith(".") for part in parts):
        raise ValueError(
            f"`git`: {name!r} is not a repository; write it as in its URL after the host: `acme/widgets`"
        )
    return Repository(name, access)


def paths_of(
    entries: Sequence[PathEntry],
    default: PathAction | None,
    git: Mapping[str, Access],
    *,
    lfs: bool,
    verify: bool,
    inject: InjectEntry | None = None,
    websocket: bool = False,
) -> Paths:
    """Return what a rule allows of a host. Raise ValueError for entries without effect, or too many."""
    if len(git) > MOST_REPOSITORIES:
        raise ValueError(f"`git` has {len(git):,} repositories; {MOST_REPOSITORIES} are the most of a rule")
    if lfs and not git:
        raise ValueError("`lfs` is about the repositories in `git`, and there are none")
    rules = paths.ordered([entry.rule for entry in entries])
    repositories = tuple(_repository(name, git[name]) for name in sorted(git))
    allowing = bool(repositories) or any(not rule.denies for rule in rules)
    others = default is PathAction.ALLOW if default else not allowing
    if not (others or allowing):
        raise ValueError("`path_default: deny` leaves nothing: there is no path that is allowed")
    injection = _injection(inject, others=others, git=bool(git), verify=verify)
    made = Paths(rules, repositories, others, lfs, verify, injection, websocket)
    require_decisive(made)
    return made


def require_decisive(made: Paths) -> None:
    """Check that every path rule decides exactly what it seems to. Raise ValueError if not, or if too many."""
    rules = made.rules
    if len(rules) > MOST_PATHS:
        raise ValueError(f"there are {len(rules):,} `path_rules`; {MOST_PATHS:,} are the most of a rule")
    for position, rule in enumerate(rules):
        _require_spellable(rule)
        _require_unhidden(rule, made)
        if over := next((earlier for earlier in rules[:position] if overrides(earlier, rule)), None):
            raise ValueError(f"the path rule `{rule}` never decides: `{over}` comes first")


def _injection(entry: InjectEntry | None, *, others: bool, git: bool, verify: bool) -> Injection | None:
    if entry is None:
        return None
    if not verify:
        raise ValueError(
            "`inject` and `insecure_skip_tls_verify` contradict each other: anybody on the way would get "
            f"`{entry.secret}`"
        )
    if others:
        raise ValueError(
            f"`{entry.secret}` would go with every request to the host; add `path_rules` or `git` for those that "
            "need it, or `path_rules: [{path: /}]` if all do"
        )
    return Injection(entry.secret, entry.as_ or (Form.BASIC if git else None))


def _require_unhidden(rule: PathRule, made: Paths) -> None:
    """Check that no server reads an allowed path as one that is refused."""
    if rule.expression or rule.denies or not paths.HIDING_PATTERN.search(rule.path):
        return
    denied = [denial for denial in made.rules if denial.denies]
    refused: tuple[PathRule | Repository, ...] = (*made.repositories, *denied)
    for refusing in refused:
        if refusing.may_be(rule.path):
            raise ValueError(
                f"the path rule `{rule}` can never match: hosts may read it as a path of `{refusing}`"
            )


def _require_spellable(rule: PathRule) -> None:
    """Check that Envoy accepts the expressions for all spellings of a path."""
    if rule.expression and rule.denies and spellings.has_boundary(rule.path):
        raise ValueError(
            f"the path rule `{rule}` could be passed by: an escape has other boundaries (`\\b`, `\\B`) than what "
            "it stands for; write what may be there instead"
        )
    *counting, last = rule.expressions or (rule.readings if rule.denies or rule.limits else "",)
    taken = (*map(spellings.with_query, counting), last)
    if any(spellings.compiled(expression).programsize > paths.LARGEST_PROGRAM for expression in taken):
        raise ValueError(f"the path rule `{rule}` is too large for Envoy; write several, or less in it")


def overrides(first: PathRule, other: PathRule) -> bool:
    """Whether an earlier rule decides everything that a later rule matches, with the opposite result."""
    every = not first.methods or bool(other.methods and {*other.methods} <= {*first.methods})
    if first.denies == other.denies:
        if first.denies or every or not (first.limits and other.expression):
            return False
    elif not every and not (first.limits and other.expression):
        return False
    if first.expression:
        return other.expression and first.path == other.path
    if other.expression:
        below = first.path.rstrip("/").encode() + b"/"
        return all(end.startswith(below) for end in spellings.bounds(other.path))
    return first.path == other.path
