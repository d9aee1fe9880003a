"""Doing something in a thread that nobody has to wait for."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def aside(work: Callable[_Given, _Result], *given: _Given.args, **named: _Given.kwargs) -> Future[_Result]:
    """Begin to do it, and return what its result, or its error, will be in.

    Unlike the threads of an executor, this one does not keep the program from ending: who is asked may be silent.
    """
    future: Future[_Result] = Future()

    def work_aside() -> None:
        try:
            future.set_result(work(*given, **named))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=work_aside, daemon=True).start()
    return future
