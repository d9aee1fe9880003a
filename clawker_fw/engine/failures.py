"""What fails when an engine is asked, by us or by the Docker SDK, and a full disk, as our own errors."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from types import ModuleType

from clawker_fw.engine.local import AnswerError
from clawker_fw.engine.patience import innermost
from clawker_fw.errors import ConflictError, DiskFullError, EngineError, NotFoundError


def failures() -> tuple[type[Exception], ...]:
    """Return the types of what is raised when an engine does not answer, or answers that something is wrong.

    Those of `requests` are an `OSError`.
    """
    sdk = _sdk_errors()
    return (AnswerError, HTTPException, OSError, *([sdk.DockerException] if sdk else ()))


def _sdk_errors() -> ModuleType | None:
    """Return the SDK's module of errors; None if nothing can have raised one of them.

    That is so before it is imported, and while another thread is still importing it.
    """
    found = sys.modules.get("docker.errors")
    return found if all(hasattr(found, name) for name in ("DockerException", "APIError", "NotFound")) else None


@contextmanager
def translated(what: str, *, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Translate such exceptions into our errors. `what` completes "The engine could not …".

    Exceptions of the types in `but` are not translated.
    """
    try:
        yield
    except but:
        raise
    except failures() as error:
        answer = _answer(error)
        require_room(what, answer.words if answer else str(error), error)
        if answer is None:
            raise EngineError(
                "engine-unreachable",
                f"The engine did not answer when asked to {what}.",
                context=[str(innermost(error))],
            ) from error
        if answer.status == HTTPStatus.NOT_FOUND:
            raise NotFoundError("not-found", f"The engine could not {what}.", context=[answer.words]) from error
        kind = ConflictError if answer.status == HTTPStatus.CONFLICT else EngineError
        raise kind("engine-error", f"The engine could not {what}.", context=[answer.words]) from error


def _answer(error: Exception) -> AnswerError | None:
    """Return the engine's answer in an error, if it has answered."""
    if isinstance(error, AnswerError):
        return error
    sdk = _sdk_errors()
    if sdk is None or not isinstance(error, sdk.APIError):
        return None
    status = HTTPStatus.NOT_FOUND if isinstance(error, sdk.NotFound) else error.status_code
    return AnswerError(status or 0, str(error.explanation or error))


_FULL = ("no space left on device", "disk quota exceeded")
"""How an engine, or a program in a container, says that there is no room on the disk (strerror(3))."""


def require_room(what: str, words: str, error: Exception | None = None) -> None:
    """Raise an error of its own if these words say that there is no room on the disk.

    Raises:
        DiskFullError: if they do.
    """
    if any(each in words.lower() for each in _FULL):
        raise DiskFullError(
            "engine-disk-full",
            f"The engine could not {what}, because its disk is full.",
            context=[words],
            hint="Make room on the disk that has the engine's data (`docker system df`), then run again. "
            "To take rules away, `clawker-fw rules remove` and `reload` need no room.",
        ) from error
