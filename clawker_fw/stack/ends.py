"""What becomes of a sibling's hot files when rules end: `fwctl` commits it then, although nobody runs anything.

The files for each end are rendered like all others, from the rules that are left. So what is live afterwards is
what is desired at that time. Only what differs from the files before is written down.
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

ENDS = container.HOT + RESOURCE.path

_KEY = json.dumps(PRIVATE_KEY.decode()).strip('"').encode()
"""What is before a private key, as it is written in a text. It is there if what is around it has moved."""

MOST_ENDS = 32
_MOST_RULES = 20_000


def known_ends(rules: int) -> int:
    """Return how many ends a sibling knows, of the next times at which rules end. A later run tells it more.

    The files are rendered for each of them whenever a stack is looked at, so with many rules it knows fewer.
    """
    return max(1, min(MOST_ENDS, _MOST_RULES // max(1, rules)))


@dataclass(frozen=True, slots=True)
class End:
    """The hot files from a time on, in seconds since 1970, what is live with them, and the rules that are left."""

    at: int
    hot: Files
    live: Mapping[str, str]
    rules: Rules


def ends_file(now: Files, ends: Iterable[End]) -> File:
    """Return the file with what becomes of the files of now at each end, the soonest first."""
    written: list[dict[str, Any]] = []
    before = now
    for end in ends:
        written.append(
            {
                "at": end.at,
                "files": {
                    path.removeprefix(container.HOT): {
                        "sha256": hashlib.sha256(file.content).hexdigest(),
                        "parts": parts(before[path].content, file.content),
                    }
                    for path, file in sorted(end.hot.items())
                    if before[path].content != file.content
                },
                "live": dict(end.live),
                "rules": {"count": end.rules.count, "sha256": end.rules.digest},
            }
        )
        before = end.hot
    text = json.dumps({"ends": written}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return secret(text) if _KEY in text else public(text)


def parts(before: bytes, after: bytes) -> list[dict[str, Any]]:
    """Return which parts of a text are replaced by what, so that it becomes another: positions are octets."""
    old, new = _pieces(before), _pieces(after)
    starts = [0, *accumulate(map(len, old))]
    changes = (each for each in SequenceMatcher(None, old, new).get_opcodes() if each[0] != "equal")
    return [
        {"from": starts[start], "to": starts[end], "text": b"".join(new[first:last]).decode()}
        for _, start, end, first, last in changes
    ]


def _pieces(text: bytes) -> Sequence[bytes]:
    """Divide JSON after each object in it, and after each line."""
    return text.replace(b"},", b"},\0").replace(b"\n", b"\n\0").split(b"\0")
