"""A signal ends a wait, even if the wait itself is not interrupted."""

import signal
import threading
from types import FrameType

import pytest

from clawker_fw import interrupts
from clawker_fw.denials.following import Following
from clawker_fw.denials.reading import Sources
from devkit.memory.engine import MemoryEngine

STUCK_AFTER = 20.0


def test_a_signal_in_another_thread_ends_following() -> None:
    """So does one that arrives just before the main thread waits, for the same reason."""
    stuck: list[bool] = []
    main = threading.get_ident()

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    def give_up() -> None:
        stuck.append(True)
        signal.pthread_kill(main, signal.SIGUSR1)

    def in_another_thread() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    following = Following(MemoryEngine(), "clawker", Sources((), {}, {}))
    giving_up = threading.Timer(STUCK_AFTER, give_up)
    with interrupts.handled(interrupt, signal.SIGUSR1):
        giving_up.start()
        threading.Timer(0.2, in_another_thread).start()
        with pytest.raises(KeyboardInterrupt):
            next(iter(following))
    giving_up.cancel()
    assert not stuck
