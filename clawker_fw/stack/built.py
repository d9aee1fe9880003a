"""The form of an image that we make: its config, the name that follows from it, and how it is known again.

Labels alone make no image ours: the program that this one descends from puts the same ones on its own. The tag of
ours names the digest of its config, so whoever has the parts of the config can see whether it is the one we write.
The form is an interface: a later release has to know an earlier one's images by it.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from clawker_fw.stack import labels

LABELS: Mapping[str, str] = MappingProxyType({labels.MANAGED: "true", labels.PURPOSE: "firewall"})
"""All labels of an image of ours, and no other. An image is made for no project."""

CREATED = "1970-01-01T00:00:00Z"

_NAME = re.compile(r"(?P<name>clawker-fw/(?:envoy|coredns|lock)):(?P<version>.+)-(?P<digest>[0-9a-f]{12})")
_DIGEST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Form:
    """What an engine says of an image. `extras` are the settings in its config beside labels; ours have none."""

    id: str
    references: tuple[str, ...]
    labels: Mapping[str, str]
    architecture: str
    system: str
    created: str
    layers: tuple[str, ...]
    extras: tuple[str, ...] = ()


def config(version: str, architecture: str, layer: str, labels_: Mapping[str, str] = LABELS) -> bytes:
    """Return the config of an image that we write. `layer` is the digest of its only layer, `sha256:…`."""
    return canonical(
        {
            "architecture": architecture,
            "config": {"Labels": dict(labels_)},
            "created": CREATED,
            "history": [{"created": CREATED, "created_by": f"clawker-fw {version}"}],
            "os": "linux",
            "rootfs": {"diff_ids": [layer], "type": "layers"},
        },
    )


def reference(name: str, version: str, config_digest: str) -> str:
    """Return the tag of an image of ours; it names the content, so two releases never fight over it."""
    return f"{name}:{version}-{config_digest.removeprefix('sha256:')[:_DIGEST_SHOWN]}"


def our_references(form: Form) -> tuple[str, ...]:
    """Return those of an image's tags that we gave it: none, and it is somebody else's.

    A tag that somebody has added to an image of ours is theirs, and so is what it holds on to.
    """
    plain = (dict(form.labels), form.system, form.extras) == (dict(LABELS), "linux", ())
    if not plain or _moment(form.created) != _moment(CREATED) or len(form.layers) != 1:
        return ()
    return tuple(sorted(each for each in form.references if _is_tag_of(each, form)))


def _is_tag_of(tag: str, form: Form) -> bool:
    parts = _NAME.fullmatch(tag)
    if parts is None:
        return False
    made = digest(config(parts["version"], form.architecture, form.layers[0]))
    return reference(parts["name"], parts["version"], made) == tag


def _moment(timestamp: str) -> str:
    """Return an RFC 3339 time in UTC as it is written without a fraction that says nothing."""
    return re.sub(r"\.0+Z$", "Z", timestamp)


def extras(settings: Mapping[str, object]) -> Iterable[str]:
    """Yield what an engine shows as set in an image's config beside its labels."""
    ignored = {"Labels", "Hostname", "Domainname", "Image"}
    return sorted(key for key, value in settings.items() if value and key not in ignored)


def canonical(value: object) -> bytes:
    """Return JSON in the one form that has a digest."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest(content: bytes) -> str:
    """Return how an engine names content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
