"""Earlier releases of this repository, for upgrades from what users have: a commit's package, compiled once.

A release is kept by its commit. Compiling its two Go programs takes a minute or two.
"""

import io
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from devkit.floor import Lock
from devkit.kept import KEPT
from devkit.stacks import CHECKOUT
from hatch_build import PROGRAMS, compile_program

RELEASES = KEPT / "releases"


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier commit whose stacks are upgraded. `why` says what its stacks have that later ones don't."""

    commit: str
    why: str


EARLIER = (
    Earlier("d4892f5e7d6d", "records without the weight of processors, open files and files of virtual addresses"),
    Earlier("3e752b5c40f1", "records without an init process, swap, block devices and modes of files"),
    Earlier("0e84ec9a107b", "records of the limit of open files alone, and secrets of a user that the program is"),
    Earlier("bed42190f352", "records of networks, and the package before its modules were in rooms"),
)
"""One commit of each form that the record of a sibling has had since."""

KEPT_APART = "861b1375a470"
"""One whose engine keeps relays apart, with br_netfilter."""


def earlier_release(commit: str, architecture: str) -> Path:
    """Return the folder of an earlier release. `PYTHONPATH=folder python -m clawker_fw` runs it.

    Raises:
        subprocess.CalledProcessError: when the commit is missing, as in a shallow clone, or can't be compiled.
    """
    folder = RELEASES / commit / architecture
    if not folder.exists():
        RELEASES.mkdir(parents=True, exist_ok=True)
        with Lock(RELEASES / f"{commit}.lock"):  # another worker may be at it
            if not folder.exists():
                _make(commit, architecture, folder)
    return folder


def _make(commit: str, architecture: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=RELEASES) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        command = ["git", "archive", commit, "clawker_fw", "templates", "go"]
        packed = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(made, filter="data")
        for program in PROGRAMS:
            target = made / "clawker_fw" / "bin" / f"{program}-linux-{architecture}"
            source = made / "go" / "cmd" / program
            if not source.is_dir():  # each program was a module of its own
                source = made / "go" / program
            compile_program(source, target, architecture)
        shutil.rmtree(made / "go")
        shutil.move(made / "templates", made / "clawker_fw" / "templates")  # as in a wheel
        folder.parent.mkdir(exist_ok=True)
        made.rename(folder)  # only a complete folder gets its final name
