"""What is allowed of a host whose TLS is looked into: by method and path, and by git repository.

A request is judged in the form in which Envoy sees it (`seen`), which is also the form that reaches the host. The
first that matches decides: the requests of git, the longest path that is written out, the expressions in their
order, and last what is said of everything else. A path decides for all methods: it allows those that it names, and
no others.

A deny holds for every spelling that some server reads as what is denied, of methods as of paths. What is allowed
is exactly what is written. Pure: `path_words` reads what users write.
"""

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, takewhile
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from clawker_fw.rules import spellings
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.spellings import compiled

LARGEST_PROGRAM = 2000
"""The largest expression that Envoy takes, as RE2 counts (`re2.max_program_size.error_level`)."""

TRACE, TRACK, CONNECT = "TRACE", "TRACK", "CONNECT"
REFUSED_METHODS = (TRACE, TRACK, CONNECT)
_SAFE_METHODS = ("HEAD", "GET", "OPTIONS")
"""Methods that are always refused, in any case: two give a request back with all that was put into it, one has no
path."""

WEBSOCKET = "WebSocket: "
"""What the words for a part of what is allowed begin with where it is for WebSockets. No method has a colon."""

_ODD = (
    r"%25[0-9a-fA-F]{2}|%(?:[^0-9a-fA-F]|[0-9a-fA-F](?:[^0-9a-fA-F]|$)|$)|\\|%5[cC]|%[01][0-9a-fA-F]|%7[fF]"
    r"|%[cC][01]|%[eE]0%[89][0-9a-fA-F]|%[fF]0%8[0-9a-fA-F]|%[fF][5-9a-fA-F]"
)
"""Escapes that are unescaped twice, a `%` that begins no escape, backslashes, control characters, and overlong
UTF-8."""

ALWAYS_BAD = rf"{_ODD}|(/|%2[fF])(%20)*\.(%20)*(\.(%20)*)?(;|%3[bB]|%2[fF]|/|$)"
"""What no path may have in it: the same, and parents behind an escaped slash or with spaces. Hosts disagree about
their meaning, so a path could be another one to them."""

BAD_BELOW_A_DENY = rf"{_ODD}|%2[fF]|;|%3[bB]|%23|%3[fF]|(\.|%20)(/|$)|(:|%3[aA]){{2}}(\$|%24)"
"""The same for a host of which a path is denied: also all by which that path could be written otherwise. The last
is a file's own name to Windows (`x::$DATA`)."""

ALWAYS_BAD_PATTERN, BAD_BELOW_A_DENY_PATTERN = re.compile(ALWAYS_BAD), re.compile(BAD_BELOW_A_DENY)
_SLASHES = re.compile("/+")
_VISIBLE = re.compile(r"[!-~]*")
_DOTS_WITH_PARAMETERS = re.compile(r"(?<=/)(\.{1,2});[^/]*")
_UNRESERVED = re.compile(r"%([0-9a-fA-F]{2})")
_DIGIT = "%(?:3[0-9]|[46][1-6])"
_NESTED = re.compile(f"%(?:{_DIGIT}(?:{_DIGIT}|[0-9a-fA-F])|[0-9a-fA-F]{_DIGIT})")
"""What would become another escape when its digits are unescaped: its `%` is escaped, so that it does not."""
_ESCAPED = str.maketrans({each: f"%{ord(each):02X}" for each in '"<>^`{|}'})
_FEW = 4


def seen(target: str) -> str | None:
    """Return a request's path, with its query, as Envoy sees it; None if Envoy can't read it.

    Escaped characters that need no escape are unescaped, a backslash is a slash, `.` and `..` are resolved, also
    `..;x`, and several slashes are one. The query stays as it is. (`normalize_path`, `merge_slashes`; measured.)
    """
    if not target.startswith("/") or "#" in target or not _VISIBLE.fullmatch(target):
        return None
    path, mark, query = target.partition("?")
    path = _DOTS_WITH_PARAMETERS.sub(r"\1", path)
    if "%00" in path:
        return None
    path = _NESTED.sub(lambda found: f"%25{found[0][1:]}", path)
    path = _UNRESERVED.sub(_unescaped, path).replace("\\", "/").translate(_ESCAPED)
    return _SLASHES.sub("/", _resolved(path)) + mark + query


