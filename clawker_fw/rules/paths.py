"""The paths, methods and git repositories that are allowed on a host whose TLS is inspected.

A request is judged in Envoy's normal form (`seen`), which is also the form that reaches the host. The first match
decides, in this order: git requests, the longest literal path, the expressions as written, the default. A path
decides for all methods: it allows those that it names and refuses the others.

A deny covers every spelling of a path or method that some server accepts. An allow covers only what is written.
Pure: `path_words` reads what users write.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from typing import NamedTuple

from clawker_fw.rules import spellings
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.spellings import compiled

LARGEST_PROGRAM = 2000
"""Envoy's limit on an expression's program size in RE2 (`re2.max_program_size.error_level`)."""

TRACE, TRACK, CONNECT = "TRACE", "TRACK", "CONNECT"
REFUSED_METHODS = (TRACE, TRACK, CONNECT)
_SAFE_METHODS = ("HEAD", "GET", "OPTIONS")
"""`REFUSED_METHODS` are refused in any case: TRACE and TRACK echo injected secrets, CONNECT has no path."""

WEBSOCKET = "WebSocket: "
"""Begins the keys of allowances for WebSockets. Methods can't contain a colon."""

_ODD = (
    r"%25[0-9a-fA-F]{2}|%(?:[^0-9a-fA-F]|[0-9a-fA-F](?:[^0-9a-fA-F]|$)|$)|\\|%5[cC]|%[01][0-9a-fA-F]|%7[fF]"
    r"|%[cC][01]|%[eE]0%[89][0-9a-fA-F]|%[fF]0%8[0-9a-fA-F]|%[fF][5-9a-fA-F]"
)
"""Double escapes, incomplete escapes, backslashes, control characters and overlong UTF-8."""

ALWAYS_BAD = rf"{_ODD}|(/|%2[fF])(%20)*\.(%20)*(\.(%20)*)?({spellings.CUT}|%2[fF]|%23|%3[fF]|/|$)"
"""Refused in every path: `_ODD`, and dot segments with something else in them, which hosts read differently."""

ALWAYS_BAD_PATTERN, HIDING_PATTERN = re.compile(ALWAYS_BAD), re.compile(spellings.HIDING)
_SLASHES = re.compile("/+")
_VISIBLE = re.compile(r"[!-~]*")
_DOTS_WITH_PARAMETERS = re.compile(r"(?<=/)(\.{1,2});[^/]*")
_UNRESERVED = re.compile(r"%([0-9a-fA-F]{2})")
_DIGIT = "%(?:3[0-9]|[46][1-6])"
_NESTED = re.compile(f"%(?:{_DIGIT}(?:{_DIGIT}|[0-9a-fA-F])|[0-9a-fA-F]{_DIGIT})")
"""Escapes whose digits are escaped themselves. Their `%` is escaped, so that decoding creates no new escape."""
_ESCAPED = str.maketrans({character: f"%{ord(character):02X}" for character in '"<>^`{|}'})
_FEW = 4


def seen(target: str) -> str | None:
    """Return a request's path and query in Envoy's normal form; None if Envoy can't read it.

    Unnecessary escapes are decoded, backslashes become slashes, `.`, `..` and `..;x` are resolved, and repeated
    slashes become one. The query stays unchanged. (`normalize_path`, `merge_slashes`; measured.)
    """
    if not target.startswith("/") or "#" in target or not _VISIBLE.fullmatch(target):
        return None
    path, mark, query = target.partition("?")
    path = _DOTS_WITH_PARAMETERS.sub(r"\1", path)
    if "%00" in path:
        return None
    path = _NESTED.sub(lambda match: f"%25{match[0][1:]}", path)
    path = _UNRESERVED.sub(_unescaped, path).replace("\\", "/").translate(_ESCAPED)
    return _SLASHES.sub("/", _resolved(path)) + mark + query


