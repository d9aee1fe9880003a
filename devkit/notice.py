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
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    "Apache-2.0": ("apache license version 2.0, january 2004", "end of terms and conditions"),
    "BSD-2-Clause": (
        "redistributions of source code must retain the above copyright notice",
        "redistributions in binary form must reproduce the above copyright notice",
    ),
    "BSD-3-Clause": (
        "redistributions of source code must retain the above copyright notice",
        "redistributions in binary form must reproduce the above copyright notice",
        "neither the name of",
    ),
    "ISC": (
        "permission to use, copy, modify, and/or distribute this software for any purpose with or without fee",
    ),
    "MIT": (
        "permission is hereby granted, free of charge, to any person obtaining a copy",
        "the above copyright notice and this permission notice shall be included",
    ),
    "MPL-2.0": ("mozilla public license, version 2.0", "exhibit a - source code form license notice"),
}
"""SPDX identifiers, and the words that identify each licence."""


class NoticeError(Exception):
    """A component has no licence, or an unknown one. The message names it."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text that must be included: its kind (an SPDX identifier or the name of its file), and its content."""

    kind: str
    words: str

    @property
    def is_licence(self) -> bool:
        """Whether it is a licence, not a further notice."""
        return self.kind in _PHRASES

    @property
    def identity(self) -> str:
        """The words of the text, which are equal for texts that only differ in white space."""
        return " ".join(self.words.split())


@dataclass(frozen=True, slots=True)
class Component:
    """A version of some software: the programs that contain it, and its texts, licences first."""

    name: str
    version: str
    programs: tuple[str, ...]
    texts: tuple[Text, ...]

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def licence(self) -> str:
        return " AND ".join(dict.fromkeys(text.kind for text in self.texts if text.is_licence))


def identify(words: str) -> str | None:
    """Return the SPDX identifier of a licence, or an empty string unless exactly one is recognized."""
    normal = " ".join(words.split()).lower()
    found = {licence for licence, phrases in _PHRASES.items() if all(phrase in normal for phrase in phrases)}
    if "BSD-3-Clause" in found:
        found.remove("BSD-2-Clause")  # which has one clause fewer
    return found.pop() if len(found) == 1 else None


def read_texts(title: str, folder: Path, sources: Iterable[Path]) -> tuple[Text, ...]:
    """Return the texts of a module, of which the given source files are compiled.

    They are in the folders of those files or above, or elsewhere in the module if a source file refers to them.

    Raises:
        NoticeError: when there is no licence, or an unknown one.
    """
    sources = sorted(set(sources))
    folders = {parent for source in sources for parent in source.parents if parent.is_relative_to(folder)} | {
        folder
    }
    beside = [path for each in sorted(folders) for path in sorted(each.iterdir()) if _is_text(path)]
    names = {path.name for path in beside}
    heads = "\n".join(path.read_text("utf-8", "replace").partition("\npackage ")[0] for path in sources)
    elsewhere = [
        path
        for path in sorted(folder.rglob("*"))
        if _is_text(path) and path.name not in names and re.search(rf"\b{re.escape(path.name)}\b", heads)
    ]
    texts = [_read_text(title, path) for path in (*beside, *elsewhere)]
    if not any(text.is_licence for text in texts):
        raise NoticeError(f"{title} has no licence in {folder}.")
    return tuple(sorted(texts, key=lambda text: not text.is_licence))


def _is_text(path: Path) -> bool:
    named = _LICENCE_NAME.fullmatch(path.name) or _FURTHER_NAME.fullmatch(path.name)
    return bool(named) and path.suffix not in {".go", ".sh"} and path.is_file()


def _read_text(title: str, path: Path) -> Text:
    lines = [line.rstrip() for line in path.read_text("utf-8").splitlines()]
    words = "\n".join(lines).strip("\n")
    if not _LICENCE_NAME.fullmatch(path.name):
        return Text(path.stem.upper(), words)
    licence = identify(words)
    if licence is None:
        raise NoticeError(f"{title} has a licence that is not known: {path}.")
    return Text(licence, words)


# --- what is compiled -----------------------------------------------------------------------------------------


