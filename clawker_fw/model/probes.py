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
    """Earlier releases' helpers do not count them."""


_Second = Annotated[float, Field(ge=-62_135_596_800, le=253_402_300_799, allow_inf_nan=False)]
"""Seconds since 1970, limited to the years 1 to 9999."""


class CertificateUse(StrEnum):
    """The use of a certificate."""

    AUTHORITY = "authority"
    CLIENT = "client"
    SERVER = "server"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate's content. Times are in seconds since 1970; `fingerprint` is SHA-256, in hexadecimal."""

    subject: str
    names: tuple[str, ...]
    begins: _Second
    ends: _Second
    fingerprint: Annotated[str, Field(validation_alias="sha256")]
    use: CertificateUse = CertificateUse.SERVER


@dataclass(frozen=True, slots=True)
class Records:
    """A container's telemetry records since its start: accepted by a collector, and lost."""

    sent: int = 0
    lost: int = 0


NO_RECORDS = Records()


@dataclass(frozen=True, slots=True)
class Restart:
    """Restarts of a helper process: `count` since the container's start, when the `last` was, and its `reason`."""

    helper: str
    count: int
    last: str
    reason: str


@dataclass(frozen=True, slots=True)
class Probe:
    """The report of `fwctl probe`, from inside a container.

    - `live` maps each hot resource to the digest that the program has loaded. `program` is its command line, and
      `processes` are unknown or missing ones; `restarts` are those of its helpers.
    - `others` are other answers to ARP requests for our addresses, as `ADDRESS MAC-ADDRESS`. `network` lists
      differences of the network namespace, and `engine_files` those of files that the engine mounts.
    - `agents_see` maps a firewall container to the problems when CoreDNS used it like an agent; `dropped` are
      those that no packet of agents reaches. `refused` counts what the limits refused.
    - `failed_checks` counts checks of its own code that the program failed; None if the helper can't tell.
    - `records` counts telemetry, and `collector` is the collector's last certificate, if the container sees it.
    - `signer`, `unhealthy` and `error` say why the signer does not answer, why a health check would fail, and why
      the program did not answer; empty if all is well. `secrets` is the number of secrets in the signer.
    - `verbs` are the helper's commands; earlier releases don't list them.
    """

    build: str = ""
    live: Mapping[str, str] = dataclasses.field(default_factory=dict)
    failed_checks: int | None = None
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
