"""An earlier release of this repository, for upgrades from what users have: a commit's package, compiled once.

A release is kept by its commit. Compiling its two Go programs takes a minute or two.
"""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

from devkit.kept import KEPT, make_once
from devkit.stacks import CHECKOUT
from hatch_build import PROGRAMS, compile_program

RELEASES = KEPT / "releases"


EARLIER = "861b1375a470"
"""The last commit before the records of a sibling got their present form: what users of 0.1.0 have."""


def earlier_release(architecture: str) -> Path:
    """Return the folder of an earlier release. `PYTHONPATH=folder python -m clawker_fw` runs it.

    Raises:
        subprocess.CalledProcessError: when the commit is missing, as in a shallow clone, or can't be compiled.
    """
    folder = RELEASES / EARLIER / architecture

    def put(made: Path) -> None:
        made.mkdir()
        command = ["git", "archive", EARLIER, "clawker_fw", "templates", "go"]
        packed = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(made, filter="data")
        for program in PROGRAMS:
            target = made / "clawker_fw" / "bin" / f"{program}-linux-{architecture}"
            compile_program(made / "go" / "cmd" / program, target, architecture)
        shutil.rmtree(made / "go")
        shutil.move(made / "templates", made / "clawker_fw" / "templates")  # as in a wheel

    make_once(folder, put)
    return folder
