"""The image of the installed release, made like those of the siblings: without a base, a registry or a builder.

It has the Python that runs this command, the package with what it requires, the shared libraries of both, and
trusted root certificates. There is no shell in it and nothing that installs. The same installation gives the same
bytes, and so the same id.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from clawker_fw.errors import RefusedError
from clawker_fw.fleet.program import bytecode, interpreter
from clawker_fw.fleet.program.libraries import BY_NAME_ONLY, Found, named, needed_by
from clawker_fw.fleet.program.packages import Package, installed
from clawker_fw.stack.image_tar import BuiltImage, Entry
from clawker_fw.stack.release import Release

NAME = "clawker-fw"
HOME = "/opt/clawker-fw"
PROGRAM = f"{HOME}/bin/clawker-fw"
STATE = "/var/lib/clawker-fw"
_PREFIX = PurePosixPath("usr/local")
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_START = f"""#!{HOME}/bin/python -I
import os
import signal

from clawker_fw.__main__ import main

if os.getpid() == 1:  # whose signals are ignored unless it handles them
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda number, _: os._exit(128 + number))
main()
"""

ENVIRONMENT: Mapping[str, str] = {
    "PATH": f"{HOME}/bin",
    "HOME": STATE,
    "LANG": "C.UTF-8",
    "SSL_CERT_FILE": _AUTHORITIES,
    "XDG_CACHE_HOME": "/var/cache",
    "XDG_CONFIG_HOME": "/etc",
    "XDG_STATE_HOME": "/var/lib",
}

_FILES = {
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/passwd": f"root:x:0:0:root:{STATE}:/sbin/nologin\n",
}


@dataclass(frozen=True)
class Distribution:
    """What is installed here, as the content of an image."""

    release: Release

    @cached_property
    def image(self) -> BuiltImage:
        """The image."""
        return BuiltImage(
            NAME,
            self.release.version,
            architecture(),
            tuple(sorted(self._entries(), key=lambda each: PurePosixPath(each.path).parts)),
            labels=self._labels(),
            settings={
                "Entrypoint": [PROGRAM],
                "Env": [f"{name}={value}" for name, value in sorted(ENVIRONMENT.items())],
                "StopSignal": "SIGTERM",
                "User": "0:0",
                "WorkingDir": "/",
            },
            further_tags=(self.release.version,),
        )

    @cached_property
    def packages(self) -> tuple[Package, ...]:
        """The package, and what it requires."""
        return installed(self.release.package, self.release.templates)

    @cached_property
    def libraries(self) -> dict[str, Path]:
        """The shared libraries by name."""
        return {**named(BY_NAME_ONLY), **self._needed.libraries}

    @cached_property
    def python(self) -> str:
        """The version of Python."""
        return ".".join(map(str, sys.version_info[:3]))

    def _labels(self) -> dict[str, str]:
        return {
            "org.opencontainers.image.title": NAME,
            "org.opencontainers.image.version": self.release.version,
            "org.opencontainers.image.revision": self.release.build_sha,
            "org.opencontainers.image.licenses": "Apache-2.0",
        }

    @cached_property
    def _library_files(self) -> dict[PurePosixPath, Path]:
        """The standard library without those extension modules that can't be loaded on this machine either."""
        found = dict(interpreter.files())
        missing = needed_by([each for each in found.values() if each.suffix == ".so"]).missing
        unusable = {file for _, file in missing}
        return {path: file for path, file in found.items() if file.resolve() not in unusable}

    @cached_property
    def _needed(self) -> Found:
        """What all programs and extension modules need."""
        of_packages = [file for each in self.packages for path, file in each.files.items() if _may_be_elf(path)]
        found = needed_by(
            [
                interpreter.program(),
                *of_packages,
                *(each for each in self._library_files.values() if each.suffix == ".so"),
            ]
        )
        if found.missing:
            raise RefusedError(
                "image-library-missing",
                "A library that the program needs is not on this machine.",
                context=[f"{name}, needed by {file}" for name, file in sorted(found.missing)],
                hint="Install clawker-fw again, or the system's package that has it.",
            )
        return found

    def _entries(self) -> Iterator[Entry]:
        yield from self._python_entries()
        yield from self._package_entries()
        yield from self._library_entries()
        for path, text in _FILES.items():
            yield Entry(path, content=text.encode())
        yield Entry("tmp", mode=0o1777)
        yield Entry(STATE.removeprefix("/"), mode=0o700)

    def _python_entries(self) -> Iterator[Entry]:
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        yield Entry(f"{_PREFIX}/bin/{name}", interpreter.program(), 0o755)
        for path, file in self._library_files.items():
            yield from _with_bytecode(_PREFIX / interpreter.library_in_prefix() / path, file)
        home = HOME.removeprefix("/")
        yield Entry(f"{home}/pyvenv.cfg", content=f"home = /{_PREFIX}/bin\n".encode())
        yield Entry(f"{home}/bin/python", link=f"/{_PREFIX}/bin/{name}")
        yield Entry(f"{home}/bin/clawker-fw", mode=0o755, content=_START.encode())

    def _package_entries(self) -> Iterator[Entry]:
        folder = PurePosixPath(HOME.removeprefix("/"), "lib", interpreter.library().name, "site-packages")
        for package in self.packages:
            for path, file in package.files.items():
                yield from _with_bytecode(folder / path, file, 0o755 if _is_program(path) else 0o644)
                if path == "certifi/cacert.pem":
                    yield Entry(_AUTHORITIES.removeprefix("/"), link=f"/{folder / path}")
            listed = "".join(f"{each},,\n" for each in sorted((*package.files, package.record)))
            yield Entry(str(folder / package.record), content=listed.encode())

    def _library_entries(self) -> Iterator[Entry]:
        """Yield the libraries in `/lib`, where Debian's loader looks for them, with links for other loaders."""
        for name, path in self.libraries.items():
            yield Entry(f"lib/{name}", path, 0o755)
            yield Entry(f"lib64/{name}", link=f"../lib/{name}")
        for loader in self._needed.loaders:
            yield Entry(loader.removeprefix("/"), Path(loader).resolve(), 0o755)


def architecture() -> str:
    """Return this machine's architecture as an image names it.

    Raises:
        RefusedError: when an image of this installation would not run on a Docker engine.
    """
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in _ARCHITECTURES:
        raise RefusedError(
            "image-not-here",
            f"An image is made of what is installed here, and this is {sys.platform} on {machine}.",
            hint="Make it on Linux on x86_64 or aarch64.",
        )
    return _ARCHITECTURES[machine]


def _with_bytecode(path: PurePosixPath, file: Path, mode: int = 0o644) -> Iterator[Entry]:
    yield Entry(str(path), file, mode)
    if path.suffix == ".py":
        yield Entry(bytecode.path_of(str(path)), file, made=bytecode.compiled)


def _is_program(path: str) -> bool:
    return path.startswith("clawker_fw/bin/") or path == "envoy/_bin/envoy"


def _may_be_elf(path: str) -> bool:
    return ".so" in PurePosixPath(path).name or path == "envoy/_bin/envoy"
