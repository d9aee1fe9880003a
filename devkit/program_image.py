"""The image of `examples/image`, built without a registry, on this machine's Python and installed packages."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from docker import APIClient

from devkit.stacks import CHECKOUT
from devkit.tools import libraries
from devkit.wheel import wheel

NAME, LATER = "clawker-fw:dev", "clawker-fw:later"

BASE = "clawker-fw-base:dev"
_EXAMPLE = CHECKOUT / "examples" / "image"
_PACKAGES, _ABOVE = "/packages", "/later"
_LIBRARIES = (
    *("libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1"),  # in Envoy's image
    *("libgcc_s.so.1", "libnss_dns.so.2", "libresolv.so.2", "libstdc++.so.6"),
)
"""What programs, packages and the C library load, as far as this machine has it."""

_NOT_COPIED = {"site-packages", "dist-packages", "test", "EXTERNALLY-MANAGED"}


def build(docker: APIClient) -> str:
    program = wheel()
    with tempfile.TemporaryDirectory() as folder:
        _make_base(docker, program, Path(folder))
        context = shutil.copytree(_EXAMPLE, Path(folder, "context"))
        shutil.copy(program, context)
        _build(docker, context, NAME, {"BASE": BASE})
    return NAME


def build_later(docker: APIClient, release: Path) -> str:
    """Build an image with another release, which is in a folder, on that of `build`, and return its name."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(release / "clawker_fw", Path(folder, "clawker_fw"))
        lines = (
            f"FROM {NAME}",
            f"COPY clawker_fw {_ABOVE}/clawker_fw",
            f"RUN python -m compileall -q {_ABOVE}",
            f"ENV PYTHONPATH={_ABOVE}:{_PACKAGES}",
        )
        Path(folder, "Dockerfile").write_text("\n".join(lines))
        _build(docker, Path(folder), LATER, {})
    return LATER


def _build(docker: APIClient, context: Path, tag: str, arguments: Mapping[str, str]) -> None:
    told = list(
        docker.build(
            path=str(context), tag=tag, buildargs=dict(arguments), network_mode="none", rm=True, decode=True
        )
    )
    if failed := [line["error"] for line in told if "error" in line]:
        raise AssertionError("".join(line.get("stream", "") for line in told) + failed[0])


def _make_base(docker: APIClient, program: Path, folder: Path) -> None:
    constraints = folder / "constraints"
    constraints.write_text("".join(f"{each.name}=={each.version}\n" for each in metadata.distributions()))
    packages = folder / "packages"
    install = [sys.executable, "-m", "uv", "--quiet", "pip", "install", "--constraint", str(constraints)]
    subprocess.run([*install, "--target", str(packages), str(program), "pip"], check=True)
    shutil.rmtree(packages / "clawker_fw")
    shutil.rmtree(next(packages.glob("clawker_fw-*.dist-info")))
    with tarfile.open(folder / "base.tar", "w", dereference=True) as tar:
        for path in sorted(set(_files())):
            tar.add(path)
        tar.add(packages, _PACKAGES)
        for name, mode in (("tmp", 0o1777), ("var/lib", 0o755), ("var/cache", 0o755)):
            made = tarfile.TarInfo(name)
            made.type, made.mode = tarfile.DIRTYPE, mode
            tar.addfile(made)
        for name, path in _programs().items():
            link = tarfile.TarInfo(f"usr/local/bin/{name}" if name == "python" else f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, str(path)
            if path != Path("/", link.name):
                tar.addfile(link)
    searched = f"/usr/local/bin:{_programs()['python'].parent}:/usr/bin:/bin"
    changes = [f"ENV PATH={searched} PYTHONPATH={_PACKAGES} PIP_NO_INDEX=1"]
    name, _, tag = BASE.partition(":")
    docker.import_image_from_file(str(folder / "base.tar"), repository=name, tag=tag, changes=changes)


def _programs() -> dict[str, Path]:
    found = {name: shutil.which(name) or name for name in ("sh", "mkdir")}
    return {name: Path(path).resolve() for name, path in {**found, "python": sys.executable}.items()}


def _files() -> Iterator[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    modules = [
        path
        for path in library.rglob("*")
        if path.is_file() and path.suffix != ".a" and _NOT_COPIED.isdisjoint(path.relative_to(library).parts)
    ]
    programs = list(_programs().values())
    yield from modules
    yield from programs
    needed = set(libraries([*programs, *(each for each in modules if each.suffix == ".so")]))
    yield from needed
    c_library = next(each.parent for each in needed if each.name == "libc.so.6")
    yield from (found for name in _LIBRARIES if (found := c_library / name).is_file())
