"""Handles Ctrl-C while the program starts and ends, when it would cause a traceback.

Imports take some tenths of a second. An interrupt during them is held until the command line runs, which then ends
like any interrupted command: with a message, an exit code, and a refusal where docker reads the answer. An ignored
signal, as under nohup, stays ignored. Commands can choose another handler with `handled`.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

LONGEST_WAIT = 1.0
"""Seconds that the main thread may wait at a time. A signal that arrives just before a wait, or in another thread,
does not end the wait, and Python handles it only afterwards."""

_held: list[int] = []


def hold() -> None:
    """Hold interrupts until `deliver`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _hold)


def _hold(number: int, _: FrameType | None) -> None:
    _held.append(number)


def deliver() -> None:
    """Stop holding interrupts. Raise KeyboardInterrupt if one was held."""
    if signal.getsignal(signal.SIGINT) is _hold:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if _held:
            raise KeyboardInterrupt


def end() -> None:
    """Let an interrupt end the process silently, because everything is done."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object], *signals: signal.Signals) -> Iterator[None]:
    """Handle these signals with a function until the context ends."""
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
