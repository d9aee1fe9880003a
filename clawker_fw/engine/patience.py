"""How long an engine is waited for, and what is said of one that does not answer or can't be reached."""

import logging
from dataclasses import dataclass
from pathlib import Path

import requests

from clawker_fw.engine.locate import EngineLocation
from clawker_fw.errors import EngineError, FirewallError

LOG = logging.getLogger("clawker_fw")

CALL_SECONDS: float = 60

SILENT_SECONDS: float = 5
"""How long an engine may be silent before a warning is logged."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an engine may leave a request unanswered, in seconds, and after how long a warning is logged."""

    call: float
    warned_after: float | None
    """None logs none."""


def usual() -> Patience:
    """Return the patience of a command that is about one engine."""
    return Patience(CALL_SECONDS, SILENT_SECONDS)


class Silence:
    """Logs a warning when an engine is slow to answer: once, until it answers again."""

    def __init__(self, address: str, patience: Patience) -> None:
        """Store of which engine the warning is, and when it is due."""
        self._address = address
        self.after = patience.warned_after
        self._told = False

    def warn(self) -> None:
        """Log the warning, unless it has been logged."""
        if self.after is not None and not self._told:
            self._told = True
            silent = f"has not answered for {self.after:g} s"
            words = f"Waiting for the Docker engine at {self._address}, which {silent}."
            fields = {"address": self._address, "seconds": self.after}
            LOG.warning("engine_silent", extra={"words": words, "fields": fields})

    def answered(self) -> None:
        """Note that the engine has answered."""
        self._told = False


def unreachable(place: EngineLocation, error: Exception, patience: Patience) -> EngineError:
    """Return the error for an engine that can't be reached."""
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
            context=[f"waited {patience.call:g} s", *context],
            hint="It hangs or is overloaded: read its log, and restart it.",
        )
    return EngineError(
        "engine-unreachable",
        f"The Docker engine at {place.address} can't be reached.",
        context=context,
        hint="Start it, or name another one with --host, --context or DOCKER_HOST.",
    )


def _owner(place: EngineLocation) -> list[str]:
    """Return the owner of the engine's socket, if it is visible."""
    try:
        path = Path(place.address.removeprefix("unix://"))
        return [f"{path} belongs to user {path.owner()} and group {path.group()}"]
    except (OSError, KeyError):
        return []


def _trust(place: EngineLocation) -> list[str]:
    """Return a line about TLS for an error's context."""
    if place.tls is None:
        return []
    parts = {"ca.pem": place.tls.authority, "cert.pem and key.pem": place.tls.client}
    missing = [name for name, path in parts.items() if path is None]
    return [f"TLS by the files in {place.tls.folder}{''.join(f', without {name}' for name in missing)}"]


def innermost(error: BaseException) -> BaseException:
    """Return the original error, whose text says most. One of ours that was being handled is not its reason."""
    while (earlier := error.__cause__ or error.__context__) and not isinstance(earlier, FirewallError):
        error = earlier
    return error
