"""The labels on everything that is ours: ownership, a record of what it was made from, and the drift labels."""

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
"""The labels of the lock's container, in addition to those of ownership."""

MADE_WITH = (SIBLING, SLOT, APPLIED, *DRIFT_LABELS)
"""Further labels of a sibling. A container with all of them is identified by its labels, whatever its name."""


def drift_labels(*, infra_certs_ready: bool, otel_infra_port: int, stack_build_sha: str) -> dict[str, str]:
    """Return the three drift labels. If one of them is missing or differs, the sibling is replaced."""
    return {
        INFRA_CERTS_READY: "true" if infra_certs_ready else "false",
        OTEL_INFRA_PORT: str(otel_infra_port),
        STACK_BUILD_SHA: stack_build_sha,
    }


def ownership_labels(project: str) -> dict[str, str]:
    """Return the labels of ownership. A resource that lacks one of them is foreign and never changed."""
    return {MANAGED: "true", PURPOSE: "firewall", PROJECT: project}


def project_of(found: Mapping[str, str]) -> str | None:
    """Return the project to which a resource belongs, or None if it is not ours."""
    project = found.get(PROJECT)
    return project if project and is_ours(found, project) else None


def sibling_labels(project: str, sibling: Sibling, slot: int) -> dict[str, str]:
    """Return the labels that identify a sibling's container."""
    return {**ownership_labels(project), SIBLING: sibling.value, SLOT: str(slot)}


def is_ours(found: Mapping[str, str], project: str, *further: str) -> bool:
    """Whether a resource belongs to the project: it has all labels of ownership, and all `further` keys."""
    return not lacking(found, project, *further)


def volume_labels(made_with: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of a container's anonymous volume."""
    return {key: value for key, value in made_with.items() if key in OWNERSHIP}


def lacking(found: Mapping[str, str], project: str, *further: str) -> tuple[str, ...]:
    """Return the labels that a resource lacks to be ours."""
    wrong = [f"{key}={value}" for key, value in ownership_labels(project).items() if found.get(key) != value]
    return (*wrong, *(key for key in further if key not in found))


@functools.lru_cache(maxsize=32)
def digest(content: bytes) -> str:
    """Return the digest of a file for labels and findings. It is cached, because the helper's is needed often."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def recorded(file: File) -> str:
    """Return the record of a file in a label. A secret's digest is left out, because it would confirm guesses."""
    return "secret" if file.secret else digest(file.content)


@dataclasses.dataclass(frozen=True, slots=True)
class Applied:
    """What a container was created with, according to its label. It distinguishes an upgrade from tampering."""

    image: str
    image_ids: tuple[str, ...]
    shape: Mapping[str, object]
    boot: Mapping[str, str]
    machine: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """The values that were chosen by what the engine's machine had. An earlier release recorded none."""


def applied_label(image: Image, shape: Shape, boot: Files, machine: Mapping[str, int]) -> str:
    """Return the label that records what a container is created with."""
    digests = {path: recorded(boot[path]) for path in sorted(boot)}
    record = Applied(image.reference, image.ids, shape_fields(shape), digests, machine)
    return json.dumps(dataclasses.asdict(record), sort_keys=True, separators=(",", ":"))


def read_applied(labels: Mapping[str, str]) -> Applied | None:
    """Read the record, or return None if it is missing or malformed. Anyone can write anything into a label."""
    with suppress(KeyError, TypeError, ValueError, RecursionError):
        record = json.loads(labels[APPLIED])
        made = (record["image"], tuple(record["image_ids"]), record["shape"], record["boot"])
        applied = Applied(*made, machine=record.get("machine", {}))
        whole = (
            isinstance(applied.image, str)
            and isinstance(record["image_ids"], list)
            and all(isinstance(each, str) for each in applied.image_ids)
            and isinstance(applied.shape, dict)
            and isinstance(applied.boot, dict)
            and all(isinstance(each, str) for each in applied.boot.values())
            and isinstance(applied.machine, dict)
        )
        return applied if whole else None
    return None


def shape_fields(shape: Shape) -> dict[str, str | int | bool | list[str]]:
    """Flatten a shape into named fields, whose values are readable and representable in JSON."""
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
