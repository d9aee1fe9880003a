"""The file NOTICE: third-party software in the wheel, and its licences. `--check` checks that it is current.

The Go toolchain lists what is compiled into the programs. Software without a known licence is an error.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

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


_MODULE = "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}\t{{.Dir}}{{end}}{{end}}"
"""What is asked of each package: its module, unless it is the standard library's or our own (`go help list`)."""


def components() -> dict[str, tuple[Path, set[str]]]:
    """Return what is in the programs: title, folder and the programs of the standard library, and of each module.

    If the toolchain's package lacks the standard library's licence, the same text of a vendored module counts.
    """
    root = toolchain().parent.parent
    vendored = sorted((root / "src" / "vendor" / "golang.org" / "x").iterdir())
    folder = next((each for each in (root, *vendored) if (each / "LICENSE").is_file()), root)
    version = (root / "VERSION").read_text("utf-8").split()[0]
    modules: dict[str, tuple[Path, set[str]]] = {}
    for program in PROGRAMS:
        for architecture in ARCHITECTURES:
            command = [str(toolchain()), "list", "-mod=readonly", "-deps", "-f", _MODULE, "."]
            place, environment = REPOSITORY / "go" / "cmd" / program, go_environment(architecture)
            listed = subprocess.run(
                command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            for line in filter(None, listed.stdout.splitlines()):
                title, _, root_of = line.partition("\t")
                modules.setdefault(title, (Path(root_of), set()))[1].add(program)
    library = {f"{STANDARD_LIBRARY} {version}": (folder, set(PROGRAMS))}
    return library | {title: modules[title] for title in sorted(modules, key=str.split)}


def _texts(title: str, folder: Path) -> list[tuple[str, str]]:
    """Return a module's texts with SPDX identifiers or file names, licences first, also from subfolders."""
    texts = []
    beside = {folder}
    if not title.startswith(STANDARD_LIBRARY):
        beside |= {path.parent for path in folder.rglob("*.go")}
    for path in (path for each in sorted(beside) for path in sorted(each.iterdir())):
        licence = _LICENCE_NAME.fullmatch(path.name)
        if not (licence or _FURTHER_NAME.fullmatch(path.name)) or path.suffix in {".go", ".sh"} or path.is_dir():
            continue
        words = "\n".join(line.rstrip() for line in path.read_text("utf-8").splitlines()).strip("\n")
        found = {name for name, phrase in _PHRASES.items() if phrase in _normal(words).lower()}
        if "BSD-3-Clause" in found:
            found.discard("BSD-2-Clause")
        if licence and len(found) != 1:
            raise ValueError(f"{title} has a licence that is not known: {path}.")
        texts.append((found.pop() if licence else path.stem.upper(), words))
    if not any(kind in _PHRASES for kind, _ in texts):
        raise ValueError(f"{title} has no licence in {folder}.")
    return sorted(texts, key=lambda text: text[0] not in _PHRASES)


def _normal(words: str) -> str:
    return " ".join(words.split())


def render() -> str:
    """Return the content of NOTICE: the components, and each of their texts once, whatever its white space."""
    numbered: dict[str, tuple[int, str, str, list[str]]] = {}
    platforms = _enumerate([f"linux/{architecture}" for architecture in ARCHITECTURES])
    parts = [_INTRODUCTION.format(programs=_enumerate(sorted(PROGRAMS)), platforms=platforms)]
    for title, (folder, programs) in components().items():
        texts = _texts(title, folder)
        for kind, words in texts:
            owners = numbered.setdefault(_normal(words), (len(numbered) + 1, kind, words, []))[3]
            owners += [] if title in owners else [title]
        own = [str(number) for number in sorted({numbered[_normal(words)][0] for _, words in texts})]
        licence = " AND ".join(dict.fromkeys(kind for kind, _ in texts if kind in _PHRASES))
        its_texts = f"{'texts' if len(own) > 1 else 'text'} {_enumerate(own)}"
        parts.append(f"{title}\n  licence {licence}, in {_enumerate(sorted(programs))}, {its_texts}\n")
    for number, kind, words, owners in numbered.values():
        heading = f"--- text {number}: {kind} ".ljust(100, "-")
        names = "\n".join(f"    {title}" for title in owners)
        parts.append(f"\n{heading}\n\nfor\n{names}\n\n{words}\n")
    return "\n".join(parts)


def _enumerate(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m devkit.notice", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if NOTICE is not current")
    check, wanted = parser.parse_args().check, render()
    if not check:
        NOTICE.write_text(wanted, "utf-8")
    elif NOTICE.read_text("utf-8") != wanted:
        sys.exit("NOTICE is not what the programs need; `python -m devkit.notice` writes it.")


if __name__ == "__main__":
    main()
