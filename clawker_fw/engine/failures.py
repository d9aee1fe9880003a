"""The engine's timeout, and its failures as our own errors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import requests
from docker import errors
from urllib3.exceptions import HTTPError

from clawker_fw.engine.locate import EngineLocation
from clawker_fw.errors import ConflictError, DiskFullError, EngineError, FirewallError, NotFoundError

FAILURES = (errors.DockerException, HTTPError, OSError)
"""Errors of an engine that does not answer, or answers with an error. `requests` raises `OSError`s."""

_FULL = ("no space left on device", "disk quota exceeded")
"""Messages of an engine, or of a program in a container, when the disk is full (strerror(3))."""

_IDENTITY = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")

CALL_SECONDS: float = 60
"""The timeout of a request when a command uses one engine."""


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Translate such errors into ours. `what` completes "The engine could not …"."""
    try:
        yield
    except errors.APIError as error:
        words = str(error.explanation or error)
        require_room(what, words, error)
        if isinstance(error, errors.NotFound):
            raise NotFoundError("not-found", f"The engine could not {what}.", context=[words]) from error
        kind = ConflictError if error.status_code == HTTPStatus.CONFLICT else EngineError
        hint = "Docker's log may say more (`journalctl -u docker`). Run the command again once the cause is gone."
        raise kind(
            "engine-error", f"The engine could not {what}.", context=[shortened(words)], hint=hint
        ) from error
    except FAILURES as error:
        require_room(what, str(error), error)
        raise EngineError(
            "engine-unreachable",
            f"The engine did not answer the request to {what}.",
            context=[str(innermost(error))],
        ) from error


def shortened(text: str) -> str:
    """Shorten each id in a text to twelve digits, as the docker CLI does."""
    return _IDENTITY.sub(r"\1", text)


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Translate the failure to read an engine's answer into an error that names the object.

    The answer may differ from the API: through a proxy, another engine, or another release. Put only the reading
    inside, because any other error would be blamed on the engine.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise EngineError(
            "engine-unreadable",
            f"The engine's answer about {what} can't be read.",
            context=[f"{type(error).__name__}: {error}"],
            hint="If it is not yours, remove it. Otherwise report a bug, with what `docker inspect` prints of it.",
        ) from error


def require_room(what: str, words: str, error: Exception | None = None) -> None:
    """Raise DiskFullError if a message says that the disk is full."""
    if any(phrase in words.lower() for phrase in _FULL):
        raise DiskFullError(
            "engine-disk-full",
            f"The engine could not {what}, because its disk is full.",
            context=[words],
            hint="Make room on the disk that has the engine's data (`docker system df`), then run again. "
            "To take rules away, `clawker-fw rules remove` and `reload` need no room.",
        ) from error


def unreachable(place: EngineLocation, error: Exception, seconds: float) -> EngineError:
    """Return the error for an unreachable engine. `seconds` is the timeout of the request."""
    reason = innermost(error)
    context = [str(reason), f"named by {place.source}", *_trust(place)]
    if isinstance(reason, PermissionError):
        return EngineError(
            "engine-denied",
            f"You have no permission to use the Docker engine at {place.address}.",
            context=[*context, *_owner(place)],
            hint="Run this as root, or as a member of the socket's group.",
        )
    if isinstance(reason, TimeoutError) or isinstance(error, requests.Timeout):
        return EngineError(
            "engine-silent",
            f"The Docker engine at {place.address} accepts connections but does not answer.",
            context=[f"waited {seconds:g} s", *context],
            hint="It hangs or is overloaded: read its log, and restart it.",
        )
    return EngineError(
        "engine-unreachable",
        f"The Docker engine at {place.address} can't be reached.",
        context=context,
        hint="Start it, or name another one with --host, --context or DOCKER_HOST.",
    )


def _owner(place: EngineLocation) -> list[str]:
    try:
        path = Path(place.address.removeprefix("unix://"))
        return [f"{path} belongs to user {path.owner()} and group {path.group()}"]
    except (OSError, KeyError):
        return []


def _trust(place: EngineLocation) -> list[str]:
    if place.tls is None:
        return []
    parts = {"ca.pem": place.tls.authority, "cert.pem and key.pem": place.tls.client}
    missing = [name for name, path in parts.items() if path is None]
    return [f"TLS by the files in {place.tls.folder}{''.join(f', without {name}' for name in missing)}"]


def innermost(error: BaseException) -> BaseException:
    """Return the original error, which says most. Stop before errors of ours, which are not its reason."""
    while (earlier := error.__cause__ or error.__context__) and not isinstance(earlier, FirewallError):
        error = earlier
    return error
