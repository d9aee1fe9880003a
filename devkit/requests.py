"""Generated words about paths, and requests that are worth trying with them."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from clawker_fw.rules.path_words import PathAction, PathEntry, paths_of
from clawker_fw.rules.paths import Access, Paths

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_SEGMENTS = ("a", "b", "ab", "a%20b", "@s", "A", "a.b", "~", "a%2fb", "a;b", "caf%C3%A9")
_ODD = (
    "",
    ".",
    "..",
    "%2e",
    ".%2E",
    "%61",
    "..;",
    "a%252fb",
    "a%5cb",
    "%41",
    "a\\b",
    "a%00",
    "{",
    "b.",
    "%2f..%2f",
)
_EXPRESSIONS = ("~/[ab]/[^/]+", "~/(?:a|b)+", "~/a(?:/.*)?", "~/b/.*b", "~/.*%20.*")
_REPOSITORIES = ("a/b", "b", "a/ab")
_QUERIES = ("", "", "?", "?x=/../a", "?service=git-upload-pack", "?service=git-receive-pack&x")
_SERVICES = ("git-upload-pack", "git-receive-pack")


def random_words(chosen: random.Random) -> dict[str, Any]:
    """Return the fields of a rule about paths, which may contradict each other."""
    paths: list[Mapping[str, Any]] = [
        {
            "path": chosen.choice((*_EXPRESSIONS, *("/" + "/".join(_some(chosen)) for _ in range(6)), "/")),
            "methods": chosen.sample(METHODS, chosen.choice((0, 0, 1, 2))),
            "action": chosen.choice(("allow", "allow", "deny")),
        }
        for _ in range(chosen.randrange(7))
    ]
    git = {
        name: chosen.choice(("read", "write"))
        for name in chosen.sample(_REPOSITORIES, chosen.choice((0, 0, 1, 2)))
    }
    return {
        "path_rules": paths,
        "path_default": chosen.choice((None, None, "allow", "deny")),
        "git": git,
        "lfs": bool(git) and _happens(chosen, 0.5),
    }


def random_paths(chosen: random.Random) -> tuple[dict[str, Any], Paths]:
    """Return the fields of a rule about paths that contradict nothing, and what they mean."""
    while True:
        words = random_words(chosen)
        try:
            entries = [PathEntry.model_validate(each) for each in words["path_rules"]]
            default = PathAction(words["path_default"]) if words["path_default"] else None
            git = {name: Access(access) for name, access in words["git"].items()}
            return words, paths_of(entries, default, git, lfs=words["lfs"], verify=True)
        except ValueError:
            continue


def _happens(chosen: random.Random, share: float) -> bool:
    """Whether something happens that does in this share of all cases."""
    return chosen.random() < share


def random_request(chosen: random.Random, words: Mapping[str, Any]) -> tuple[str, str]:
    """Return a method, and a path with its query, near those that a rule is about."""
    if words["git"] and _happens(chosen, 0.4):
        return _of_git(chosen, chosen.choice([*words["git"]]))
    near = [each["path"] for each in words["path_rules"] if each["path"].startswith("/")]
    start = chosen.choice([*near, ""]).rstrip("/")
    path = start + "".join(f"/{each}" for each in _some(chosen, (*_SEGMENTS, *_ODD)))
    if _happens(chosen, 0.3):
        path = chosen.choice((start, f"{start}/", f"{start}x", f"{start}%2fx", start.swapcase())) or "/"
    return chosen.choice(METHODS), (path or "/") + chosen.choice(_QUERIES)


def _some(chosen: random.Random, among: Sequence[str] = _SEGMENTS) -> list[str]:
    return chosen.choices(among, k=chosen.randint(1, 3))


def _of_git(chosen: random.Random, name: str) -> tuple[str, str]:
    place = f"/{name}{chosen.choice(('', '.git', '.GIT'))}"
    service = chosen.choice(_SERVICES)
    target = chosen.choice(
        (
            f"{place}/info/refs?service={service}",
            f"{place}/info/refs{chosen.choice(_QUERIES)}",
            f"{place}/info/refs?service=git-upload-pack&service={service}",
            f"{place}/{service}",
            f"{place}/{service}{chosen.choice(('?', '/', '/a', '%2f', '?service=git-upload-pack'))}",
            f"{place}/info/lfs/objects/batch",
            f"{place}/info/lfs/locks/verify",
            f"{place}/HEAD",
            f"/a/..{place}//{service}",
        )
    )
    return chosen.choice(("GET", "POST", "HEAD")), target
