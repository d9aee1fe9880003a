"""The Python that runs this command: its program, and of its standard library what a program needs."""

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_NOT_NEEDED = {
    *(
        "test",
        "tests",
        "idlelib",
        "idle_test",
        "tkinter",
        "turtledemo",
        "turtle.py",
        "lib2to3",
        "ensurepip",
        "venv",
    ),
    *("distutils", "pydoc_data", "site-packages", "dist-packages", "__pycache__", "__phello__"),
    *("sitecustomize.py", "usercustomize.py", "EXTERNALLY-MANAGED", "LICENSE.txt"),
}
"""Tests, what draws windows, what installs and compiles packages, and what an administrator has added."""

_NOT_NEEDED_EXTENSIONS = ("_tkinter.", "_test", "_xxtestfuzz.", "_ctypes_test.", "xx", "nis.", "_gdbm.", "_dbm.")


def program() -> Path:
    """Return the interpreter itself, also if this is a virtual environment of another one."""
    return Path(sys.executable).resolve()


def library() -> Path:
    """Return the folder of the standard library."""
    return Path(sysconfig.get_path("stdlib"))


def library_in_prefix() -> PurePosixPath:
    """Return where an interpreter looks for its standard library, below its prefix: `lib/python3.11`."""
    return PurePosixPath(sys.platlibdir, library().name)


def files() -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield the files of the standard library, with their paths in it."""
    root = library()
    for folder, below, names in os.walk(root, followlinks=True):
        inside = PurePosixPath(Path(folder).relative_to(root).as_posix())
        below[:] = [each for each in below if each not in _NOT_NEEDED and not each.startswith("config-")]
        for name in names:
            extension = inside.name == "lib-dynload"
            if name in _NOT_NEEDED or (extension and name.startswith(_NOT_NEEDED_EXTENSIONS)):
                continue
            if PurePosixPath(name).suffix in {".py", ".so"}:
                yield inside / name, Path(folder, name)