def _unescaped(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in spellings.UNRESERVED else match[0]


def _resolved(path: str) -> str:
    """Remove `.` and `..` from a path (RFC 3986, section 5.2.4)."""
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
"""The path of the Git LFS API below a repository (Git LFS, `docs/api/server-discovery.md`)."""

_OF_GIT = ("info/refs", LARGE_FILES, "git-upload-pack", "git-receive-pack")


class GitRequest(NamedTuple):
    """A request that git sends: its method, its exact path with the query, and its purpose, such as `git fetch`.

    With `below`, it includes every path below it, with any query.
    """

    method: str
    target: str
    words: str
    allowed: bool
    below: bool = False

    def matches(self, method: str, target: str) -> bool:
        """Whether a request is this one. `target` is the path in Envoy's form, with the query."""
        path = target.partition("?")[0]
        same = f"{path}/".startswith(f"{self.target}/") if self.below else target == self.target
        return same and method == self.method


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository, such as `acme/widgets`, and the access to it."""

    name: str
    access: Access

    @property
    def _places(self) -> tuple[str, str]:
        return f"/{self.name}.git", f"/{self.name}"

    def requests(self, *, lfs: bool) -> Iterator[GitRequest]:
        """Yield git's requests over HTTP (gitprotocol-http(5)); with `lfs`, also those for large files.

        The paths of large files don't tell downloads from uploads. Hosts that store large files themselves serve
        them below the LFS API (Gitea, Forgejo, Soft Serve, giftless).
        """
        writes = self.access is Access.WRITE
        fetch, push, large = (f"git {operation} {self.name}" for operation in ("fetch", "push", "lfs"))
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
        """Git's own paths, which only the requests above may use. They match in any case, as on GitHub."""
        for place in self._places:
            yield from (f"{place}/{endpoint}" for endpoint in _OF_GIT)

    def may_be(self, path: str) -> bool:
        """Whether some server may read a path as one of these paths, or one below."""
        return compiled(self.readings).fullmatch(path) is not None

    @property
    def readings(self) -> str:
        """An expression for everything that some server reads as one of these paths, or one below."""
        own = "|".join(map(spellings.readings, _OF_GIT))
        return rf"(?i){spellings.readings(f'/{self.name}')}(?:\.git)?{spellings.SLASH}(?:{own}){spellings.BELOW}"

    def __str__(self) -> str:
        """Return `git read acme/widgets`."""
        return f"git {self.access} {self.name}"


@dataclass(frozen=True, slots=True)
class PathRule:
    """A path with everything below it, or an expression for whole paths. Without `methods`, it matches all."""

    path: str
    methods: tuple[str, ...] = ()
    denies: bool = False
    expression: bool = False

    def matches(self, method: str, path: str) -> bool:
        """Whether the rule matches a request. `path` is in Envoy's form, without the query."""
        return self._is_for(method) and self.covers(path)

    def _is_for(self, method: str) -> bool:
        return not self.methods or (method.upper() if self.denies else method) in self.methods

    def may_hide(self, method: str, path: str) -> bool:
        """Whether some server may read a request, as it is written, as one that an expression denies."""
        if not self.denies or not self.expression or not self._is_for(method):
            return False
        return HIDING_PATTERN.search(path) is not None and self.may_be(path)

    def covers(self, path: str) -> bool:
        """Whether the rule matches a path, with any method."""
        if self.expression:
            return all(compiled(expression).fullmatch(path) for expression in self.expressions)
        if self.denies:
            return self.may_be(path)
        return self.path == "/" or f"{spellings.uppercase(path)}/".startswith(f"{self.path}/")

    def may_be(self, path: str) -> bool:
        """Whether some server may read a path as one that the rule is for."""
        return compiled(self.readings).fullmatch(path) is not None

    @property
    def readings(self) -> str:
        """An expression for everything that some server reads as the path or a path below.

        Of an expression, only the beginning of all matches is known.
        """
        if self.path == "/":
            return ".*"
        if self.expression:
            return f"{spellings.readings(_begin(self))}.*"
        return f"{spellings.readings(self.path)}{spellings.BELOW}"

    @property
    def expressions(self) -> tuple[str, ...]:
        """Expressions that must all match. A deny rule's expression matches every spelling of a path."""
        if not self.expression:
            return ()
        if self.denies:
            return (spellings.widened(self.path),)
        return spellings.narrowed(self.path)

    @property
    def limits(self) -> bool:
        """Whether the rule refuses the methods that it does not name, because the longest path decides."""
        return bool(self.methods) and not self.denies and not self.expression

    def words(self, method: str) -> str:
        """Return the rule for one method, or for all of them if that is empty: `GET /x`."""
        return f"{method} {self.written}".lstrip()

    def refuses(self, other: "PathRule", method: str) -> bool:
        """Whether this rule may refuse requests that another rule allows with a method (empty: any)."""
        if method and self.methods and (method in self.methods) is not self.denies:
            return False
        if self.expression or other.expression:
            return True
        # Ignore case, because git's paths match in any case.
        longer, shorter = sorted((f"{self.path}/".lower(), f"{other.path}/".lower()), key=len, reverse=True)
        return shorter == "//" or longer.startswith(shorter)

    @property
    def written(self) -> str:
        """The path as it is written in a rule."""
        return f"~{self.path}" if self.expression else self.path

    def __str__(self) -> str:
        """Return the rule in one line: `deny GET,HEAD /x`."""
        words = ("deny" if self.denies else "", ",".join(self.methods), self.written)
        return " ".join(word for word in words if word)


DEFAULT_HEADER = "authorization"
"""The header of a secret that names no header."""


class Form(StrEnum):
    """How a secret is written into its header."""

    BEARER = "bearer"
    BASIC = "basic"
    RAW = "raw"
    PROXY = "proxy"  # user and password for a proxy; no rule can choose it


@dataclass(frozen=True, slots=True)
class Injection:
    """A secret that Envoy puts into allowed requests, replacing the agent's own header.

    Without a `form`, the secret's header decides: `bearer` in `authorization`, `raw` in any other.
    """

    secret: str
    form: Form | None = None

    def form_in(self, header: str) -> Form:
        """Return the secret's form in a header, named in lower case."""
        return self.form or (Form.BEARER if header == DEFAULT_HEADER else Form.RAW)

    def __str__(self) -> str:
        """Return `inject github as basic`."""
        return f"inject {self.secret}" + (f" as {self.form}" if self.form else "")


class PathDecision(NamedTuple):
    """The decision on a request: why it is refused (None: allowed), and what decides, if anything matches."""

    reason: Reason | None
    by: PathRule | Repository | None = None


@dataclass(frozen=True, slots=True)
class Paths:
    """What a rule allows of a host. `rules` are in the order of `ordered`.

    `others` allows all unmatched requests, `verify` makes the host prove its name, `injection` goes into allowed
    requests, and `websocket` lets requests become WebSockets.
    """

    rules: tuple[PathRule, ...] = ()
    repositories: tuple[Repository, ...] = ()
    others: bool = True
    lfs: bool = False
    verify: bool = True
    injection: Injection | None = None
    websocket: bool = False

    def may_open(self, limited: PathRule) -> bool:
        """Whether anything allows a method that a limited path refuses."""
        allowing = [rule for rule in self.rules if not rule.denies]
        return self.others or any(
            not rule.methods or set(rule.methods) - set(limited.methods) for rule in allowing
        )

    def decide(self, method: str, target: str, *, websocket: bool = False) -> PathDecision:
        """Decide on a request. `target` is its path with the query, as the agent sends it.

        A request for a WebSocket (RFC 6455) must also be allowed as a plain request.
        """
        decision = self._decide(method, target)
        if websocket and not self.websocket and decision.reason is None:
            return PathDecision(Reason.NO_WEBSOCKET, decision.by)
        return decision

    def _decide(self, method: str, target: str) -> PathDecision:
        normal = seen(target)
        path = normal.partition("?")[0] if normal else ""
        if normal is None or method == CONNECT or ALWAYS_BAD_PATTERN.search(path):
            return PathDecision(Reason.BAD_REQUEST)
        if method.upper() in REFUSED_METHODS:
            return PathDecision(Reason.PATH)
        return self._of_git(method, normal, path) or self._of_rules(method, path)

    def _of_rules(self, method: str, path: str) -> PathDecision:
        for rule in self.rules:
            if rule.expression and any(denial.may_hide(method, path) for denial in self.rules):
                return PathDecision(Reason.BAD_REQUEST)
            if rule.matches(method, path):
                return PathDecision(Reason.PATH if rule.denies else None, rule)
            if rule.limits and method not in rule.methods and self.may_open(rule) and rule.may_be(path):
                return PathDecision(Reason.PATH)
        return PathDecision(None if self.others else Reason.PATH)

    def _of_git(self, method: str, target: str, path: str) -> PathDecision | None:
        for repository in self.repositories:
            for request in repository.requests(lfs=self.lfs):
                if request.matches(method, target):
                    return PathDecision(None if request.allowed else Reason.PATH, repository)
        for repository in self.repositories:
            if repository.may_be(path):
                return PathDecision(Reason.PATH, repository)
        return None

    def allowed_request(self, *methods: str) -> tuple[str, str] | None:
        """Return the method and path of an allowed request that changes nothing (RFC 9110, section 9.2.1).

        `methods` limits the choice. None means that no such request is known: only expressions, or methods that
        may change something, are allowed.
        """
        literal = [rule.path for rule in self.rules if not rule.denies and not rule.expression]
        refs = [f"/{repository.name}.git/info/refs?service=git-upload-pack" for repository in self.repositories]
        requests = ((method, path) for path in ("/", *literal, *refs) for method in methods or _SAFE_METHODS)
        return next((request for request in requests if self.decide(*request).reason is None), None)

    @property
    def allowances(self) -> Mapping[str, tuple[str, ...]]:
        """The allowances by a key such as `GET /x`, each with the earlier rules that refuse part of it.

        An open request may continue while its allowance still exists and nothing more of it is refused.
        """
        by_words: dict[str, tuple[str, ...]] = {}
        for repository in self.repositories:
            by_words.update(
                {request.words: () for request in repository.requests(lfs=self.lfs) if request.allowed}
            )
        before = [PathRule(path, denies=True) for repository in self.repositories for path in repository.reserved]
        for rule in self.rules:
            if rule.denies:
                before.append(rule)
                continue
            for method in rule.methods or ("",):
                refused = tuple(str(earlier) for earlier in before if earlier.refuses(rule, method))
                by_words.setdefault(rule.words(method), refused)
            if rule.limits:
                before.append(rule)
        if self.others:
            by_words["others"] = tuple(map(str, before))
        if self.websocket:
            by_words.update({f"{WEBSOCKET}{words}": refused for words, refused in by_words.items()})
        return by_words

    @property
    def words(self) -> Iterator[str]:
        """The parts of the description. Hosts with different paths have different descriptions."""
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
        """Return one line; a digest replaces the middle of a long one."""
        words = list(self.words)
        if len(words) > _FEW:
            digest = hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
            words[_FEW - 1 : -1] = [f"{len(words) - _FEW} more ({digest})"]
        return f"inspected ({', '.join(words)})" if words else "inspected"


def ordered(rules: Sequence[PathRule]) -> tuple[PathRule, ...]:
    """Sort rules by precedence: longest path first, deny before allow; then expressions in their own order.

    Rules that differ only in their methods become one.
    """
    literal: dict[tuple[str, bool], PathRule] = {}
    for rule in (rule for rule in rules if not rule.expression):
        other = literal.get((rule.path, rule.denies), rule)
        methods = sorted({*rule.methods, *other.methods}) if rule.methods and other.methods else ()
        literal[rule.path, rule.denies] = PathRule(rule.path, tuple(methods), rule.denies)
    # The shortest reading counts first: a longer one may be below it.
    lengths = {rule: (-len(spellings.shortest(rule.path)), -len(rule.path)) for rule in literal.values()}
    longest = sorted(lengths, key=lambda rule: (*lengths[rule], rule.path, not rule.denies))
    return (*longest, *dict.fromkeys(rule for rule in rules if rule.expression))


_CUT_ESCAPE = re.compile("%[0-9a-fA-F]?$")
_LONGEST_PREFIX = 200


def _begin(rule: PathRule) -> str:
    """Return the prefix of everything that an expression matches, or the beginning of a long one."""
    ends = zip(*spellings.bounds(rule.path), strict=False)
    begin = bytes(one for one, _ in takewhile(lambda both: both[0] == both[1], ends))
    return _CUT_ESCAPE.sub("", begin[:_LONGEST_PREFIX].decode("latin-1"))


ANY_METHOD = "-"
"""Stands for the methods that no rule names."""


def also(paths: Paths, rule: PathRule) -> tuple[PathRule, ...]:
    """Return path rules that add what a rule allows without removing what its path allows now.

    The longest path decides for all methods, so a longer path must repeat what shorter ones allow.
    """
    if rule.denies or rule.expression or not rule.methods:
        return (rule,)
    methods = {method for entry in (*paths.rules, rule) for method in entry.methods}
    allowed = {method for method in methods if paths.decide(method, rule.path).reason is None} | {*rule.methods}
    if paths.decide(ANY_METHOD, rule.path).reason is not None:
        return (PathRule(rule.path, tuple(sorted(allowed))),)
    refused = tuple(sorted(methods - allowed))
    return (*([PathRule(rule.path, refused, denies=True)] if refused else []), PathRule(rule.path))
