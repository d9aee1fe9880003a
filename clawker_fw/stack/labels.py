"""The labels on everything that is ours: ownership, the record of its creation, and the drift labels."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from clawker_fw.model.containers import ContainerSummary, ContainerView, Shape
from clawker_fw.model.files import File, Files
from clawker_fw.model.images import Image
from clawker_fw.model.stacks import Sibling
from clawker_fw.stack.container import RECORDS, SECRETS_AT_REST, lock_name, trial_name
from clawker_fw.stack.files import AT_REST, FOLDER, RECORD, canonical, public

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PREFIX = "dev.clawker."
MANAGED = PREFIX + "managed"
PURPOSE = PREFIX + "purpose"
PROJECT = PREFIX + "project"
SIBLING = PREFIX + "firewall.sibling"
SLOT = PREFIX + "firewall.slot"
GROUP = PREFIX + "firewall.group"
"""On the siblings of a group's stack: the group. Without it, the stack is that above the groups."""

ROLE = PREFIX + "firewall.network"
APPLIED = PREFIX + "firewall.applied"
INFRA_CERTS_READY = PREFIX + "firewall.infra_certs_ready"
OTEL_INFRA_PORT = PREFIX + "firewall.otel_infra_port"
STACK_BUILD_SHA = PREFIX + "firewall.stack_build_sha"
TRUST = PREFIX + "firewall.trust"
"""On a trust volume: its roots, as parts of their fingerprints, the newest first."""

PUBLISHES = PREFIX + "firewall.publishes"
"""On an agent and its relay: the published ports, and a number that stands for both addresses."""

RELAY_OF = PREFIX + "firewall.relay_of"

LOCK_HOST, LOCK_USER, LOCK_PROCESS, LOCK_SINCE, LOCK_COMMAND = (
    f"{PREFIX}lock.{name}" for name in ("host", "user", "process", "since", "command")
)

DRIFT_LABELS = (INFRA_CERTS_READY, OTEL_INFRA_PORT, STACK_BUILD_SHA)

LOCK = (LOCK_HOST, LOCK_USER, LOCK_PROCESS, LOCK_SINCE, LOCK_COMMAND)

MADE_WITH = (SIBLING, SLOT, APPLIED, *DRIFT_LABELS)
"""Further labels of a sibling. A container with all of them is identified by its labels, whatever its name."""


def drift_labels(*, infra_certs_ready: bool, otel_infra_port: int, stack_build_sha: str) -> dict[str, str]:
    """Return the three drift labels. If one is missing or differs, the sibling is replaced."""
    return {
        INFRA_CERTS_READY: "true" if infra_certs_ready else "false",
        OTEL_INFRA_PORT: str(otel_infra_port),
        STACK_BUILD_SHA: stack_build_sha,
    }


def ownership_labels(project: str) -> dict[str, str]:
    """Return the ownership labels. A resource that lacks one of them is foreign and never changed."""
    return {MANAGED: "true", PURPOSE: "firewall", PROJECT: project}


def project_of(object_labels: Mapping[str, str]) -> str:
    """Return the project in the ownership labels, or an empty string if one is missing."""
    project = object_labels.get(PROJECT, "")
    return "" if lacking(object_labels, project) else project


def project_of_container(object_labels: Mapping[str, str], volume: Mapping[str, str] | None) -> str:
    """Return the project for which we created a container, or an empty string if it is foreign.

    An image can set a container's labels, but only the container's creator can request labels for its volume at
    `/fw`: `volume` has these, or None. An engine adds one of its own (`com.docker.volume.anonymous`, Docker 29).
    """
    project = project_of(object_labels)
    return project if project and volume is not None and not lacking(volume, project) else ""


def sibling_labels(project: str, sibling: Sibling, slot: int) -> dict[str, str]:
    """Return the labels that identify a sibling's container."""
    return {**ownership_labels(project), SIBLING: sibling.value, SLOT: str(slot)}


def volume_labels(made_with: Mapping[str, str], name: str = "") -> dict[str, str]:
    """Return the labels of a container's anonymous volume, or of a named one, which outlives the container."""
    kept = {MANAGED, PURPOSE, PROJECT, *([TRUST] if name else [])}
    return {key: value for key, value in made_with.items() if key in kept}


