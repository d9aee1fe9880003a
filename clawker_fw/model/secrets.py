"""The secrets of requests in Envoy's signer, and their differences from the desired ones. No values."""

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
    """A secret in the signer: the HMAC-SHA-256 of its id and value, in hexadecimal, and when it was `given`.

    `given` is in seconds since 1970. The digest's key belongs to one query; never show or store the digest.
    `at_rest` is whether it is also on disk.
    """

    digest: str = dataclasses.field(repr=False)
    given: Annotated[float, BeforeValidator(_seconds)]
    at_rest: Annotated[bool, Field(validation_alias="rests")] = False


@dataclass(frozen=True, slots=True)
class HeldSecrets:
    """The secrets in a signer, by id.

    `unloaded` are ids whose secret Envoy uses in another version or not at all, including some removed ones. `key`
    is the key of the digests, made for one query.
    """

    by_id: Annotated[Mapping[str, HeldSecret], Field(validation_alias="secrets")]
    unloaded: frozenset[str] = frozenset()
    key: bytes = dataclasses.field(default=b"", repr=False, compare=False)


class SecretDifference(NamedTuple):
    """A secret whose state in Envoy differs from the desired one; each state in words, or None without it.

    With `same_value`, only where it is stored differs. If it is not `loaded`, the signer is right, but Envoy uses
    something else.
    """

    identity: str
    running: str | None
    desired: str | None
    same_value: bool = False
    loaded: bool = True
