"""Reading the answers of `fwctl`. The helper of an earlier release prints fewer fields."""

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from clawker_fw.errors import EngineError
from clawker_fw.model import (
    FoundAddress,
    Lookup,
    Probe,
    Records,
    Refused,
    Restart,
    ServerCertificate,
    Trial,
    TrialStep,
    Usage,
    Use,
)

PROTOCOL = 1
"""The version of what both sides say to each other. It changes where another one would be misunderstood."""


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


@dataclass(frozen=True, slots=True)
class HeldSecret:
    """A secret that a signer has: the HMAC-SHA-256 of its id and value, in hexadecimal, and when it was given.

    `given` is in seconds since 1970. The digest is under the key of the question, and must not be shown or
    kept. `at_rest` says whether it is on the disk as well.
    """

    digest: str = field(repr=False)
    given: float
    at_rest: bool = False


@dataclass(frozen=True, slots=True)
class HeldSecrets:
    """The secrets that a signer has, by id.

    `unloaded` are the ids of those of which Envoy uses another version, or none: also of some that were taken
    away.
    """

    by_id: Mapping[str, HeldSecret]
    unloaded: frozenset[str] = frozenset()


def digest_of_secret(key: bytes, identity: str, value: str) -> str:
    """Return what a signer says of a secret with this value, under this key."""
    return hmac.new(key, f"{identity}\0{value}".encode(), "sha256").hexdigest()


def read_secrets(answer: Mapping[str, Any]) -> HeldSecrets:
    """Read the output of `fwctl secrets`.

    Raises:
        EngineError: when it is not that.
    """
    try:
        by_id = {
            str(identity): HeldSecret(
                str(each["digest"]),
                datetime.fromisoformat(each["given"]).timestamp(),
                each.get("rests") is True,  # the helper of an earlier release keeps none
            )
            for identity, each in answer["secrets"].items()
        }
        return HeldSecrets(by_id, frozenset(map(str, answer.get("unloaded") or ())))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EngineError("probe-unreadable", f"Secrets were told of in an unknown form: {error}.") from error


