"""Generated rules about paths, and requests that are worth trying with them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clawker_fw.rules.path_words import PathAction, PathEntry, paths_of
from clawker_fw.rules.paths import Access, Paths
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import RuleEntry

WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_SEGMENTS = ("a", "b", "ab", "a%20b", "@s", "A", "a.b", "~", "a%2fb", "a;b", "caf%C3%A9", "a:b", "a%3Ab")
_ODD = (
    *("", ".", "..", "%2e", ".%2E", "%61", "..;", "a%252fb", "a%5cb", "%41", r"a\b", "a%00", "{", "b."),
    *("%2f..%2f", "a%3ab", "%40s", "%21", "a!", "%u0061", "a%", "a%6", "..%20", "%20.", ".%20.", "%e0%80%af"),
    *("%f0%80%80%af", "a::$DATA", "caf%c3%a9", "a%2Fb", "a%3F", "[a]", "%5Ba%5D"),
)
_EXPRESSIONS = (
    *("~/a:b", "~/a.b", "~/[^/:]+", "~/[^/]{1,4}", "~/@?[^@]*", r"~/[\w%]+(?:/.*)?", "~/[ab]/[^/]+", "~/(?:a|b)+"),
    *("~/a(?:/.*)?", "~/b/.*b", "~/.*%20.*"),
)
_PARTS = (
    *("a", "b?", "[ab]+", "[^/]+", "(?:a|ab)", ".*", "/", "/?", "(?i)A", ":", "@", ".", "[^a]", "[:!]", "%C3%A9"),
    *(r"\w", r"\.b", "%20", "(?:/a|/b/.+)", "$"),
)
_REPOSITORIES = ("a/b", "b", "a/ab")
_QUERIES = ("", "", "?", "?x=/../a", "?service=git-upload-pack", "?service=git-receive-pack&x")
_SERVICES = ("git-upload-pack", "git-receive-pack")


def random_words(chosen: random.Random) -> dict[str, Any]:
    """Return the fields of a rule about paths, which may contradict each other."""
    paths: list[Mapping[str, Any]] = [
        {
            "path": chosen.choice(
                (
                    *_EXPRESSIONS,
                    "~/" + "".join(chosen.choices(_PARTS, k=chosen.randint(1, 4))),
                    *("/" + "/".join(_some(chosen)) for _ in range(6)),
                    "/",
                )
            ),
            **_methods(chosen),
            "action": chosen.choice(("allow", "allow", "deny")),
        }
        for _ in range(chosen.randrange(7))
    ]
    git = {
        name: chosen.choice(("read", "write"))
        for name in chosen.sample(_REPOSITORIES, chosen.choice((0, 0, 1, 2)))
    }
    return {
        **({"path_rules": paths} if paths else {}),
        "path_default": chosen.choice((None, None, "allow", "deny")),
        **({"git": git} if git else {}),
        "lfs": bool(git) and _happens(chosen, 0.5),
    }


def _methods(chosen: random.Random) -> dict[str, Any]:
    methods = chosen.sample(METHODS, chosen.choice((0, 0, 1, 2)))
    return {"methods": methods} if methods else {}


def random_paths(chosen: random.Random) -> tuple[dict[str, Any], Paths]:
    """Return the fields of a rule about paths that contradict nothing, and what they mean."""
    while True:
        words = random_words(chosen)
        try:
            entries = [PathEntry.model_validate(each) for each in words.get("path_rules", ())]
            default = PathAction(words["path_default"]) if words["path_default"] else None
            git = {name: Access(access) for name, access in words.get("git", {}).items()}
            return words, paths_of(entries, default, git, lfs=words["lfs"], verify=True)
        except ValueError:
            continue


def _happens(chosen: random.Random, share: float) -> bool:
    return chosen.random() < share


def random_request(chosen: random.Random, words: Mapping[str, Any]) -> tuple[str, str]:
    """Return a method, and a path with its query, near those that a rule is about."""
    if words.get("git") and _happens(chosen, 0.4):
        return _of_git(chosen, chosen.choice([*words["git"]]))
    near = [each["path"] for each in words.get("path_rules", ()) if each["path"].startswith("/")]
    start = chosen.choice([*near, ""]).rstrip("/")
    path = start + "".join(f"/{each}" for each in _some(chosen, (*_SEGMENTS, *_ODD)))
    if _happens(chosen, 0.3):
        path = chosen.choice((start, f"{start}/", f"{start}x", f"{start}%2fx", start.swapcase())) or "/"
    if _happens(chosen, 0.3):
        path = _hidden(chosen, path)
    method = chosen.choice(METHODS)
    return method.lower() if _happens(chosen, 0.1) else method, (path or "/") + chosen.choice(_QUERIES)


def _hidden(chosen: random.Random, path: str) -> str:
    """Return a path that some servers read as this one."""
    place = chosen.choice([at for at, each in enumerate(path) if each == "/"] or [0])
    hidden = chosen.choice(("%2f", "%2F", "/%2F", ";x/", "/;x/", "%3By/", ";x%2fy/", "//", "./", "%20/", ".;x/"))
    ending = chosen.choice(("", "", ";x", "%3Bx", "%2F", ".", "%3Fx", "%23", "::$DATA"))
    return f"/{path[:place]}{hidden}{path[place + 1 :]}{ending}"


def _some(chosen: random.Random, among: Sequence[str] = _SEGMENTS) -> list[str]:
    return chosen.choices(among, k=chosen.randint(1, 3))


def _of_git(chosen: random.Random, name: str) -> tuple[str, str]:
    spelled = name.swapcase() if _happens(chosen, 0.2) else name  # the same repository to many hosts
    place = f"/{spelled}{chosen.choice(('', '.git', '.GIT'))}"
    service = chosen.choice(_SERVICES)
    target = chosen.choice(
        (
            f"{place}/info/refs?service={service}",
            f"{place}/info/refs{chosen.choice(_QUERIES)}",
            f"{place}/info/refs?service=git-upload-pack&service={service}",
            f"{place}/{service}",
            f"{place}/{service}{chosen.choice(('?', '/', '/a', '%2f', '?service=git-upload-pack'))}",
            f"{place}/info/lfs/objects/{chosen.choice(('batch', *_SEGMENTS, *_ODD))}{chosen.choice(_QUERIES)}",
            f"{place}/info/lfs/{chosen.choice(('objects', 'objectsx', 'verify', 'locks/verify', 'locks'))}",
            f"{place}/HEAD",
            f"/a/..{place}//{service}",
        )
    )
    return chosen.choice(("GET", "POST", "PUT", "HEAD")), target


NAMES = ("a.test", "c.test", "w.test", "x.w.test", "y.w.test", "b.x.w.test")
"""Hosts, of which some are below others."""

_DESTINATIONS = (*NAMES, ".w.test", ".w.test", ".x.w.test", ".a.test")
_INSPECTED, _FORWARDED = 0.65, 0.8
"""How many of random rules look into TLS, and how many also of those that forward it; the others deny."""

_ODD_METHODS = (
    *("TRACE", "CONNECT", "PATCH", "OPTIONS", "get", "PROPFIND", "M-SEARCH", "PURGE", "X-OWN", "Get", "delete"),
    *("Delete", "pUT", "trace", "TRACK", "Track", "connect", "GET.", "COPY", "MOVE"),
)
_RAW = (
    *("#", "#a", "\x7f", "\xe9", "\t", "%", "%zz", "%2", "|", "^", '"', "<", "\x01", "%00", "%7f", "%c0%ae"),
    *("%3f", "%23"),
)
"""What no path may have in it, or only escaped, or what looks like an escape."""


@dataclass(frozen=True, slots=True)
class AskedRequest:
    """A request of an agent. `target` has path and query, and `over` is HTTP's version by ALPN."""

    name: str
    port: int
    method: str
    target: str
    over: str = "http/1.1"
    websocket: bool = False


