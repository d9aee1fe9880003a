"""What a replacement keeps of what agents have used."""

import gzip
import json

import pytest

from clawker_fw.fwctl import HelperReader
from clawker_fw.model.containers import ContainerSpec, Shape
from clawker_fw.reconcile.carried import hand_over
from clawker_fw.stack.container import USED as USED_FILES
from clawker_fw.stack.files import public
from clawker_fw.stack.resources import SIBLING
from devkit.memory.engine import MemoryEngine

TOLD = {"id": "x", "inherited": [], "since": 1, "now": 2, "lost": 0}
USED = {"protocol": "https", "name": "a.test", "port": 443, "first": 1, "last": 2}
AMOUNTS = {"connections": 3, "received": 4, "sent": 5}


def pair() -> tuple[MemoryEngine, str, str]:
    """Return an engine with two containers that run and keep what is used, of which one replaces the other."""
    engine = MemoryEngine()
    engine.pull_image("x", lambda _: None)
    files = {SIBLING: public(b'{"usage": {}}')}
    old, new = (engine.create_container(ContainerSpec(name, "x", {}, Shape((), (), {}), files)) for name in "on")
    for each in (old, new):
        engine.inside(each).status = "running"
    return engine, old, new


def history(now: float, *names: str, turn: object = 0) -> bytes:
    """Return a history as a recorder writes it down."""
    uses = [{**USED, **AMOUNTS, "name": name} for name in names]
    return gzip.compress(json.dumps({**TOLD, "now": now, "turn": turn, "uses": uses}).encode(), mtime=0)


def names_used(engine: MemoryEngine, container: str) -> list[str]:
    """Return the names that a container's recorder knows."""
    return [each.name for each in HelperReader(engine, container).usage().uses]


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        (history(1, "a.test"), history(2, "a.test", "b.test"), ["a.test", "b.test"]),
        (history(3, "a.test"), history(2, "a.test", "b.test"), ["a.test"]),
        (history(1, "a.test"), history(2, "b.test")[:-1], ["a.test"]),
        (history(3, "a.test", turn=1), history(2, "b.test", turn=2), ["b.test"]),
        (history(1, "a.test"), history(2, "b.test", turn="later"), ["a.test"]),
        (b"no archive", gzip.compress(b"{}", mtime=0), []),
        (gzip.compress(b"[" * 100_000, mtime=0), b"", []),
    ],
)
def test_what_was_used_is_handed_over_from_the_volume(first: bytes, second: bytes, names: list[str]) -> None:
    """Of a container that has ended, what was written last counts, however the clock was set. Half is none."""
    engine, old, new = pair()
    engine.inside(old).status = "exited"
    engine.put_files(old, {path: public(each) for path, each in zip(USED_FILES, (first, second), strict=True)})
    hand_over(engine, old, new)
    assert names_used(engine, new) == names