def read_probe(answer: Mapping[str, Any]) -> Probe:
    """Read the output of `fwctl probe`.

    Raises:
        EngineError: when it is not the output of a probe, or that of a helper which speaks a later protocol.
    """
    _require_known(answer.get("protocol", PROTOCOL))
    try:
        return Probe(
            build=answer["build"],
            live={str(name): str(digest) for name, digest in (answer.get("live") or {}).items()},
            addresses=tuple(answer["addresses"]),
            claimed=answer["claimed"],
            others=tuple(map(str, answer.get("others") or ())),
            network=tuple(answer["network"]),
            agents_see={
                str(sibling): tuple(map(str, seen)) for sibling, seen in (answer.get("agents_see") or {}).items()
            },
            dropped=tuple(map(str, answer.get("dropped") or ())),
            refused=tuple(
                Refused(
                    str(each["source"]),
                    int(each["connections"]),
                    int(each["queries"]),
                    int(each.get("datagrams", 0)),  # the helper of an earlier release does not count them
                )
                for each in answer.get("refused") or ()
            ),
            records=_read_records(answer.get("telemetry") or {}),
            collector=_read_collector(answer.get("telemetry") or {}),
            engine_files=tuple(answer.get("engine_files") or ()),
            program=tuple(answer.get("program") or ()),
            processes=tuple(answer.get("processes") or ()),
            restarts=tuple(
                Restart(str(each["helper"]), int(each["count"]), str(each["last"]), str(each["reason"]))
                for each in answer.get("restarts") or ()
            ),
            signer=str(answer.get("signer") or ""),
            secrets=int(answer.get("secrets") or 0),
            unhealthy=answer.get("unhealthy", "it can't tell"),
            error=answer["error"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EngineError("probe-unreadable", f"A probe answered in an unknown form: {error}.") from error


def _require_known(protocol: object) -> None:
    if protocol != PROTOCOL:
        raise EngineError(
            "helper-newer",
            f"A helper speaks protocol {protocol}, and this release knows {PROTOCOL}.",
            hint="A later release made this stack. Install that, or replace the stack with `clawker-fw run`.",
        )


def _read_records(telemetry: Mapping[str, Any]) -> Records:
    return Records(int(telemetry.get("sent", 0)), int(telemetry.get("lost", 0)))


def _read_collector(telemetry: Mapping[str, Any]) -> ServerCertificate | None:
    shown = telemetry.get("collector")
    return None if shown is None else ServerCertificate.read(shown)


def read_suppressed(answer: Mapping[str, Any]) -> int:
    """Read the output of `fwctl suppressed`.

    Raises:
        EngineError: when it is not the output of `fwctl suppressed`.
    """
    try:
        return int(answer["refusals"])
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("probe-unreadable", f"A count was answered in an unknown form: {error}.") from error


def read_written(answer: Mapping[str, Any]) -> int | None:
    """Read how many lines were written from the output of `fwctl suppressed`; an earlier helper does not say it.

    Raises:
        EngineError: when it is not the output of `fwctl suppressed`.
    """
    try:
        return int(answer["lines"]) if "lines" in answer else None
    except (TypeError, ValueError) as error:
        raise EngineError("probe-unreadable", f"A count was answered in an unknown form: {error}.") from error


def read_dropped(answer: Mapping[str, Any]) -> dict[str, int]:
    """Read from the output of `fwctl suppressed` what the limits have dropped, by address.

    The helper of an earlier release does not tell.

    Raises:
        EngineError: when it is not the output of `fwctl suppressed`.
    """
    try:
        return {str(source): int(count) for source, count in (answer.get("dropped") or {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise EngineError("probe-unreadable", f"A count was answered in an unknown form: {error}.") from error


def read_usage(answer: Mapping[str, Any]) -> Usage:
    """Read the output of `fwctl usage`.

    Raises:
        EngineError: when it is not the output of `fwctl usage`.
    """
    try:
        return Usage(
            identity=str(answer["id"]),
            since=float(answer["since"]),
            now=float(answer["now"]),
            # The helper of an earlier release has apart what it has counted for several names together.
            uses=tuple(_read_use(each) for each in (*answer["uses"], *answer.get("rest", ()))),
            lost=int(answer["lost"]),
            inherited=frozenset(map(str, answer["inherited"])),
            open={str(port): int(count) for port, count in (answer.get("open") or {}).items()},
            told=json.dumps(answer).encode(),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EngineError(
            "probe-unreadable", f"What agents have used was told in an unknown form: {error}."
        ) from error


_PROTOCOLS = {each: each for each in ("https", "http", "tcp", "udp")}
"""Those by which rules are asked; another one could not be judged."""


def _read_use(each: Mapping[str, Any]) -> Use:
    return Use(
        protocol=_PROTOCOLS[each["protocol"]],
        name=str(each["name"]),
        port=int(each["port"]),
        first=float(each["first"]),
        last=float(each["last"]),
        connections=int(each["connections"]),
        received=int(each["received"]),
        sent=int(each["sent"]),
    )


def read_inherited(answer: Mapping[str, Any]) -> bool:
    """Read the output of `fwctl inherit-usage`: whether anything was added.

    Raises:
        EngineError: when it is not the output of `fwctl inherit-usage`.
    """
    if not isinstance(answer, Mapping) or not isinstance(answer.get("added"), bool):
        raise EngineError("probe-unreadable", "What became of a history was told in an unknown form.")
    return answer["added"] is True


def read_relayed(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the output of `fwctl relayed`.

    Raises:
        EngineError: when it is not the output of `fwctl relayed`.
    """
    try:
        closed = (f"nobody listens on port {int(port)}" for port in answer["closed"])
        return (*map(str, answer["network"]), *closed)
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("probe-unreadable", f"A relay answered in an unknown form: {error}.") from error


def read_lookup(answer: Mapping[str, Any]) -> Lookup:
    """Read the output of `fwctl lookup`.

    Raises:
        EngineError: when it is not the output of a lookup.
    """
    try:
        addresses = (
            FoundAddress(str(each["address"]), tuple(map(str, each["closed"]))) for each in answer["addresses"]
        )
        return Lookup(tuple(addresses), str(answer["error"]))
    except (KeyError, TypeError) as error:
        raise EngineError("probe-unreadable", f"A lookup was answered in an unknown form: {error}.") from error


def read_trial(answer: Mapping[str, Any]) -> Trial:
    """Read the output of `fwctl try`.

    Raises:
        EngineError: when it is not the output of an attempt.
    """
    try:
        return Trial(_read_steps(answer["steps"]))
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("probe-unreadable", f"An attempt was answered in an unknown form: {error}.") from error


def _read_steps(steps: Sequence[Mapping[str, Any]]) -> tuple[TrialStep, ...]:
    if not steps:
        raise ValueError("no step")
    return tuple(
        TrialStep(
            name=str(each["step"]),
            source=str(each["source"]),
            seconds=float(each["seconds"]),
            ok=each["ok"] is True,
            status=int(each["status"]),
            outcome=str(each["outcome"]),
        )
        for each in steps
    )


def read_agents_see(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the output of `fwctl see`.

    Raises:
        EngineError: when it is not the output of `fwctl see`.
    """
    try:
        return tuple(map(str, answer["agents_see"]))
    except (KeyError, TypeError) as error:
        raise EngineError("probe-unreadable", f"A look was answered in an unknown form: {error}.") from error


def read_committed(answer: Mapping[str, Any]) -> Committed:
    """Read the last line of `fwctl commit`. What is missing in it counts as a refusal."""
    refused = answer.get("rejected") or answer.get("missing") or ()
    return Committed(
        answer.get("committed") is True,
        tuple(map(str, refused)),
        str(answer.get("reason") or ""),
        answer.get("hung") is True,
    )


def read_connections(answer: Mapping[str, Any]) -> int:
    """Read a line of `fwctl drain`.

    Raises:
        EngineError: when it is not a line of a drain.
    """
    try:
        return int(answer["connections"])
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("probe-unreadable", f"A drain was answered in an unknown form: {error}.") from error


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
