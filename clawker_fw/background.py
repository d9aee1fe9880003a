"""Background work in daemon threads."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from typing import ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")

_THREADS = 4


def in_background(work: Callable[_Given, _Result], *given: _Given.args, **named: _Given.kwargs) -> Future[_Result]:
    """Run `work` in a daemon thread, which can't block the program's exit if an engine never answers.

    It has a copy of the caller's context, so that its messages are about the same stack.
    """
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(work(*given, **named))
        except BaseException as error:  # noqa: BLE001 - raised by the caller's `result()`
            future.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    return future


def shared_out(work: Callable[[Sequence[_Item]], _Result], items: Sequence[_Item]) -> list[Future[_Result]]:
    """Run `work` in a few daemon threads, each with its share of the items."""
    return [in_background(work, items[first::_THREADS]) for first in range(min(_THREADS, len(items)))]
