"""Prometheus's own checks of rules. Its program is taken out of Debian's package, without installing that."""

import subprocess
import tempfile
from functools import cache
from pathlib import Path

from devkit.floor import Lock
from devkit.kept import KEPT

_UNPACK = """
cd "$1"
apt-get -qq download prometheus || { apt-get -qq update && apt-get -qq download prometheus; }
dpkg-deb --extract prometheus_*.deb .
"""


@cache
def promtool() -> Path:
    """Return the program. The first use on a machine downloads it (20 MB)."""
    kept = KEPT / "promtool"
    with Lock(KEPT / "promtool.lock"):  # another process may be at it
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=KEPT) as folder:
                subprocess.run(["sh", "-ec", _UNPACK, "sh", folder], check=True, capture_output=True, timeout=300)
                (Path(folder) / "usr/bin/promtool").rename(kept)
    return kept