def _unescaped(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in spellings.UNRESERVED else found[0]


def _resolved(path: str) -> str:
    """Return a path without `.` and `..` (RFC 3986, section 5.2.4)."""
    parts: list[str] = []
    *before, last = path.split("/")[1:]
    for part in before:
        if part == "..":
            del parts[-1:]
        elif part != ".":
            parts.append(part)
    if last == "..":
        del parts[-1:]
    return "/" + "/".join([*parts, "" if last in {".", ".."} else last])


class Access(StrEnum):
    """What may be done with a git repository."""

    READ = "read"
    WRITE = "write"


LARGE_FILES = "info/lfs"
"""Where git asks for large files of a repository, below it (Git LFS, `docs/api/server-discovery.md`)."""

_OF_GIT = ("info/refs", LARGE_FILES, "git-upload-pack", "git-receive-pack")


class GitRequest(NamedTuple):
    """A request of git: its method, and its path with the query, exactly, and what git does with it in words.

    `below` says that it is for a path with everything below it, and for any query.
    """

    method: str
    target: str
    words: str
    allowed: bool
    below: bool = False

    def matches(self, method: str, target: str) -> bool:
        """Whether it is a request. `target` is as Envoy sees it, with the query."""
        path = target.partition("?")[0]
        same = f"{path}/".startswith(f"{self.target}/") if self.below else target == self.target
        return same and method == self.method


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository, as `acme/widgets`, and what may be done with it."""

    name: str
    access: Access

    @property
    def _places(self) -> tuple[str, str]:
        return f"/{self.name}.git", f"/{self.name}"

    def requests(self, *, lfs: bool) -> Iterator[GitRequest]:
        """Yield what git sends, over HTTP (gitprotocol-http(5)); with `lfs`, also what it sends for large files.

        What is downloaded and what is uploaded there can't be told apart by the path. A host that keeps the large
        files itself has them below the place where they are asked for (Gitea, Forgejo, Soft Serve, giftless).
        """
        writes = self.access is Access.WRITE
        fetch, push, large = (f"git {each} {self.name}" for each in ("fetch", "push", "lfs"))
        for place in self._places:
            yield GitRequest("GET", f"{place}/info/refs?service=git-upload-pack", fetch, allowed=True)
            yield GitRequest("POST", f"{place}/git-upload-pack", fetch, allowed=True)
            yield GitRequest("GET", f"{place}/info/refs?service=git-receive-pack", push, allowed=writes)
            yield GitRequest("POST", f"{place}/git-receive-pack", push, allowed=writes)
            if lfs:
                for method in ("GET", "PUT", "POST"):
                    yield GitRequest(method, f"{place}/{LARGE_FILES}/objects", large, allowed=True, below=True)
                yield GitRequest("POST", f"{place}/{LARGE_FILES}/verify", large, allowed=True)
            if lfs and writes:
                yield GitRequest("POST", f"{place}/{LARGE_FILES}/locks/verify", push, allowed=True)

    @property
    def reserved(self) -> Iterator[str]:
        """The paths of git, which nothing but those requests may use, whatever else is allowed.

        They match in any case: to GitHub and others, `/ACME/Widgets.git` is the same repository.
        """
        for place in self._places:
            yield from (f"{place}/{each}" for each in _OF_GIT)

    def __str__(self) -> str:
        """Return it in a few words: `git read acme/widgets`."""
        return f"git {self.access} {self.name}"


@dataclass(frozen=True, slots=True)
class PathRule:
    """A path with everything below it, or an expression for whole paths, and for which methods it is.

    Without `methods`, it is for all of them.
    """

    path: str
    methods: tuple[str, ...] = ()
    denies: bool = False
    expression: bool = False

    def matches(self, method: str, path: str) -> bool:
        """Whether it is for a request. `path` is as Envoy sees it, without the query."""
        named = method.upper() if self.denies else method
        return (not self.methods or named in self.methods) and self.covers(path)

    def covers(self, path: str) -> bool:
        """Whether it is for a path, with some method."""
        if self.expression:
            return all(compiled(each).fullmatch(path) for each in self.expressions)
        return self.path in {"/", path} or path.startswith(f"{self.path}/")

    @property
    def expressions(self) -> tuple[str, ...]:
        """The expressions of which all have to match: one that denies holds for every spelling of a path."""
        if not self.expression:
            return ()
        if self.denies:
            return (spellings.widened(self.path),)
        return spellings.narrowed(self.path)

    @property
    def limits(self) -> bool:
        """Whether it refuses all methods that it does not name: it is the longest path, which decides."""
        return bool(self.methods) and not self.denies and not self.expression

    def refused_by_limit(self, method: str, path: str) -> bool:
        """Whether it refuses a request because it names other methods for the path, however that is spelled."""
        if not self.limits or method in self.methods:
            return False
        return self.covers(path) or (self.spelled != "" and compiled(self.spelled).fullmatch(path) is not None)

    @property
    def spelled(self) -> str:
        """The expression for a path with everything below it in all spellings; "" if there is only one."""
        if self.expression or spellings.ONE_SPELLING.fullmatch(self.path):
            return ""
        return f"{spellings.widened(spellings.literal(self.path))}(?:/.*)?"

    def words(self, method: str) -> str:
        """Return what it says of one of its methods, or of all of them if that is empty: `GET /x`."""
        return f"{method} {self.written}".lstrip()

    def refuses(self, other: "PathRule", method: str) -> bool:
        """Whether it may refuse what another one allows with a method of it, or with any if that is empty."""
        if method and self.methods and (method in self.methods) is not self.denies:
            return False
        if self.expression or other.expression:
            return True
        # Whatever the case: git's paths match in any.
        longer, shorter = sorted((f"{self.path}/".lower(), f"{other.path}/".lower()), key=len, reverse=True)
        return shorter == "//" or longer.startswith(shorter)

    @property
    def written(self) -> str:
        """The path as it is written in a rule."""
        return f"~{self.path}" if self.expression else self.path

    def __str__(self) -> str:
        """Return it in one line: `deny GET,HEAD /x`."""
        words = ("deny" if self.denies else "", ",".join(self.methods), self.written)
        return " ".join(word for word in words if word)


DEFAULT_HEADER = "authorization"
"""The header of a secret that names no other one."""


class Form(StrEnum):
    """How a secret is written into its header."""

    BEARER = "bearer"
    BASIC = "basic"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Injection:
    """A secret that is put into the requests which are allowed, in place of the agent's own header.

    Without a `form`, the secret's header decides: `bearer` in `authorization`, `raw` in any other.
    """

    secret: str
    form: Form | None = None

    def form_in(self, header: str) -> Form:
        """Return how it is written into a header, which is in lower case."""
        return self.form or (Form.BEARER if header == DEFAULT_HEADER else Form.RAW)

    def __str__(self) -> str:
        """Return it in a few words: `inject github as basic`."""
        return f"inject {self.secret}" + (f" as {self.form}" if self.form else "")


class PathDecision(NamedTuple):
    """What happens to a request: why it is refused, if it is, and what decides, if anything is for it."""

    reason: Reason | None
    by: PathRule | Repository | None = None


@dataclass(frozen=True, slots=True)
class Paths:
    """What is allowed of a host. `rules` are in the order in which they decide: see `ordered`.

    `others` says whether what nothing here is for is allowed, `verify` whether the host has to prove its name.
    `injection` is for what is allowed. `websocket` says whether a request may become a WebSocket.
    """

    rules: tuple[PathRule, ...] = ()
    repositories: tuple[Repository, ...] = ()
    others: bool = True
    lfs: bool = False
    verify: bool = True
    injection: Injection | None = None
    websocket: bool = False

    @property
    def strict(self) -> bool:
        """Whether a path, a method or a push is refused below what is allowed: no other spelling gets through."""
        return _strict(self)

    def decide(self, method: str, target: str, *, websocket: bool = False) -> PathDecision:
        """Return what happens to a request. `target` is its path with the query, as the agent sends it.

        With `websocket`, it asks to become a WebSocket (RFC 6455), so it has to be allowed otherwise first.
        """
        found = self._decide(method, target)
        if websocket and not self.websocket and found.reason is None:
            return PathDecision(Reason.NO_WEBSOCKET, found.by)
        return found

    def _decide(self, method: str, target: str) -> PathDecision:
        normal = seen(target)
        path = normal.partition("?")[0] if normal else ""
        if normal is None or method == CONNECT or ALWAYS_BAD_PATTERN.search(path):
            return PathDecision(Reason.BAD_REQUEST)
        if method.upper() in REFUSED_METHODS:
            return PathDecision(Reason.PATH)
        if self.strict and BAD_BELOW_A_DENY_PATTERN.search(path):
            return PathDecision(Reason.BAD_REQUEST)
        return self._of_git(method, normal, path) or self._of_rules(method, path)

    def _of_rules(self, method: str, path: str) -> PathDecision:
        for rule in self.rules:
            if rule.matches(method, path):
                return PathDecision(Reason.PATH if rule.denies else None, rule)
            if rule.refused_by_limit(method, path):
                return PathDecision(Reason.PATH)
        return PathDecision(None if self.others else Reason.PATH)

    def _of_git(self, method: str, target: str, path: str) -> PathDecision | None:
        for repository in self.repositories:
            for each in repository.requests(lfs=self.lfs):
                if each.matches(method, target):
                    return PathDecision(None if each.allowed else Reason.PATH, repository)
        for repository in self.repositories:
            if any(f"{path}/".lower().startswith(f"{reserved}/".lower()) for reserved in repository.reserved):
                return PathDecision(Reason.PATH, repository)
        return None

    def allowed_request(self, *methods: str) -> tuple[str, str] | None:
        """Return the method and path of a request that is allowed and changes nothing (RFC 9110, section 9.2.1).

        It is one with these `methods`, by default any that change nothing. None means that none is known: what
        allows requests are expressions, or methods that may change something.
        """
        literal = [each.path for each in self.rules if not each.denies and not each.expression]
        refs = [f"/{each.name}.git/info/refs?service=git-upload-pack" for each in self.repositories]
        wanted = ((method, path) for path in ("/", *literal, *refs) for method in methods or _SAFE_METHODS)
        return next((each for each in wanted if self.decide(*each).reason is None), None)

    @property
    def allowances(self) -> Mapping[str, tuple[str, ...]]:
        """What is allowed, by the word that allows it for one method: `GET /x`; for WebSockets, after another.

        Each has what of it is refused by words that come before. A request goes on for as long as what allowed it
        is here, with nothing else that is refused.
        """
        found: dict[str, tuple[str, ...]] = {}
        for repository in self.repositories:
            found.update({each.words: () for each in repository.requests(lfs=self.lfs) if each.allowed})
        before = [PathRule(path, denies=True) for each in self.repositories for path in each.reserved]
        for rule in self.rules:
            if rule.denies:
                before.append(rule)
                continue
            for method in rule.methods or ("",):
                refused = tuple(str(each) for each in before if each.refuses(rule, method))
                found.setdefault(rule.words(method), refused)
            if rule.limits:
                before.append(rule)
        if self.others:
            found["others"] = tuple(map(str, before))
        if self.websocket:
            found.update({f"{WEBSOCKET}{words}": refused for words, refused in found.items()})
        return found

    @property
    def words(self) -> Iterator[str]:
        """What is said of the host, each as text; together they are different for everything that differs."""
        yield from map(str, (*self.repositories, *self.rules))
        if self.lfs:
            yield "git lfs"
        if self.rules or self.repositories:
            yield "others" if self.others else "deny others"
        if not self.verify:
            yield "unverified"
        if self.injection:
            yield str(self.injection)
        if self.websocket:
            yield "websocket"

    def __str__(self) -> str:
        """Return it in one line, of which the middle is a digest if it is long."""
        words = list(self.words)
        if len(words) > _FEW:
            digest = hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
            words[_FEW - 1 : -1] = [f"{len(words) - _FEW} more ({digest})"]
        return f"inspected ({', '.join(words)})" if words else "inspected"


def ordered(rules: Sequence[PathRule]) -> tuple[PathRule, ...]:
    """Return rules in the order in which they decide: the longest path first, and of the same a denying one.

    Expressions come last, in their order. Rules that differ in their methods alone are one.
    """
    literal: dict[tuple[str, bool], PathRule] = {}
    for rule in (each for each in rules if not each.expression):
        other = literal.get((rule.path, rule.denies), rule)
        methods = sorted({*rule.methods, *other.methods}) if rule.methods and other.methods else ()
        literal[rule.path, rule.denies] = PathRule(rule.path, tuple(methods), rule.denies)
    longest = sorted(literal.values(), key=lambda each: (-len(each.path), each.path, not each.denies))
    return (*longest, *dict.fromkeys(each for each in rules if each.expression))


@functools.lru_cache(maxsize=1024)
def _strict(paths: Paths) -> bool:
    if any(rule.denies for rule in paths.rules):
        return True
    fetched = (each for each in paths.repositories if each.access is Access.READ)
    limited = [PathRule(path, denies=True) for repository in fetched for path in repository.reserved]
    limited += [rule for rule in paths.rules if rule.limits]
    if limited and paths.others:
        return True
    literal: dict[str, list[PathRule]] = {}  # by their paths in lower case: git's paths match in any case
    for rule in paths.rules:
        if not rule.expression:
            literal.setdefault(rule.path.lower(), []).append(rule)
    expressions = [(rule, _begin(rule).lower()) for rule in paths.rules if rule.expression]
    return any(
        any(_opens(rule, above) for above in _above(rule.path.lower(), literal))
        or any(
            _opens(rule, other) and _meet(begin, unquote_to_bytes(rule.path).lower())
            for other, begin in expressions
        )
        for rule in limited
    )


def _above(path: str, literal: Mapping[str, Sequence[PathRule]]) -> Iterator[PathRule]:
    for above in ("/", *accumulate(path.split("/")[1:-1], lambda one, other: f"{one}/{other}", initial="")):
        yield from literal.get(above, ())


_CUT_ESCAPE = re.compile(rb"%[0-9a-fA-F]?$")


def _begin(rule: PathRule) -> bytes:
    """Return what everything that an expression matches begins with, without escapes."""
    ends = zip(*spellings.bounds(rule.path), strict=False)
    begin = bytes(one for one, _ in takewhile(lambda both: both[0] == both[1], ends))
    return unquote_to_bytes(_CUT_ESCAPE.sub(b"", begin))


def _meet(one: bytes, other: bytes) -> bool:
    return one.startswith(other) or other.startswith(one)


def _opens(limited: PathRule, other: PathRule) -> bool:
    """Whether a rule for the same paths allows a method that another one refuses."""
    return limited.denies or not other.methods or not {*other.methods} <= {*limited.methods}


ANY_METHOD = "-"
"""A method that stands for those that no rule names."""


def also(paths: Paths, rule: PathRule) -> tuple[PathRule, ...]:
    """Return rules that allow what another one does besides, and take nothing from what its path allows.

    The longest path decides for all methods, so one that is longer than others has to repeat what these allow.
    """
    if rule.denies or rule.expression or not rule.methods:
        return (rule,)
    known = {method for each in (*paths.rules, rule) for method in each.methods}
    allowed = {each for each in known if paths.decide(each, rule.path).reason is None} | {*rule.methods}
    if paths.decide(ANY_METHOD, rule.path).reason is not None:
        return (PathRule(rule.path, tuple(sorted(allowed))),)
    refused = tuple(sorted(known - allowed))
    return (*([PathRule(rule.path, refused, denies=True)] if refused else []), PathRule(rule.path))
