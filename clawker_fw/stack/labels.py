"""The labels on everything that is ours: whose it is, what it was made from, and the three drift labels."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress

from clawker_fw.model import File, Files, Image, Shape, Sibling

PREFIX = "dev.clawker."
MANAGED = PREFIX + "managed"
PURPOSE = PREFIX + "purpose"
PROJECT = PREFIX + "project"
SIBLING = PREFIX + "firewall.sibling"
SLOT = PREFIX + "firewall.slot"
ROLE = PREFIX + "firewall.network"
APPLIED = PREFIX + "firewall.applied"
INFRA_CERTS_READY = PREFIX + "firewall.infra_certs_ready"
OTEL_INFRA_PORT = PREFIX + "firewall.otel_infra_port"
STACK_BUILD_SHA = PREFIX + "firewall.stack_build_sha"

LOCK_HOST, LOCK_USER, LOCK_PROCESS, LOCK_SINCE, LOCK_COMMAND = (
    f"{PREFIX}lock.{name}" for name in ("host", "user", "process", "since", "command")
)

OWNERSHIP = (MANAGED, PURPOSE, PROJECT)
DRIFT_LABELS = (INFRA_CERTS_READY, OTEL_INFRA_PORT, STACK_BUILD_SHA)

LOCK = (LOCK_HOST, LOCK_USER, LOCK_PROCESS, LOCK_SINCE, LOCK_COMMAND)
"""What the container that is the lock has beside the labels of ownership."""

MADE_WITH = (SIBLING, SLOT, APPLIED, *DRIFT_LABELS)
"""What a sibling has beside them. Only one that has all of it is known by its labels, whatever its name is."""


def drift_labels(*, infra_certs_ready: bool, otel_infra_port: int, stack_build_sha: str) -> dict[str, str]:
    """Return the three labels whose mismatch, or absence, alone makes a sibling stale."""
    return {
        INFRA_CERTS_READY: "true" if infra_certs_ready else "false",
        OTEL_INFRA_PORT: str(otel_infra_port),
        STACK_BUILD_SHA: stack_build_sha,
    }


def ownership_labels(project: str) -> dict[str, str]:
    """Return the labels that make a resource ours; without all of them it is foreign and left alone."""
    return {MANAGED: "true", PURPOSE: "firewall", PROJECT: project}


def sibling_labels(project: str, sibling: Sibling, slot: int) -> dict[str, str]:
    """Return the labels that say which container this is."""
    return {**ownership_labels(project), SIBLING: sibling.value, SLOT: str(slot)}


def is_ours(found: Mapping[str, str], project: str, *further: str) -> bool:
    """Whether a resource is of the project's firewall: it has every label of ownership, and `further` keys."""
    return not lacking(found, project, *further)


def volume_labels(made_with: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of a container's volume: a volume has no name, but says whose it is."""
    return {key: value for key, value in made_with.items() if key in OWNERSHIP}


def lacking(found: Mapping[str, str], project: str, *further: str) -> tuple[str, ...]:
    """Return the labels that something would need to be ours and does not have."""
    wrong = [f"{key}={value}" for key, value in ownership_labels(project).items() if found.get(key) != value]
    return (*wrong, *(key for key in further if key not in found))


@functools.lru_cache(maxsize=32)
def digest(content: bytes) -> str:
    """Return how a file's content is named in labels and findings; the helper's is asked for often."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def recorded(file: File) -> str:
    """Return how a file is named in a label. Of a secret nothing is: whoever knows a digest can try guesses."""
    return "secret" if file.secret else digest(file.content)


@dataclasses.dataclass(frozen=True, slots=True)
class Applied:
    """What a container was made with, as its label says: from it a later look tells upgrade from tamper."""

    image: str
    image_ids: tuple[str, ...]
    shape: Mapping[str, object]
    boot: Mapping[str, str]


def applied_label(image: Image, shape: Shape, boot: Files) -> str:
    """Return the label that records what a container is made with."""
    record = Applied(
        image.reference, image.ids, shape_fields(shape), {path: recorded(boot[path]) for path in sorted(boot)}
    )
    return json.dumps(dataclasses.asdict(record), sort_keys=True, separators=(",", ":"))


def read_applied(labels: Mapping[str, str]) -> Applied | None:
    """Read the record back; None when there is none that can be read: anybody can write anything into a label."""
    with suppress(KeyError, TypeError, ValueError, RecursionError):
        record = json.loads(labels[APPLIED])
        applied = Applied(record["image"], tuple(record["image_ids"]), record["shape"], record["boot"])
        whole = (
            isinstance(applied.image, str)
            and isinstance(record["image_ids"], list)
            and all(isinstance(each, str) for each in applied.image_ids)
            and isinstance(applied.shape, dict)
            and isinstance(applied.boot, dict)
            and all(isinstance(each, str) for each in applied.boot.values())
        )
        return applied if whole else None
    return None


def shape_fields(shape: Shape) -> dict[str, str | int | bool | list[str]]:
    """Flatten a shape into named fields whose values people can read and JSON can hold."""
    fields: dict[str, str | int | bool | list[str]] = {}
    for each in dataclasses.fields(shape):
        value = getattr(shape, each.name)
        match value:
            case Mapping():
                fields[each.name] = [f"{key}={value[key]}" for key in sorted(value)]
            case tuple():
                ordered = each.name in {"entrypoint", "command"}
                texts = [_text(item) for item in value]
                fields[each.name] = texts if ordered else sorted(texts)
            case None | str() | bool() | int():
                fields[each.name] = "" if value is None else value
            case _:
                fields[each.name] = _text(value)
    return fields


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    parts = dataclasses.asdict(value)  # type: ignore[call-overload]  # Mount and Healthcheck, both dataclasses
    return " ".join(f"{key}={json.dumps(part)}" for key, part in parts.items())
