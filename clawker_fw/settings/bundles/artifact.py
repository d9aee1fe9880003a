"""A bundle as registries have it: an OCI image manifest with one layer, the text of a settings file.

The manifest says when it was made (`org.opencontainers.image.created`). As it is signed as a whole, so is that
time.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from clawker_fw.errors import SettingsError
from clawker_fw.settings.bundles.http import shown
from clawker_fw.settings.bundles.reference import DIGEST, Reference
from clawker_fw.settings.bundles.registry import OCI_MANIFEST, digest_of

ARTIFACT = "application/vnd.clawker-fw.settings.v1"
LAYER = "application/vnd.clawker-fw.settings.v1+yaml"
CREATED = "org.opencontainers.image.created"
EMPTY_TYPE, EMPTY = "application/vnd.oci.empty.v1+json", b"{}"
"""The config of a manifest that needs none (OCI image specification, manifest.md)."""

MOST_TEXT = 8 << 20
"""Octets of a bundle's text: 50,000 rules have half of it."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a manifest says of a bundle. `created` is in seconds since 1970."""

    layer: str
    size: int
    created: float


def manifest_of(text: bytes, created: float) -> bytes:
    """Return the manifest of a bundle."""
    made = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": ARTIFACT,
            "config": descriptor(EMPTY_TYPE, EMPTY),
            "layers": [descriptor(LAYER, text)],
            "annotations": {CREATED: made},
        }
    )


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    """Return what a manifest says of a blob."""
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def read_manifest(content: bytes, reference: Reference) -> Artifact:
    """Read the manifest of a bundle.

    Raises:
        SettingsError: when it is of something else.
    """
    try:
        found = json.loads(content)
        kind = found.get("artifactType") or found["config"]["mediaType"]
        if kind != ARTIFACT:
            raise _other(reference, f"it is of the type {shown(kind)}")
        (layer,) = found["layers"]
        if layer["mediaType"] != LAYER:
            raise _other(reference, f"its layer is of the type {shown(layer['mediaType'])}")
        digest, size = layer["digest"], layer["size"]
        moment = datetime.fromisoformat(found["annotations"][CREATED])
        created = moment.timestamp()
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _other(reference, "its manifest is not one of a bundle") from error
    whole = isinstance(size, int) and not isinstance(size, bool) and size >= 0
    if not whole or not isinstance(digest, str) or not re.fullmatch(DIGEST, digest) or moment.tzinfo is None:
        raise _other(reference, "its manifest is not one of a bundle")
    return Artifact(digest, size, created)


def _other(reference: Reference, why: str) -> SettingsError:
    return SettingsError(
        "bundle-invalid",
        f"{reference} is not a bundle of settings: {why}.",
        hint="Push settings with `clawker-fw bundle push FILE REFERENCE`.",
    )
