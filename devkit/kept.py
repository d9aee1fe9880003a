"""A cache for slow builds, shared by all checkouts of a user. Names say what each is made from."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from devkit.floor import lock

KEPT = platformdirs.user_cache_path("clawker-fw-devkit")


def make_once(kept: Path, put: Callable[[Path], None]) -> None:
    """Make a file or folder, unless it exists. `put` gets a place for it: only a complete one gets its name."""
    with lock(kept.with_name(f"{kept.name}.lock")):  # another process may be at it
        if kept.exists():
            return
        print(f"making {kept}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=f"{kept.name}-", dir=kept.parent) as building:
            made = Path(building, kept.name)
            put(made)
            made.rename(kept)
