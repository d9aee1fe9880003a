"""The lock that lets tests run together or alone, across workers."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from devkit.floor import Floor


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """A thread that waits for the lock."""
    with ThreadPoolExecutor() as made:
        yield made


def waits(entering: "Future[None]") -> bool:
    """Whether it has not entered within a time in which it could have."""
    try:
        entering.result(0.2)
    except TimeoutError:
        return True
    return False


def test_many_are_beside_each_other_or_one_alone(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """A process that wants to be alone waits for all present ones, and precedes later ones."""
    first, second, lonely, late = (Floor(tmp_path) for _ in range(4))
    first.enter(alone=False)
    second.enter(alone=False)
    alone = pool.submit(lonely.enter, alone=True)
    assert waits(alone)
    after = pool.submit(late.enter, alone=False)
    first.leave()
    assert waits(alone)
    second.leave()
    alone.result(10)
    assert waits(after)
    lonely.leave()
    after.result(10)
    late.leave()


def test_a_place_is_kept_from_one_test_to_the_next(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Consecutive tests that need to be alone wait once and admit no others in between."""
    lonely, other = Floor(tmp_path), Floor(tmp_path)
    lonely.enter(alone=True)
    waiting = pool.submit(other.enter, alone=False)
    lonely.enter(alone=True)
    assert waits(waiting)
    lonely.enter(alone=False)
    waiting.result(10)
    lonely.leave()
    other.leave()
