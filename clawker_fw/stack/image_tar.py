"""Images built without a registry or a builder: a tar with an id known in advance.

The tar has one layer with fixed order, owners and times, a config and a manifest, laid out as in the OCI image
specification 1.1 and in `docker save`, for the classic image store. The image's id is the digest of the config
(classic store) or of the manifest (containerd store).

clawker uses the same labels, so the tag contains a digest of the config, which is rebuilt and compared. Later
releases must recognize it, so its form must not change.
"""

import functools
import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from clawker_fw.errors import SettingsError
from clawker_fw.stack import labels
from clawker_fw.stack.files import canonical
from clawker_fw.stack.labels import digest
from clawker_fw.stack.release import Identity, identity

LABELS: Mapping[str, str] = MappingProxyType({labels.MANAGED: "true", labels.PURPOSE: "firewall"})
"""Exactly our images' labels. They name no project, because projects share images."""

_CREATED = "1970-01-01T00:00:00Z"

_NAME = re.compile(r"(?P<name>clawker-fw/(?:envoy|coredns|lock)):(?P<version>.+)-(?P<digest>[0-9a-f]{12})")

_CHUNK = 1 << 17


def version_in(reference: str) -> str | None:
    """Return the version in a tag of our image, which for CoreDNS is the release, or None for another tag."""
    parts = _NAME.fullmatch(reference)
    return parts["version"] if parts else None


def our_tags(
    tags: Iterable[str], image_labels: Mapping[str, str], architecture: str, layers: Sequence[str]
) -> tuple[str, ...]:
    """Return the tags that we gave an image with these labels and layers, or nothing if it is not ours."""
    if dict(image_labels) != dict(LABELS) or len(layers) != 1:
        return ()
    return tuple(sorted(tag for tag in tags if _is_ours(tag, architecture, layers[0])))


def _is_ours(tag: str, architecture: str, layer: str) -> bool:
    if parts := _NAME.fullmatch(tag):
        return _reference(parts["name"], parts["version"], _config(parts["version"], architecture, layer)) == tag
    return False


def _config(version: str, architecture: str, layer: str, image_labels: Mapping[str, str] = LABELS) -> bytes:
    """Return the config of our image. `layer` is the digest of its only layer, `sha256:…`."""
    return canonical(
        {
            "architecture": architecture,
            "config": {"Labels": dict(image_labels)},
            "created": _CREATED,
            "history": [{"created": _CREATED, "created_by": f"clawker-fw {version}"}],
            "os": "linux",
            "rootfs": {"diff_ids": [layer], "type": "layers"},
        }
    )


def _reference(name: str, version: str, config: bytes) -> str:
    """Return the tag of our image. It contains a digest, so that two releases never use the same tag."""
    return f"{name}:{version}-{hashlib.sha256(config).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in an image: its path, and its source file or, for a link, its target. A folder has neither."""

    path: str
    source: Path | None = None
    mode: int = 0o644
    link: str = ""

    def header(self) -> tarfile.TarInfo:
        """Return the tar header, which does not depend on this machine."""
        header = tarfile.TarInfo(self.path)
        header.mode = self.mode
        if self.link:
            header.type, header.linkname, header.mode = tarfile.SYMTYPE, self.link, 0o777
        elif self.source is None:
            header.type, header.mode = tarfile.DIRTYPE, 0o755
        else:
            header.size = self.source.stat().st_size
        return header


