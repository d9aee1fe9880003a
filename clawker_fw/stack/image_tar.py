"""Images built without a registry or a builder: a tar that we write ourselves, with an id known in advance.

The tar contains one layer with fixed order, owners and times, a config and a manifest. Its layout is that of the
OCI image specification 1.1, and also that of `docker save`, for engines with the classic image store. The image's
id is the digest of the config (classic store) or of the manifest (containerd store).
"""

import functools
import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from clawker_fw.digests import Identity, identity
from clawker_fw.stack import built
from clawker_fw.stack.labels import digest

_CHUNK = 1 << 17


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in an image: its path, and its source file or, for a link, its target. A folder has neither."""

    path: str
    source: Path | None = None
    mode: int = 0o644
    link: str = ""

    def header(self) -> tarfile.TarInfo:
        """Return the tar header, in which nothing depends on this machine."""
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
    """An image that we build. Its layer is generated as a stream and never held in memory.

    A later release identifies the image as ours by its form (`built.py`), and removes it when it is unused.
    """

    name: str
    version: str
    architecture: str
    entries: tuple[Entry, ...]
    labels: Mapping[str, str] = field(default_factory=lambda: built.LABELS)

    @cached_property
    def _members(self) -> tuple[Entry, ...]:
        """The layer's members: each folder comes before what is in it.

        An engine creates missing folders with a mode that depends on its storage driver and its umask.
        With 0600, the siblings' unprivileged users would find nothing in them.
        """
        folders = dict.fromkeys(
            str(folder) for entry in self.entries for folder in reversed(PurePosixPath(entry.path).parents[:-1])
        )
        return (*(Entry(folder) for folder in folders), *self.entries)

    @cached_property
    def _layer(self) -> tuple[str, int]:
        return _facts(self._members, tuple(identity(each.source) for each in self._members if each.source))

    @cached_property
    def _config(self) -> bytes:
        return built.config(self.version, self.architecture, f"sha256:{self._layer[0]}", self.labels)

    @cached_property
    def _manifest(self) -> bytes:
        digest_, size = self._layer
        return built.canonical(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": _descriptor("application/vnd.oci.image.config.v1+json", self._config),
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": f"sha256:{digest_}",
                        "size": size,
                    },
                ],
            },
        )

    @property
    def ids(self) -> tuple[str, str]:
        """The id in the classic image store and the one in the containerd image store."""
        return digest(self._config), digest(self._manifest)

    @property
    def reference(self) -> str:
        """The tag under which it is loaded."""
        return built.reference(self.name, self.version, self.ids[0])

    def archive(self) -> Iterator[bytes]:
        """Yield the tar for `docker load`."""
        index = built.canonical(
            {
                "schemaVersion": 2,
                "manifests": [
                    {
                        **_descriptor("application/vnd.oci.image.manifest.v1+json", self._manifest),
                        "annotations": {
                            "io.containerd.image.name": f"docker.io/{self.reference}",
                            "org.opencontainers.image.ref.name": self.reference.rpartition(":")[2],
                        },
                    },
                ],
            },
        )
        layer_path = f"blobs/sha256/{self._layer[0]}"
        listing = built.canonical(
            [{"Config": _blob_path(self._config), "RepoTags": [self.reference], "Layers": [layer_path]}],
        )
        yield from _member("oci-layout", built.canonical({"imageLayoutVersion": "1.0.0"}))
        yield from _member("index.json", index)
        yield from _member("manifest.json", listing)
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
    for entry in members:
        yield entry.header().tobuf(tarfile.USTAR_FORMAT)
        if entry.source:
            yield from _file_blocks(entry.source)
    yield _END


@functools.lru_cache(maxsize=8)
def _facts(members: tuple[Entry, ...], _: tuple[Identity, ...]) -> tuple[str, int]:
    """Return SHA-256 of a layer, and its size in bytes. A process computes it again only if a file has changed."""
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
