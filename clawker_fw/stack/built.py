"""The form of an image that we build: its config, its tag, and the test that identifies it as ours.

Labels alone don't identify our images, because clawker uses the same ones. The tag of our images contains a
digest of the config, so the test rebuilds the config from its parts and compares. The form is an interface: a
later release has to identify an earlier one's images.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from clawker_fw.stack import labels

LABELS: Mapping[str, str] = MappingProxyType({labels.MANAGED: "true", labels.PURPOSE: "firewall"})
"""Exactly the labels of our images. They don't name a project, because projects share images."""

CREATED = "1970-01-01T00:00:00Z"

_NAME = re.compile(r"(?P<name>clawker-fw/(?:envoy|coredns|lock)):(?P<version>.+)-(?P<digest>[0-9a-f]{12})")
_DIGEST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Form:
    """An image's properties. `extras` are the settings in its config other than labels; our images have none."""

    id: str
    references: tuple[str, ...]
    labels: Mapping[str, str]
    architecture: str
    system: str
    created: str
    layers: tuple[str, ...]
    extras: tuple[str, ...] = ()


def config(version: str, architecture: str, layer: str, labels_: Mapping[str, str] = LABELS) -> bytes:
    """Return the config of an image of ours. `layer` is the digest of its only layer, `sha256:…`."""
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
    """Return the tag of an image of ours. It contains a digest, so that two releases never use the same tag."""
    return f"{name}:{version}-{config_digest.removeprefix('sha256:')[:_DIGEST_SHOWN]}"


def version_in(reference_: str) -> str | None:
    """Return the version in a tag of an image of ours: for CoreDNS, the release; None for another tag."""
    parts = _NAME.fullmatch(reference_)
    return parts["version"] if parts else None


def our_references(form: Form) -> tuple[str, ...]:
    """Return the tags that we gave an image, or nothing if it is not ours.

    Tags that somebody else has added to an image of ours are not included.
    """
    plain = (dict(form.labels), form.system, form.extras) == (dict(LABELS), "linux", ())
    if not plain or _moment(form.created) != _moment(CREATED) or len(form.layers) != 1:
        return ()
    return tuple(sorted(each for each in form.references if _is_tag_of(each, form)))


def _is_tag_of(tag: str, form: Form) -> bool:
    parts = _NAME.fullmatch(tag)
    if parts is None:
        return False
    made = labels.digest(config(parts["version"], form.architecture, form.layers[0]))
    return reference(parts["name"], parts["version"], made) == tag


def _moment(timestamp: str) -> str:
    """Return an RFC 3339 time in UTC without a fraction of zeros."""
    return re.sub(r"\.0+Z$", "Z", timestamp)


def extras(settings: Mapping[str, object]) -> Iterable[str]:
    """Return the settings other than labels that an engine shows in an image's config."""
    ignored = {"Labels", "Hostname", "Domainname", "Image"}
    return sorted(key for key, value in settings.items() if value and key not in ignored)


def canonical(value: object) -> bytes:
    """Return canonical JSON, over which digests are computed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
