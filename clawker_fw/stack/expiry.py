"""The changes to a sibling's dynamic files when rules expire. `fwctl` commits them then.

Each expiry's files are rendered from the remaining rules. Only the differences are stored.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate
from typing import Any

from clawker_fw.model.desired import Rules
from clawker_fw.model.files import File, Files
from clawker_fw.stack import container
from clawker_fw.stack.files import public, secret
from clawker_fw.stack.resources import PRIVATE_KEY, Resource

RESOURCE = Resource("ends", "ends/ends.json")

EXPIRIES = container.HOT + RESOURCE.path

_KEY = json.dumps(PRIVATE_KEY.decode()).strip('"').encode()
"""The text before a private key. It stays in place when the text around it moves."""

MOST_EXPIRIES = 32
_MOST_RULES = 20_000


def known_expiries(rules: int) -> int:
    """Return how many expiries a sibling knows: fewer with many rules, as each comparison renders all of them."""
    return max(1, min(MOST_EXPIRIES, _MOST_RULES // max(1, rules)))


@dataclass(frozen=True, slots=True)
class Expiry:
    """The dynamic files from a time (seconds since 1970) on, their live digests, and the remaining rules."""

    at: int
    hot: Files
    live: Mapping[str, str]
    rules: Rules


def expiries_file(now: Files, expiries: Iterable[Expiry]) -> File:
    """Return the file with the changes at each expiry, the soonest first."""
    changes: list[dict[str, Any]] = []
    before = now
    for expiry in expiries:
        changes.append(
            {
                "at": expiry.at,
                "files": {
                    path.removeprefix(container.HOT): {
                        "sha256": hashlib.sha256(file.content).hexdigest(),
                        "parts": parts(before[path].content, file.content),
                    }
                    for path, file in sorted(expiry.hot.items())
                    if before[path].content != file.content
                },
                "live": dict(expiry.live),
                "rules": {"count": expiry.rules.count, "sha256": expiry.rules.digest},
            }
        )
        before = expiry.hot
    text = json.dumps({"ends": changes}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return secret(text) if _KEY in text else public(text)


def parts(before: bytes, after: bytes) -> list[dict[str, Any]]:
    """Return the replacements that turn one text into another. Positions are in bytes."""
    old, new = _pieces(before), _pieces(after)
    starts = [0, *accumulate(map(len, old))]
    changes = (opcode for opcode in SequenceMatcher(None, old, new).get_opcodes() if opcode[0] != "equal")
    return [
        {"from": starts[start], "to": starts[end], "text": b"".join(new[first:last]).decode()}
        for _, start, end, first, last in changes
    ]


def _pieces(text: bytes) -> Sequence[bytes]:
    """Divide JSON after each object and each line."""
    return text.replace(b"},", b"},\0").replace(b"\n", b"\n\0").split(b"\0")
