"""The Python packages that the program is made of: its own, and those that it requires, with their files.

What is installed is the measure, and no marker is evaluated: of a requirement with one, the package is taken if it
is installed, so the image can do what the installation here can.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from clawker_fw.errors import RefusedError

OWN = "clawker-fw"
EXTRAS = ("otel",)
"""The extras of ours that are taken if they are installed."""

_REQUIREMENT = re.compile(r"\s*(?P<name>[A-Za-z0-9][\w.-]*)\s*(?:\[(?P<extras>[^]]*)\])?[^;]*(?:;(?P<marker>.*))?")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
_OF_THE_INSTALLATION = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
"""Records of how and where a package was installed: other bytes in each installation."""


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package, and its files by their path in the folder of packages."""

    name: str
    version: str
    files: dict[str, Path]
    record: str
    """Where the list of its files belongs."""


def installed(own: Path, templates: Path) -> tuple[Package, ...]:
    """Return the package in the folder `own`, its templates, and all that it requires, by name.

    Raises:
        RefusedError: when a required one is not installed, or it is not known which files belong to one.
    """
    return tuple(
        _package(each, {"clawker_fw": own, "clawker_fw/templates": templates} if name == OWN else {})
        for name, each in sorted(_closure().items())
    )


def _closure() -> dict[str, metadata.Distribution]:
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(OWN, extra, False) for extra in ("", *EXTRAS)]
    while waiting:
        name, extra, optional = waiting.pop()
        if (name, extra) in seen:
            continue
        try:
            distribution = found.get(name) or metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            if optional:
                continue
            raise RefusedError(
                "image-package-missing",
                f"The package {name}, which clawker-fw requires, is not installed.",
                hint="Install clawker-fw again, with all that it requires.",
            ) from error
        seen.add((name, extra))
        found[name] = distribution
        waiting += _required(distribution, extra)
    return found


def _required(distribution: metadata.Distribution, extra: str) -> Iterator[tuple[str, str, bool]]:
    """Yield what a package requires, with an extra or without: name, extra, and whether it may be missing."""
    for requirement in distribution.requires or ():
        if not (parts := _REQUIREMENT.match(requirement)):
            continue
        marker = parts["marker"] or ""
        wanted = _EXTRA.search(marker)
        if (wanted[1] if wanted else "") != extra:
            continue
        name = re.sub(r"[-_.]+", "-", parts["name"]).lower()
        for each in ("", *filter(None, map(str.strip, (parts["extras"] or "").split(",")))):
            yield name, each, bool(marker)


def _package(distribution: metadata.Distribution, folders: dict[str, Path]) -> Package:
    name = distribution.name
    if (listed := distribution.files) is None:
        raise RefusedError(
            "image-package-unlisted",
            f"The package {name} has no list of its files, so it can't be copied into an image.",
            hint="Install clawker-fw into an environment of its own, with pipx, uv or pip.",
        )
    files: dict[str, Path] = {}
    information = ""
    for each in listed:
        path = PurePosixPath(each)
        if path.name == "METADATA" and path.parent.suffix == ".dist-info":
            information = str(path.parent)
        in_folder = any(path.is_relative_to(folder) for folder in folders)
        editable = path.suffix == ".pth" or "__editable__" in path.name
        if ".." not in path.parts and not in_folder and not (folders and editable) and is_content(path):
            files[str(path)] = Path(str(distribution.locate_file(each)))
    for prefix, folder in folders.items():
        for file in sorted(folder.rglob("*")):
            path = PurePosixPath(prefix, file.relative_to(folder).as_posix())
            if file.is_file() and is_content(path):
                files[str(path)] = file
    return Package(name, distribution.version, files, f"{information}/RECORD")


def is_content(path: PurePosixPath) -> bool:
    """Whether a file is a part of a package: not left by its installation, nor only for those who compile."""
    if path.parent.suffix == ".dist-info" and path.name in _OF_THE_INSTALLATION:
        return False
    return "__pycache__" not in path.parts and path.suffix not in {".pyc", ".pyi", ".a", ".h", ".pxd", ".pyx"}
