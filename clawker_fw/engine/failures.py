"""The Docker SDK's errors, and a full disk, as our own errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from docker import errors
from urllib3.exceptions import HTTPError

from clawker_fw.engine.patience import innermost
from clawker_fw.errors import ConflictError, DiskFullError, EngineError, NotFoundError

FAILURES = (errors.DockerException, HTTPError, OSError)
"""The types of errors when an engine does not answer, or answers with an error. `requests` raises an `OSError`."""


@contextmanager
def translated(what: str, *, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Translate such errors into ours. `what` completes "The engine could not …".

    Errors of the type `but` are not translated.
    """
    try:
        yield
    except but:
        raise
    except errors.APIError as error:
        words = str(error.explanation or error)
        require_room(what, words, error)
        if isinstance(error, errors.NotFound):
            raise NotFoundError("not-found", f"The engine could not {what}.", context=[words]) from error
        kind = ConflictError if error.status_code == HTTPStatus.CONFLICT else EngineError
        raise kind("engine-error", f"The engine could not {what}.", context=[words]) from error
    except FAILURES as error:
        require_room(what, str(error), error)
        raise EngineError(
            "engine-unreachable",
            f"The engine did not answer the request to {what}.",
            context=[str(innermost(error))],
        ) from error


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
