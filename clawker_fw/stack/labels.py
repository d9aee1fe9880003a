"""The labels on everything that is ours: ownership, a record of what it was made from, and the drift labels."""

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
from clawker_fw.stack.container import RECORDS, SECRETS_AT_REST, lock_name, trial_name, trust_name
from clawker_fw.stack.files import AT_REST, FOLDER, RECORD, public

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

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
TRUST = PREFIX + "firewall.trust"
"""On a volume with what agents trust: the roots in it, as parts of their fingerprints, the newest first."""

PUBLISHES = PREFIX + "firewall.publishes"
"""On an agent and on its relay: a number, which stands for the addresses of both, and the published ports."""

RELAY_OF = PREFIX + "firewall.relay_of"
"""On a relay: the id of its agent."""

LOCK_HOST, LOCK_USER, LOCK_PROCESS, LOCK_SINCE, LOCK_COMMAND = (
    f"{PREFIX}lock.{name}" for name in ("host", "user", "process", "since", "command")
)

OWNERSHIP = (MANAGED, PURPOSE, PROJECT)
DRIFT_LABELS = (INFRA_CERTS_READY, OTEL_INFRA_PORT, STACK_BUILD_SHA)

LOCK = (LOCK_HOST, LOCK_USER, LOCK_PROCESS, LOCK_SINCE, LOCK_COMMAND)

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


def project_of(found: Mapping[str, str]) -> str:
    """Return the project that the labels of ownership name, or an empty string if they are not all there."""
    project = found.get(PROJECT, "")
    return project if is_ours(found, project) else ""


def project_of_container(found: Mapping[str, str], volume: Mapping[str, str] | None) -> str:
    """Return the project for which we made a container, or an empty string if it is somebody else's.

    `found` are its labels, and `volume` those that its volume at `/fw` was requested with, or None without such a
    request. A container inherits the labels of its image, and an image can have any labels and any volumes. But
    only who creates a container can request labels for a volume of it. An engine adds one of its own
    (`com.docker.volume.anonymous`, Docker 29).
    """
    project = project_of(found)
    return project if project and volume is not None and is_ours(volume, project) else ""


def sibling_labels(project: str, sibling: Sibling, slot: int) -> dict[str, str]:
    """Return the labels that identify a sibling's container."""
    return {**ownership_labels(project), SIBLING: sibling.value, SLOT: str(slot)}


def is_ours(found: Mapping[str, str], project: str, *further: str) -> bool:
    """Whether a resource belongs to the project: it has all labels of ownership, and all `further` keys."""
    return not lacking(found, project, *further)


def volume_labels(made_with: Mapping[str, str], name: str = "") -> dict[str, str]:
    """Return the labels of a container's anonymous volume, or of one with a name, which outlives the container."""
    return {key: value for key, value in made_with.items() if key in {*OWNERSHIP, *([TRUST] if name else [])}}


def lacking(found: Mapping[str, str], project: str, *further: str) -> tuple[str, ...]:
    """Return the labels that a resource lacks to be ours."""
    wrong = [f"{key}={value}" for key, value in ownership_labels(project).items() if found.get(key) != value]
    return (*wrong, *(key for key in further if key not in found))


SECRET = "secret"  # noqa: S105 - what a record has instead of the digest of a secret file


def digest(content: bytes) -> str:
    """Return a digest in the engine's form."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def recorded(file: File) -> str:
    """Return the record of a file in a label. A secret's digest is left out, because it would confirm guesses."""
    return SECRET if file.secret else digest(file.content)


@dataclasses.dataclass(frozen=True, slots=True)
class Applied:
    """What a container was created with, according to its label. It distinguishes an upgrade from tampering.

    A record has names: of the shape's fields, of files, of labels. What the record of another release does not
    name is a difference between the releases, not tampering.
    """

    image: str
    image_ids: tuple[str, ...]
    shape: Mapping[str, object]
    boot: Mapping[str, str]
    machine: Mapping[str, int | str | bool]
    """The values that were chosen by what the engine's machine had."""
    attributes: Mapping[str, str]
    """The mode and owner of files, by path or by `KINDS`."""
    labels: tuple[str, ...] = DRIFT_LABELS
    """The labels that are compared."""

    def attributes_of(self, path: str) -> str | None:
        """Return the recorded mode and owner of a file, or None if the record does not name it."""
        kind = path.partition("/")[0] + "/"
        return self.attributes.get(path, self.attributes.get(kind))


_RECORD = TypeAdapter(Applied)

KINDS = {"/": FOLDER, RECORDS: RECORD, "hot/": public(b""), SECRETS_AT_REST: AT_REST}
"""Files of one mode and owner, by path, or by the beginning of their paths: folders, records, and hot files but
secrets."""


def attributes(file: File) -> str:
    """Return the mode and owner of a file, as a record has them."""
    return "{:04o} {}:{}".format(file.mode, *file.owner)


def applied_label(image: Image, shape: Shape, boot: Files, hot: Files, machine: Mapping[str, int | str]) -> str:
    """Return the label that records what a container is created with."""
    secrets = {path: file for path, file in hot.items() if file.secret}
    record = Applied(
        image.reference,
        image.ids,
        shape_fields(shape),
        {path: recorded(boot[path]) for path in sorted(boot)},
        machine,
        {path: attributes(file) for path, file in {**boot, **secrets, **KINDS}.items()},
    )
    return json.dumps(_parts(record), sort_keys=True, separators=(",", ":"))


def read_applied(labels: Mapping[str, str]) -> Applied | None:
    """Read the record, or return None if it is missing or malformed. Anyone can write anything into a label."""
    try:
        return _RECORD.validate_json(labels[APPLIED], strict=True)
    except (KeyError, ValueError):
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


def _text(value: "str | DataclassInstance") -> str:
    if isinstance(value, str):
        return value
    return " ".join(f"{key}={json.dumps(part)}" for key, part in _parts(value).items())


def _parts(value: "DataclassInstance") -> dict[str, object]:
    """Return the fields of a dataclass that contains no other dataclass."""
    return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}


Container = ContainerSummary | ContainerView


def is_lock(found: Container, project: str) -> bool:
    """Whether a container is the lock of a project."""
    return found.project == project and found.name == lock_name(project) and found.labels.keys() >= {*LOCK}


def is_trial(found: Container, project: str) -> bool:
    """Whether a container does one thing for a project: `conformance`'s attempts, or to ask the kernel."""
    return found.project == project and found.name == trial_name(project)


def is_filler(found: Container, project: str) -> bool:
    """Whether a container fills a project's volume with what agents trust. It has the volume's name."""
    return found.project == project and found.name.startswith(trust_name(project))


def is_made_as_sibling(found: Container, project: str) -> bool:
    """Whether a container is a sibling of a project, whatever its name."""
    return found.project == project and found.labels.keys() >= {*MADE_WITH}


def sibling_of(found: Container, project: str) -> Sibling | None:
    """Return which sibling of a project a container says that it is, or None."""
    if found.project == project:
        with suppress(KeyError, ValueError):  # the lock, or the word of another release
            return Sibling(found.labels[SIBLING])
    return None
