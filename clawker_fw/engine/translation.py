"""The errors of the Docker SDK, of `requests`, and of a full disk, as our own."""

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from docker import errors

from clawker_fw.engine.transport import innermost
from clawker_fw.errors import ConflictError, DiskFullError, EngineError, NotFoundError


@contextmanager
def translated(what: str, *, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Translate the SDK's exceptions into our errors. `what` completes "The engine could not …".

    Exceptions of the types in `but` are not translated.
    """
    try:
        yield
    except but:
        raise
    except errors.NotFound as error:
        explanation = str(error.explanation)
        raise NotFoundError("not-found", f"The engine could not {what}.", context=[explanation]) from error
    except errors.APIError as error:
        require_room(what, str(error.explanation or error), error)
        kind = ConflictError if error.status_code == requests.codes.conflict else EngineError
        raise kind(
            "engine-error", f"The engine could not {what}.", context=[str(error.explanation or error)]
        ) from error
    except (errors.DockerException, requests.RequestException, OSError) as error:
        require_room(what, str(error), error)
        raise EngineError(
            "engine-unreachable",
            f"The engine did not answer when asked to {what}.",
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
