"""Reading the answers of `fwctl`: strictly, so that one in an unknown form is an error and never empty.

The helper of an earlier release prints fewer fields, one of a later release may print more.
"""

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from clawker_fw.errors import EngineError
from clawker_fw.model import Lookup, Probe, Trial, Usage

PROTOCOL = 1
"""The version of what both sides say to each other. It changes where another one would be misunderstood."""

_MOST_CHARACTERS = 200
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Committed:
    """What came of a commit.

    `refused` are the resources that the program rejected, or that it did not load in time. `hung` is
    whether the program no longer answers and must be restarted.
    """

    committed: bool
    refused: tuple[str, ...] = ()
    reason: str = ""
    hung: bool = False


def _seconds(moment: str) -> float:
    """Return a time (RFC 3339) in seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()


@dataclass(frozen=True, slots=True)
class HeldSecret:
    """A secret that a signer has: the HMAC-SHA-256 of its id and value, in hexadecimal, and when it was given.

    `given` is in seconds since 1970. The digest is under the key of the question, and must not be shown or
    kept. `at_rest` says whether it is on the disk as well: the helper of an earlier release keeps none there.
    """

    digest: str = field(repr=False)
    given: Annotated[float, BeforeValidator(_seconds)]
    at_rest: Annotated[bool, Field(validation_alias="rests")] = False


@dataclass(frozen=True, slots=True)
class HeldSecrets:
    """The secrets that a signer has, by id.

    `unloaded` are the ids of those of which Envoy uses another version, or none: also of some that were taken
    away.
    """

    by_id: Annotated[Mapping[str, HeldSecret], Field(validation_alias="secrets")]
    unloaded: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Suppressed:
    """How many refusals a sibling has counted without a line about them, and what its limits have dropped.

    `dropped` is by the agent's address, and `lines` how many lines it has written since its recorder started. The
    helper of an earlier release says neither.
    """

    refusals: int
    lines: int | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)


def digest_of_secret(key: bytes, identity: str, value: str) -> str:
    """Return what a signer says of a secret with this value, under this key."""
    return hmac.new(key, f"{identity}\0{value}".encode(), "sha256").hexdigest()


def _read(kind: type[_Answer], answer: Mapping[str, Any], what: str, *needed: str, of: str = "") -> _Answer:
    """Read an answer, or one field `of` it. Missing fields and null have their defaults, but not those `needed`.

    Raises:
        EngineError: when it has another form.
    """
    try:
        given = {name: value for name, value in answer.items() if value is not None}
        _require(given, (*needed, of) if of else needed)
        return TypeAdapter(kind).validate_json(json.dumps(given[of] if of else given), strict=True)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = _reason(error)[:_MOST_CHARACTERS]
        raise EngineError("probe-unreadable", f"{what} in an unknown form: {reason}.") from None


def _require(given: Mapping[str, object], needed: Sequence[str]) -> None:
    for name in needed:
        if name not in given:
            raise ValueError(f"{name}: it is missing")


def _reason(error: Exception) -> str:
    """Return what is wrong with an answer, without the values in it: they may be secret."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def read_secrets(answer: Mapping[str, Any]) -> HeldSecrets:
    """Read the output of `fwctl secrets`."""
    return _read(HeldSecrets, answer, "Secrets were told of")


def read_probe(answer: Mapping[str, Any]) -> Probe:
    """Read the output of `fwctl probe`.

    Raises:
        EngineError: when it is of a helper which speaks a later protocol, or has another form.
    """
    protocol = answer.get("protocol", PROTOCOL)
    if protocol != PROTOCOL:
        raise EngineError(
            "helper-newer",
            f"A helper speaks protocol {protocol}, and this release knows {PROTOCOL}.",
            hint="A later release made this stack. Install that, or replace the stack with `clawker-fw run`.",
        )
    told = {"unhealthy": "it can't tell", **answer}
    return _read(Probe, told, "A probe answered", "build", "addresses", "claimed", "network", "error")


def read_suppressed(answer: Mapping[str, Any]) -> Suppressed:
    """Read the output of `fwctl suppressed`."""
    return _read(Suppressed, answer, "A count was answered")


def read_usage(answer: Mapping[str, Any]) -> Usage:
    """Read the output of `fwctl usage`."""
    found = _read(Usage, answer, "What agents have used was told", "uses", "lost", "inherited")
    return replace(found, told=json.dumps(answer).encode())


def read_inherited(answer: Mapping[str, Any]) -> bool:
    """Read the output of `fwctl inherit-usage`: whether anything was added."""
    return _read(bool, answer, "What became of a history was told", of="added")


def read_relayed(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the output of `fwctl relayed`."""
    network = _read(tuple[str, ...], answer, "A relay answered", of="network")
    closed = _read(tuple[int, ...], answer, "A relay answered", of="closed")
    return (*network, *(f"nobody listens on port {port}" for port in closed))


def read_lookup(answer: Mapping[str, Any]) -> Lookup:
    """Read the output of `fwctl lookup`."""
    return _read(Lookup, answer, "A lookup was answered", "error")


def read_trial(answer: Mapping[str, Any]) -> Trial:
    """Read the output of `fwctl try`."""
    return _read(Trial, answer, "An attempt was answered")


def read_agents_see(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the output of `fwctl see`."""
    return _read(tuple[str, ...], answer, "A look was answered", of="agents_see")


def read_connections(answer: Mapping[str, Any]) -> int:
    """Read a line of `fwctl drain`."""
    return _read(int, answer, "A drain was answered", of="connections")


def read_committed(answer: Mapping[str, Any]) -> Committed:
    """Read the last line of `fwctl commit`. What is missing in it counts as a refusal."""
    refused = answer.get("rejected") or answer.get("missing") or ()
    return Committed(
        answer.get("committed") is True,
        tuple(map(str, refused)),
        str(answer.get("reason") or ""),
        answer.get("hung") is True,
    )


def read_lacking(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the output of `fwctl requirements`: what the kernel lacks, a sentence each.

    Raises:
        KeyError, TypeError: when it is not the output of `fwctl requirements`.
    """
    return tuple(map(str, answer["lacking"]))


def read_outcome(answer: Mapping[str, Any]) -> tuple[str, str]:
    """Read a line of `fwctl attempts`: the attempt's id, and what it ended with.

    Raises:
        KeyError, TypeError: when it is not a line of `fwctl attempts`.
    """
    return str(answer["id"]), str(answer["outcome"])