@dataclass(frozen=True)
class BuiltImage:
    """An image that we build. Its layer is streamed and never held in memory."""

    name: str
    version: str
    architecture: str
    entries: tuple[Entry, ...]
    labels: Mapping[str, str] = field(default_factory=lambda: LABELS)

    @cached_property
    def _members(self) -> tuple[Entry, ...]:
        """The layer's members: each folder comes before its content.

        An engine creates missing folders with a mode from its storage driver and umask. With 0600, the siblings'
        unprivileged users could not open anything in them.
        """
        folders = dict.fromkeys(
            str(folder) for entry in self.entries for folder in reversed(PurePosixPath(entry.path).parents[:-1])
        )
        return (*(Entry(folder) for folder in folders), *self.entries)

    @cached_property
    def _layer(self) -> tuple[str, int]:
        return _facts(self._members, tuple(identity(member.source) for member in self._members if member.source))

    @cached_property
    def _config(self) -> bytes:
        return _config(self.version, self.architecture, f"sha256:{self._layer[0]}", self.labels)

    @cached_property
    def _manifest(self) -> bytes:
        digest_, size = self._layer
        kind = "application/vnd.oci.image"
        layer = {"mediaType": f"{kind}.layer.v1.tar", "digest": f"sha256:{digest_}", "size": size}
        return canonical(
            {
                "schemaVersion": 2,
                "mediaType": f"{kind}.manifest.v1+json",
                "config": _descriptor(f"{kind}.config.v1+json", self._config),
                "layers": [layer],
            }
        )

    @property
    def ids(self) -> tuple[str, str]:
        """The id in the classic image store and the one in the containerd image store."""
        return digest(self._config), digest(self._manifest)

    @property
    def reference(self) -> str:
        """The tag under which it is loaded."""
        return _reference(self.name, self.version, self._config)

    def archive(self) -> Iterator[bytes]:
        """Yield the tar for `docker load`."""
        manifest = {
            **_descriptor("application/vnd.oci.image.manifest.v1+json", self._manifest),
            "annotations": {
                "io.containerd.image.name": f"docker.io/{self.reference}",
                "org.opencontainers.image.ref.name": self.reference.rpartition(":")[2],
            },
        }
        layer_path = f"blobs/sha256/{self._layer[0]}"
        listing = {"Config": _blob_path(self._config), "RepoTags": [self.reference], "Layers": [layer_path]}
        yield from _member("oci-layout", canonical({"imageLayoutVersion": "1.0.0"}))
        yield from _member("index.json", canonical({"schemaVersion": 2, "manifests": [manifest]}))
        yield from _member("manifest.json", canonical([listing]))
        yield from _member(_blob_path(self._config), self._config)
        yield from _member(_blob_path(self._manifest), self._manifest)
        header = tarfile.TarInfo(layer_path)
        header.size = self.archive_size
        yield header.tobuf(tarfile.USTAR_FORMAT)
        yield from _layer(self._members)
        yield bytes(-header.size % tarfile.BLOCKSIZE)
        yield _END

    @property
    def archive_size(self) -> int:
        """The approximate size of `archive` in bytes, for progress."""
        return self._layer[1]


_END = bytes(2 * tarfile.BLOCKSIZE)


def _layer(members: Iterable[Entry]) -> Iterator[bytes]:
    """Yield a layer's tar. An `OSError` here would look like a failure of the engine that reads it."""
    try:
        for entry in members:
            yield entry.header().tobuf(tarfile.USTAR_FORMAT)
            if entry.source:
                yield from _file_blocks(entry.source)
    except OSError as error:
        raise SettingsError(
            "binary-unreadable",
            "A program of this installation can't be read.",
            context=[str(error)],
            hint="Install this release again.",
        ) from error
    yield _END


@functools.lru_cache(maxsize=8)
def _facts(members: tuple[Entry, ...], _: tuple[Identity, ...]) -> tuple[str, int]:
    """Return a layer's SHA-256 and its size in bytes. They are computed again only after a file has changed."""
    sum_, size = hashlib.sha256(), 0
    for chunk in _layer(members):
        sum_.update(chunk)
        size += len(chunk)
    return sum_.hexdigest(), size


def _file_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
    yield bytes(-path.stat().st_size % tarfile.BLOCKSIZE)


def _member(path: str, content: bytes) -> Iterable[bytes]:
    header = tarfile.TarInfo(path)
    header.size = len(content)
    yield header.tobuf(tarfile.USTAR_FORMAT)
    yield content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _blob_path(content: bytes) -> str:
    return f"blobs/{digest(content).replace(':', '/')}"


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}
