"""Who may run beside whom: the lock between the workers of a test run."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from devkit.floor import Floor


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Somebody who waits for us."""
    with ThreadPoolExecutor() as made:
        yield made


def waits(entering: "Future[None]") -> bool:
    """Whether somebody has not got in, in a time in which they could have."""
    try:
        entering.result(0.2)
    except TimeoutError:
        return True
    return False


def test_many_are_beside_each_other_or_one_alone(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Who would be alone waits for all that are there, and goes before those that come later."""
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
    """Tests in a row that are to be alone let nobody in between them, and wait once."""
    lonely, other = Floor(tmp_path), Floor(tmp_path)
    lonely.enter(alone=True)
    waiting = pool.submit(other.enter, alone=False)
    lonely.enter(alone=True)
    assert waits(waiting)
    lonely.enter(alone=False)
    waiting.result(10)
    lonely.leave()
    other.leave()