OVER = ("http/1.1", "h2")


def rules_of(entries: Sequence[Mapping[str, Any]]) -> RuleSet:
    """Return what entries mean, or raise `ValueError` when one of them, or two together, are a mistake."""
    return RuleSet.of(RuleEntry.model_validate(each).rule() for each in entries)


def random_entries(chosen: random.Random, ports: Sequence[int]) -> list[dict[str, Any]]:
    """Return rules as they are written that contradict nothing: most look into TLS, some forward it, some deny."""
    entries: list[dict[str, Any]] = []
    for _ in range(chosen.randint(1, 6)):
        made = _random_entry(chosen, ports)
        while not _fit([*entries, made]):
            made = _random_entry(chosen, ports)
        entries.append(made)
    return entries


def _random_entry(chosen: random.Random, ports: Sequence[int]) -> dict[str, Any]:
    kind = chosen.random()
    entry: dict[str, Any] = {"dst": chosen.choice(_DESTINATIONS), "port": chosen.choice(ports)}
    if kind > _FORWARDED:
        where = {} if _happens(chosen, 0.3) else {"port": entry["port"]}
        return {"dst": entry["dst"], **where, "action": "deny"}
    if kind > _INSPECTED:
        return entry
    proto = {"proto": "wss"} if _happens(chosen, 0.3) else {}
    unverified = {"insecure_skip_tls_verify": True} if _happens(chosen, 0.1) else {}
    return {**entry, "inspect": True, **random_words(chosen), **proto, **unverified}


def _fit(entries: Sequence[Mapping[str, Any]]) -> bool:
    try:
        rules_of(entries)
    except ValueError:
        return False
    return True


def random_asked(
    chosen: random.Random, entries: Sequence[Mapping[str, Any]], ports: Sequence[int]
) -> AskedRequest:
    """Return a request that is worth trying with some rules, most often of a host that they are for."""
    entry = chosen.choice(entries)
    own = entry["dst"].lstrip(".")
    below = [each for each in NAMES if each == own or (entry["dst"][0] == "." and each.endswith(f".{own}"))]
    name = chosen.choice(below if _happens(chosen, 0.9) else NAMES)
    near = [each for each in entries if "path_rules" in each and name.endswith(each["dst"].lstrip("."))]
    words = chosen.choice(near) if near else {"git": {}, "path_rules": []}
    method, target = random_request(chosen, words)
    if _happens(chosen, 0.1):
        method = chosen.choice(_ODD_METHODS)
    if _happens(chosen, 0.1):
        place = chosen.randint(1, len(target))
        target = target[:place] + chosen.choice(_RAW) + target[place:]
    port = entry.get("port", chosen.choice(ports)) if _happens(chosen, 0.9) else chosen.choice(ports)
    over = chosen.choice(OVER)
    if over == "h2" and _malformed(method, target) and _happens(chosen, 0.9):
        over = OVER[0]  # Envoy ends the connection, after a second
    return AskedRequest(name, port, method, target, over, over == OVER[0] and _happens(chosen, 0.2))


def _malformed(method: str, target: str) -> bool:
    return method == "CONNECT" or target[0] != "/" or any(each < "!" or each == "\x7f" for each in target)
