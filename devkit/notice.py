"""The file NOTICE: third-party software in the wheel, and its licences.

`python -m devkit.notice` writes it, and `python -m devkit.notice --check` checks that it is current. The Go
toolchain lists what is compiled into the two programs. Software without a licence, or with an unknown one, is an
error.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hatch_build import ARCHITECTURES, PROGRAMS, STANDARD_LIBRARY, go_environment, toolchain

REPOSITORY = Path(__file__).resolve().parent.parent
NOTICE = REPOSITORY / "NOTICE"

_INTRODUCTION = """\
clawker-fw

This product is licensed under the Apache License, Version 2.0, which is in the file LICENSE.

It carries two programs, {programs}, compiled for {platforms}. They contain the
software below, each under its own licence; the texts follow. The source code of each module is published at the
path by which it is named here, at the version given.
"""


_LICENCE_NAME = re.compile(r"(licen[cs]e|copying)([^a-z].*)?", re.IGNORECASE)
_FURTHER_NAME = re.compile(r"(notice|patents|copyright)(\.md|\.txt)?", re.IGNORECASE)
"""Further texts that must be included: notices (Apache-2.0, section 4d), patent grants, copyright statements."""

_PHRASES = {
    "Apache-2.0": "apache license version 2.0, january 2004",
    "BSD-2-Clause": "redistributions of source code must retain the above copyright notice",
    "BSD-3-Clause": "neither the name of",
    "ISC": "permission to use, copy, modify, and/or distribute this software for any purpose with or without fee",
    "MIT": "permission is hereby granted, free of charge, to any person obtaining a copy",
    "MPL-2.0": "mozilla public license, version 2.0",
}
"""SPDX identifiers, and the words that identify each licence. One of BSD with three clauses has those of both."""


class NoticeError(Exception):
    """A component has no licence, or an unknown one. The message names it."""


@dataclass(frozen=True, slots=True)
class Component:
    """A version of some software: the programs that contain it, and its texts, licences first.

    A text has a kind, which is an SPDX identifier or the name of its file, and its words.
    """

    title: str
    programs: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]

    @property
    def licence(self) -> str:
        """Its licences as an SPDX expression."""
        return " AND ".join(dict.fromkeys(kind for kind, _ in self.texts if kind in _PHRASES))


def _read_texts(title: str, folder: Path, sources: Iterable[Path]) -> tuple[tuple[str, str], ...]:
    """Return the texts of a module, of which the given source files are compiled.

    They are in the folders of those files or above, or elsewhere in the module if a source file refers to them.
    """
    sources = sorted(sources)
    folders = {parent for source in sources for parent in source.parents if parent.is_relative_to(folder)}
    beside = [path for each in sorted({folder, *folders}) for path in sorted(each.iterdir()) if _is_text(path)]
    names = {path.name for path in beside}
    heads = "\n".join(path.read_text("utf-8", "replace").partition("\npackage ")[0] for path in sources)
    elsewhere = [
        path
        for path in sorted(folder.rglob("*"))
        if _is_text(path) and path.name not in names and re.search(rf"\b{re.escape(path.name)}\b", heads)
    ]
    texts = [_read_text(title, path) for path in (*beside, *elsewhere)]
    if not any(kind in _PHRASES for kind, _ in texts):
        raise NoticeError(f"{title} has no licence in {folder}.")
    return tuple(sorted(texts, key=lambda text: text[0] not in _PHRASES))


def _is_text(path: Path) -> bool:
    named = _LICENCE_NAME.fullmatch(path.name) or _FURTHER_NAME.fullmatch(path.name)
    return bool(named) and path.suffix not in {".go", ".sh"} and path.is_file()


def _read_text(title: str, path: Path) -> tuple[str, str]:
    words = "\n".join(line.rstrip() for line in path.read_text("utf-8").splitlines()).strip("\n")
    if not _LICENCE_NAME.fullmatch(path.name):
        return path.stem.upper(), words
    found = {licence for licence, phrase in _PHRASES.items() if phrase in _normal(words).lower()}
    if "BSD-3-Clause" in found:
        found.discard("BSD-2-Clause")
    if len(found) != 1:
        raise NoticeError(f"{title} has a licence that is not known: {path}.")
    return found.pop(), words


def _normal(words: str) -> str:
    return " ".join(words.split())


def components() -> tuple[Component, ...]:
    """Return all third-party components of the programs: the standard library, then modules by path."""
    sources: dict[str, set[Path]] = {}
    programs: dict[str, set[str]] = {}
    folders: dict[str, Path] = {}
    for program in PROGRAMS:
        for architecture in ARCHITECTURES:
            for package in _packages(program, architecture):
                module = package.get("Module")
                if module is None or module.get("Main"):  # the standard library's, or our own
                    continue
                title = f"{module['Path']} {module['Version']}"
                folders[title] = Path(module["Dir"])
                programs.setdefault(title, set()).add(program)
                files = (name for kind in ("GoFiles", "SFiles", "HFiles") for name in package.get(kind, ()))
                sources.setdefault(title, set()).update(Path(package["Dir"], name) for name in files)
    modules = [
        Component(title, tuple(sorted(programs[title])), _read_texts(title, folders[title], sources[title]))
        for title in sorted(sources, key=str.split)
    ]
    return (_standard_library(), *modules)


def _packages(program: str, architecture: str) -> list[dict[str, Any]]:
    """Return the packages that are compiled into a program, in the form of `go help list`."""
    fields = "-json=Dir,GoFiles,HFiles,Module,SFiles"
    ran = subprocess.run(
        [toolchain(), "list", "-mod=readonly", "-deps", fields, "."],
        cwd=REPOSITORY / "go" / "cmd" / program,
        env=go_environment(architecture),
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise NoticeError(f"`go list` failed for {program}: {ran.stderr.strip()}")
    documents = ran.stdout.replace("}\n{", "},{")  # one after the other, each indented
    return list(json.loads(f"[{documents}]"))


def _standard_library() -> Component:
    """Return the standard library. Its licence may be missing from the toolchain's package.

    In this case the licence is that of the modules that Go vendors, which have the same authors and text.
    """
    root = toolchain().parent.parent
    title = f"{STANDARD_LIBRARY} {(root / 'VERSION').read_text('utf-8').split()[0]}"
    vendored = sorted((root / "src" / "vendor" / "golang.org" / "x").iterdir())
    folder = next((each for each in (root, *vendored) if (each / "LICENSE").is_file()), root)
    return Component(title, tuple(sorted(PROGRAMS)), _read_texts(title, folder, ()))


def render(carried: Sequence[Component]) -> str:
    """Return the content of NOTICE: the components, and each of their texts once, whatever its white space."""
    texts: dict[str, tuple[str, str]] = {}
    owners: dict[str, dict[str, None]] = {}
    for component in carried:
        for text in component.texts:
            texts.setdefault(_normal(text[1]), text)
            owners.setdefault(_normal(text[1]), {})[component.title] = None
    numbers = {identity: number for number, identity in enumerate(texts, 1)}
    platforms = _enumerate([f"linux/{architecture}" for architecture in ARCHITECTURES])
    parts = [_INTRODUCTION.format(programs=_enumerate(sorted(PROGRAMS)), platforms=platforms)]
    for component in carried:
        own = [str(number) for number in sorted({numbers[_normal(words)] for _, words in component.texts})]
        its_texts = f"{'texts' if len(own) > 1 else 'text'} {_enumerate(own)}"
        programs = _enumerate(component.programs)
        parts.append(f"{component.title}\n  licence {component.licence}, in {programs}, {its_texts}\n")
    for identity, (kind, words) in texts.items():
        heading = f"--- text {numbers[identity]}: {kind} ".ljust(100, "-")
        names = "\n".join(f"    {title}" for title in owners[identity])
        parts.append(f"\n{heading}\n\nfor\n{names}\n\n{words}\n")
    return "\n".join(parts)


def _enumerate(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m devkit.notice", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if NOTICE is not current")
    check, wanted = parser.parse_args().check, render(components())
    if not check:
        NOTICE.write_text(wanted, "utf-8")
    elif NOTICE.read_text("utf-8") != wanted:
        sys.exit("NOTICE is not what the programs need; `python -m devkit.notice` writes it.")


if __name__ == "__main__":
    main()