def lacking(object_labels: Mapping[str, str], project: str, *further: str) -> tuple[str, ...]:
    """Return the ownership and further labels that a resource lacks."""
    wrong = [
        f"{key}={value}" for key, value in ownership_labels(project).items() if object_labels.get(key) != value
    ]
    return (*wrong, *(key for key in further if key not in object_labels))


SECRET = "secret"  # noqa: S105 - what a record has instead of the digest of a secret file


def digest(content: bytes) -> str:
    """Return a digest in the engine's form."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def recorded(file: File) -> str:
    """Return a file's record in a label, without a secret's digest, which would confirm guesses."""
    return SECRET if file.secret else file.digest


@dataclasses.dataclass(frozen=True, slots=True)
class Applied:
    """The record of a container's creation. A name that another release's record lacks is not tampering."""

    image: str
    image_ids: tuple[str, ...]
    shape: Mapping[str, object]
    boot: Mapping[str, str]
    machine: Mapping[str, int | str | bool]
    """The values that depend on the Docker host."""
    attributes: Mapping[str, str]
    """The mode and owner of files, by path or by `KINDS`."""
    labels: tuple[str, ...] = DRIFT_LABELS

    def attributes_of(self, path: str) -> str | None:
        """Return a file's recorded mode and owner, or None."""
        kind = path.partition("/")[0] + "/"
        return self.attributes.get(path, self.attributes.get(kind))


_RECORD = TypeAdapter(Applied)

KINDS = {"/": FOLDER, RECORDS: RECORD, "hot/": public(b""), SECRETS_AT_REST: AT_REST}
"""Files with the same mode and owner, by path or by its beginning: folders, records, and dynamic files."""


def attributes(file: File) -> str:
    """Return a file's mode and owner in the form of a record."""
    return "{:04o} {}:{}".format(file.mode, *file.owner)


def applied_label(image: Image, shape: Shape, boot: Files, hot: Files, machine: Mapping[str, int | str]) -> str:
    """Return the label that records a container's creation."""
    secrets = {path: file for path, file in hot.items() if file.secret}
    record = Applied(
        image.reference,
        image.ids,
        shape_fields(shape),
        {path: recorded(boot[path]) for path in sorted(boot)},
        machine,
        {path: attributes(file) for path, file in {**boot, **secrets, **KINDS}.items()},
    )
    return canonical(dataclasses.asdict(record)).decode()


def read_applied(labels: Mapping[str, str]) -> Applied | None:
    """Read the record, or return None if it is missing or malformed. Anyone can write anything into a label."""
    try:
        return _RECORD.validate_json(labels[APPLIED], strict=True)
    except (KeyError, ValueError):
        return None


def shape_fields(shape: Shape) -> dict[str, str | int | bool | list[str]]:
    """Flatten a shape into named fields with readable JSON values."""
    fields: dict[str, str | int | bool | list[str]] = {}
    for field in dataclasses.fields(shape):
        value = getattr(shape, field.name)
        match value:
            case Mapping():
                fields[field.name] = [f"{key}={value[key]}" for key in sorted(value)]
            case tuple():
                ordered = field.name in {"entrypoint", "command"}
                texts = [_text(item) for item in value]
                fields[field.name] = texts if ordered else sorted(texts)
            case None | str() | bool() | int():
                fields[field.name] = "" if value is None else value
            case _:
                fields[field.name] = _text(value)
    return fields


def _text(value: "str | DataclassInstance") -> str:
    if isinstance(value, str):
        return value
    return " ".join(f"{key}={json.dumps(part)}" for key, part in dataclasses.asdict(value).items())


Container = ContainerSummary | ContainerView


def is_lock(container: Container, project: str) -> bool:
    """Whether a container is the lock of a project."""
    return (
        container.project == project
        and container.name == lock_name(project)
        and container.labels.keys() >= {*LOCK}
    )


def is_trial(container: Container, project: str) -> bool:
    """Whether a container is a one-shot container of a project: for `conformance`, or for the kernel check."""
    return container.project == project and container.name == trial_name(project)


def sibling_of(container: Container, project: str) -> Sibling | None:
    """Return the sibling of a project that a container's labels name, or None."""
    if container.project == project:
        with suppress(KeyError, ValueError):  # the lock, or the word of another release
            return Sibling(container.labels[SIBLING])
    return None
