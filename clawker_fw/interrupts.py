"""Ctrl-C while the program starts and ends, when nothing could report it but a traceback.

Imports take some tenths of a second. An interrupt during that time is held until the command line runs, which then
ends like any other that is interrupted: in words, with its exit code, and with a refusal where docker reads the
answer. Where the signal is ignored, as under nohup, it stays so. `handled` is for commands that choose otherwise.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_held: list[int] = []


def hold() -> None:
    """Hold interrupts until `deliver`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _hold)


def _hold(number: int, _: FrameType | None) -> None:
    _held.append(number)


def deliver() -> None:
    """Let interrupts through again, the one that was held first.

    Raises:
        KeyboardInterrupt: when there was one.
    """
    if signal.getsignal(signal.SIGINT) is _hold:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if _held:
            raise KeyboardInterrupt


def end() -> None:
    """Let an interrupt end the process silently: everything is done."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object], *signals: signal.Signals) -> Iterator[None]:
    """Have a function handle these signals until the context ends."""
    before = {each: signal.signal(each, handler) for each in signals}
    try:
        yield
    finally:
        for each, former in before.items():
            signal.signal(each, former)
