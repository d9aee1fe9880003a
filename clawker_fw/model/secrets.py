"""The secrets of requests: those that Envoy's signer has, and how they differ from the desired ones. No values."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, Field


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


@dataclass(frozen=True, slots=True)
class HeldSecret:
    """A secret that a signer has: the HMAC-SHA-256 of its id and value, in hexadecimal, and when it was given.

    `given` is in seconds since 1970. The digest is under the key of the question, and must not be shown or
    kept. `at_rest` says whether it is on the disk as well: the helper of an earlier release keeps none there.
    """

    digest: str = dataclasses.field(repr=False)
    given: Annotated[float, BeforeValidator(_seconds)]
    at_rest: Annotated[bool, Field(validation_alias="rests")] = False


@dataclass(frozen=True, slots=True)
class HeldSecrets:
    """The secrets that a signer has, by id.

    `unloaded` are the ids of those of which Envoy uses another version, or none: also of some that were taken
    away. `key` is the one of their digests, made for one question.
    """

    by_id: Annotated[Mapping[str, HeldSecret], Field(validation_alias="secrets")]
    unloaded: frozenset[str] = frozenset()
    key: bytes = dataclasses.field(default=b"", repr=False, compare=False)


class SecretDifference(NamedTuple):
    """A secret that Envoy has and should not have, or should have: in words, or None without it.

    If it has the `same_value`, only where it is kept differs. If it is not `loaded`, the signer has what it
    should, and Envoy uses something else.
    """

    identity: str
    running: str | None
    desired: str | None
    same_value: bool = False
    loaded: bool = True
