"""Parsing of what `fwctl` reports: of its sibling, of a name's addresses, of an attempt to use a name."""

from collections.abc import Mapping, Sequence
from typing import Any

from clawker_fw.errors import EngineError
from clawker_fw.model import (
    Address,
    Lookup,
    Probe,
    Records,
    Refused,
    Restart,
    ServerCertificate,
    Trial,
    TrialStep,
)


def probe_words(*, envoy: bool, quick: bool) -> list[str]:
    """Return the words that ask `fwctl` for a probe: see `EngineReader.probe`."""
    return ["probe", *([] if envoy else ["without-envoy"]), *(["quick"] if quick else [])]


def read_probe(answer: Mapping[str, Any]) -> Probe:
    """Read the output of `fwctl probe`. The helper of an earlier release prints fewer fields.

    Raises:
        EngineError: when it is not the output of a probe.
    """
    try:
        return Probe(
            build=answer["build"],
            live={str(name): str(digest) for name, digest in (answer.get("live") or {}).items()},
            unread=tuple(map(str, answer.get("unread") or ())),
            connections=answer["connections"],
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
            unhealthy=answer.get("unhealthy", "it can't tell"),
            error=answer["error"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EngineError("probe-unreadable", f"A probe answered in an unknown form: {error}.") from error


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


def read_lookup(answer: Mapping[str, Any]) -> Lookup:
    """Read the output of `fwctl lookup`.

    Raises:
        EngineError: when it is not the output of a lookup.
    """
    try:
        addresses = (
            Address(str(each["address"]), tuple(map(str, each["closed"]))) for each in answer["addresses"]
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