def components() -> tuple[Component, ...]:
    """Return all third-party components of the programs: the standard library, then modules by path.

    Raises:
        NoticeError: when the toolchain fails, or when a component has no known licence.
    """
    sources: dict[tuple[str, str], set[Path]] = {}
    programs: dict[tuple[str, str], set[str]] = {}
    folders: dict[tuple[str, str], Path] = {}
    for program in PROGRAMS:
        for architecture in ARCHITECTURES:
            for package in _packages(program, architecture):
                module = package.get("Module")
                if module is None or module.get("Main"):  # the standard library's, or our own
                    continue
                key = (module["Path"], module["Version"])
                folders[key] = Path(module["Dir"])
                programs.setdefault(key, set()).add(program)
                sources.setdefault(key, set()).update(_source_files(package))
    modules = [
        Component(
            name=name,
            version=version,
            programs=tuple(sorted(programs[name, version])),
            texts=read_texts(f"{name} {version}", folders[name, version], sources[name, version]),
        )
        for name, version in sorted(sources)
    ]
    return (_standard_library(), *modules)


def _source_files(package: Mapping[str, Any]) -> Iterator[Path]:
    for kind in ("GoFiles", "SFiles", "HFiles"):
        for name in package.get(kind, ()):
            yield Path(package["Dir"], name)


def _packages(program: str, architecture: str) -> list[dict[str, Any]]:
    """Return the packages that are compiled into a program, in the form of `go help list`."""
    fields = "-json=Dir,GoFiles,HFiles,Module,SFiles"
    output = _go("list", "-mod=readonly", "-deps", fields, ".", program=program, architecture=architecture)
    packages, decoder, position = [], json.JSONDecoder(), 0
    while position < len(output):
        package, position = decoder.raw_decode(output, position)
        packages.append(package)
        position += len(output[position:]) - len(output[position:].lstrip())
    return packages


def _standard_library() -> Component:
    """Return the standard library. Its licence may be missing from the toolchain's package.

    In this case the licence is that of the modules that Go vendors, which have the same authors and text.
    """
    root = toolchain().parent.parent
    version = (root / "VERSION").read_text("utf-8").split()[0]
    vendored = sorted((root / "src" / "vendor" / "golang.org" / "x").iterdir())
    title = f"{STANDARD_LIBRARY} {version}"
    folder = next((each for each in (root, *vendored) if (each / "LICENSE").is_file()), root)
    return Component(STANDARD_LIBRARY, version, tuple(sorted(PROGRAMS)), read_texts(title, folder, ()))


def _go(*arguments: str, program: str, architecture: str) -> str:
    ran = subprocess.run(
        [toolchain(), *arguments],
        cwd=REPOSITORY / "go" / "cmd" / program,
        env=go_environment(architecture),
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise NoticeError(f"`go {' '.join(arguments)}` failed for {program}: {ran.stderr.strip()}")
    return ran.stdout


# --- the file -------------------------------------------------------------------------------------------------


def render(carried: Sequence[Component]) -> str:
    """Return the content of NOTICE: the components, and each of their texts once."""
    numbers: dict[str, int] = {}
    texts: dict[str, Text] = {}
    owners: dict[str, list[str]] = {}
    for component in carried:
        for text in component.texts:
            numbers.setdefault(text.identity, len(numbers) + 1)
            texts.setdefault(text.identity, text)
            if component.title not in owners.setdefault(text.identity, []):
                owners[text.identity].append(component.title)
    platforms = _enumerate([f"linux/{architecture}" for architecture in ARCHITECTURES])
    parts = [_INTRODUCTION.format(programs=_enumerate(sorted(PROGRAMS)), platforms=platforms)]
    for component in carried:
        own = [str(number) for number in sorted({numbers[text.identity] for text in component.texts})]
        its_texts = f"{'texts' if len(own) > 1 else 'text'} {_enumerate(own)}"
        lines = [
            component.title,
            f"  licence {component.licence}, in {_enumerate(component.programs)}, {its_texts}",
        ]
        parts.append("\n".join(lines) + "\n")
    for identity, text in texts.items():
        heading = f"--- text {numbers[identity]}: {text.kind} ".ljust(100, "-")
        names = "\n".join(f"    {title}" for title in owners[identity])
        parts.append(f"\n{heading}\n\nfor\n{names}\n\n{text.words}\n")
    return "\n".join(parts)


def _enumerate(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m devkit.notice", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if NOTICE is not current")
    options = parser.parse_args(arguments)
    try:
        wanted = render(components())
    except NoticeError as error:
        print(f"NOTICE can't be written: {error}", file=sys.stderr)
        return 1
    present = NOTICE.read_text("utf-8") if NOTICE.is_file() else None
    if options.check:
        if present != wanted:
            print("NOTICE is not what the programs need; `python -m devkit.notice` writes it.", file=sys.stderr)
            return 1
        return 0
    NOTICE.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
