"""The report of `fwctl probe`, from inside a firewall container."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import AliasPath, Field


@dataclass(frozen=True, slots=True)
class Refused:
    """What a sibling's limits have refused of one source address since the sibling started.

    A source is forgotten an hour after its last refusal.
    """

    source: str
    connections: int
    queries: int
    datagrams: int = 0
    """The helper of an earlier release does not count them."""


_Second = Annotated[float, Field(ge=-62_135_596_800, le=253_402_300_799, allow_inf_nan=False)]
"""One of the years 1 to 9999, since 1970."""


class CertificateUse(StrEnum):
    """The use of a certificate."""

    AUTHORITY = "authority"
    CLIENT = "client"
    SERVER = "server"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says. Times are in seconds since 1970; `fingerprint` is SHA-256, in hexadecimal."""

    subject: str
    names: tuple[str, ...]
    begins: _Second
    ends: _Second
    fingerprint: Annotated[str, Field(validation_alias="sha256")]
    use: CertificateUse = CertificateUse.SERVER


@dataclass(frozen=True, slots=True)
class Records:
    """What became of a sibling's telemetry since it started: records that a collector has taken, and others."""

    sent: int = 0
    lost: int = 0


NO_RECORDS = Records()


@dataclass(frozen=True, slots=True)
class Restart:
    """A process beside a program that has ended and was started again.

    `count` is how often since the container started, `last` when the last time, and `reason` how it ended.
    """

    helper: str
    count: int
    last: str
    reason: str


@dataclass(frozen=True, slots=True)
class Probe:
    """The report of `fwctl probe`, from inside a container.

    `live` maps each hot resource to the digest of what the program has loaded.
    `others` lists other answers to ARP requests for our addresses, as `ADDRESS MAC-ADDRESS`.
    `network` lists the differences of the network namespace from the desired one, and `engine_files` those of the
    files that the engine mounts. `agents_see` maps a sibling to what CoreDNS found wrong when it used that sibling
    like an agent, and `dropped` are the siblings to whom no packet of agents gets. `refused` is what the limits
    have refused. `records` counts what has been sent to a collector,
    and `collector` is the certificate that it showed last, as far as the sibling sees it. `program` is the command
    line of the serving process, and `processes` are unknown ones, and missing ones. `restarts` are of those beside
    the serving one. `signer` is the reason for which the signer beside Envoy does not answer, `unhealthy` that for
    which a health check would fail now, and `error` that for which the program did not answer; all are empty if
    all is well. `secrets` is how many secrets for requests the signer has. `verbs` are those that the helper
    knows; one of an earlier release does not list them.
    """

    build: str = ""
    live: Mapping[str, str] = dataclasses.field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    claimed: bool = False
    others: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    engine_files: tuple[str, ...] = ()
    agents_see: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    records: Annotated[Records, Field(validation_alias="telemetry")] = NO_RECORDS
    collector: Annotated[Certificate | None, Field(validation_alias=AliasPath("telemetry", "collector"))] = None
    program: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    restarts: tuple[Restart, ...] = ()
    signer: str = ""
    secrets: int = 0
    unhealthy: str = ""
    error: str = ""
    verbs: frozenset[str] | None = None
