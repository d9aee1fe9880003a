"""The installed release: its version, its files, and the digest of its firewall."""

import functools
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

from clawker_fw.errors import SettingsError
from clawker_fw.model.files import File
from clawker_fw.stack.files import executable

_PACKAGE = Path(__file__).parent.parent

_DIGEST = ".sha256"
"""The suffix of a digest, which a wheel for one architecture has in place of another one's program."""

SHORT_BUILD = 7
"""How many digits of a build people see."""

_IMPORT = re.compile(r"^from clawker_fw((?:\.\w+)*) import (\([^)]*\)|.*)$", re.MULTILINE)
"""An import at run time. Those for types only are indented."""


def build_name(version: str | None, build_sha: str | None) -> str:
    """Return a release for people: its version, if known, and its build: `0.1.0 (b51912e)`."""
    short = f"({build_sha[:SHORT_BUILD]})" if build_sha else ""
    return " ".join(filter(None, (version, short))) or "an unknown build"


Identity = tuple[int, ...]


def identity(path: Path) -> Identity:
    """Return the device, inode, size and times of a file, which differ after any change."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, computed again only after a change."""
    return _digest(path.resolve(), identity(path))


@functools.lru_cache(maxsize=1024)
def _digest(path: Path, _: Identity) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.lru_cache(maxsize=1)
def _program(path: Path, _: Identity) -> File:
    return executable(path.read_bytes())


@dataclass(frozen=True)
class Release:
    """A release. The modules that define the containers, `bin/` and `templates/` are its firewall subset."""

    package: Path

    @classmethod
    @functools.cache
    def installed(cls) -> "Release":
        """Return the release that this code belongs to. It is hashed once in a process."""
        return cls(_PACKAGE)

    @cached_property
    def version(self) -> str:
        """The version of the package."""
        return metadata.version("clawker-fw")

    def binary(self, name: str, architecture: str) -> Path:
        """Return a built program.

        Raises:
            SettingsError: if the package has no programs for that architecture.
        """
        path = self.package / "bin" / f"{name}-linux-{architecture}"
        if not path.is_file():
            raise SettingsError(
                "binary-missing",
                f"The package has no {name} for linux/{architecture}.",
                context=[str(path)],
                hint="Install this release's wheel for any platform (`py3-none-any.whl`), which has all programs.",
            )
        return path

    def helper(self, architecture: str) -> File:
        """Return the program fwctl, the largest file in a container.

        Raises:
            SettingsError: if the package has no programs for that architecture.
        """
        path = self.binary("fwctl", architecture)
        return _program(path, identity(path))

    @cached_property
    def build_sha(self) -> str:
        """SHA-256 of the firewall subset: all paths in order, each with the digest of its content."""
        sum_ = hashlib.sha256()
        for path, digest in sorted(self._subset()):
            sum_.update(f"{path} {digest}\n".encode())
        return sum_.hexdigest()

    @property
    def templates(self) -> Path:
        """The folder of templates: in an installed package, or beside it in a checkout."""
        inside = self.package / "templates"
        return inside if inside.is_dir() else self.package.parent / "templates"

    def _subset(self) -> Iterator[tuple[str, str]]:
        for path, content in self.modules().items():
            yield path, hashlib.sha256(content).hexdigest()
        for folder in (self.package / "bin", self.templates):
            for file in folder.rglob("*"):
                if file.is_file() and "__pycache__" not in file.parts:
                    path = file.relative_to(folder.parent).as_posix()
                    left_out = file.suffix == _DIGEST
                    yield path.removesuffix(_DIGEST), file.read_text().strip() if left_out else digest_of(file)

    def modules(self) -> dict[str, bytes]:
        """Return the modules that define the containers: `stack/`, and all its imports.

        Limits, addresses and rules are defined in other folders: a release that changes them must not look like
        changed settings. A digest of rendered files would be slow, and miss what they don't use.
        """
        contents: dict[str, bytes] = {}
        left = [path.relative_to(self.package).as_posix() for path in (self.package / "stack").rglob("*.py")]
        while left:
            path = left.pop()
            if path not in contents:
                contents[path] = (self.package / path).read_bytes()
                left += self._imported(contents[path].decode())
        return contents

    def _imported(self, module: str) -> Iterator[str]:
        for base, names in _IMPORT.findall(module):
            folder = Path(*base.split("."))
            for candidate in (folder, *(folder / name for name in re.findall(r"\w+", names))):
                path = candidate.with_suffix(".py") if candidate.name else candidate
                if (self.package / path).is_file():
                    yield path.as_posix()
