"""The shared libraries of this machine that programs and extension modules need, and their loader.

They are found by what each file says that it needs, as the dynamic loader does (ld.so(8)), but without
what depends on the processor: an image made here has to run on another processor of the same architecture.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from clawker_fw.fleet.program.elf import Needs, needs

BY_NAME_ONLY = ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2", "libgcc_s.so.1")
"""What the C library loads by itself, where it is not a part of it: for names of hosts, and to end threads."""

_CONFIGURATION = Path("/etc/ld.so.conf")


@dataclass(slots=True)
class Found:
    """What files need: libraries by name, and the paths of loaders.

    `missing` has each library that this machine has not, with the file that needs it.
    """

    libraries: dict[str, Path] = field(default_factory=dict)
    loaders: set[str] = field(default_factory=set)
    missing: set[tuple[str, Path]] = field(default_factory=set)


def needed_by(files: Sequence[Path]) -> Found:
    """Return what files need, and what that needs in turn, without what is among the files itself.

    Raises:
        OSError: when one can't be read.
        ValueError: when one is damaged.
    """
    found, given = Found(), [each.resolve() for each in files]
    waiting = [(each, said) for each in given if (said := needs(each))]
    while waiting:
        file, said = waiting.pop()
        if said.loader:
            found.loaders.add(said.loader)
        for name in said.libraries:
            if name in found.libraries or name.startswith("ld-linux"):  # the loader, which has a path
                continue
            library = _in((*_expanded(file, said.folders), *map(Path, _folders())), name)
            if library is None:
                found.missing.add((name, file))
            elif library not in given:
                found.libraries[name] = library
                waiting.append((library, needs(library) or Needs()))
    return found


def named(names: Iterable[str]) -> dict[str, Path]:
    """Return the libraries with these names that this machine has."""
    return {name: path for name in names if (path := _in(map(Path, _folders()), name))}


def _expanded(file: Path, folders: Iterable[str]) -> Iterator[Path]:
    for each in folders:
        yield Path(each.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", str(file.parent)))


def _in(folders: Iterable[Path], name: str) -> Path | None:
    for folder in folders:
        if (path := folder / name).is_file():
            return path.resolve()
    return None


@cache
def _folders() -> tuple[str, ...]:
    """Return the folders in which the dynamic loader looks: those of the user, of the machine, and its own."""
    users = [each for each in os.environ.get("LD_LIBRARY_PATH", "").split(":") if each]
    own = [
        f"{root}/{folder}"
        for folder in (f"lib/{os.uname().machine}-linux-gnu", "lib64", "lib")
        for root in ("", "/usr")
    ]
    return tuple(dict.fromkeys((*users, *_configured(_CONFIGURATION), *own)))


def _configured(path: Path) -> Iterator[str]:
    """Yield the folders that the loader's configuration names (ldconfig(8))."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if words[:1] == ["include"]:
            for each in words[1:]:
                root = Path("/") if each.startswith("/") else path.parent
                for included in sorted(root.glob(each.lstrip("/"))):
                    yield from _configured(included)
        else:
            yield from words
