"""The real cosign and oras, taken out of the packages of Debian 13, without installing them."""

import subprocess
import tempfile
from functools import cache
from pathlib import Path

from devkit.engines import KEYRING, install, mirror
from devkit.floor import Lock
from devkit.kept import KEPT

_SUITE = "trixie"

_UNPACK = """
cd "$1"
mkdir -p lists/partial cache/archives/partial
echo "deb [signed-by=$2] $3 main" >sources.list
set -- -o Dir::Etc::SourceList="$PWD/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$PWD/lists" -o Dir::Cache="$PWD/cache" -o Acquire::Languages=none
apt-get -qq "$@" update
apt-get -qq "$@" download cosign oras
for package in *.deb; do dpkg-deb --extract "$package" .; done
"""


@cache
def signing_programs() -> Path:
    """Return the folder with both programs. The first use on a machine downloads them (30 MB)."""
    kept = KEPT / f"signing-{_SUITE}"
    install({KEYRING: "debian-archive-keyring"})
    with Lock(KEPT / "signing.lock"):  # another process may be at it
        if not kept.exists():
            source = f"{mirror() or 'http://deb.debian.org/debian'} {_SUITE}"
            with tempfile.TemporaryDirectory(dir=KEPT) as folder:
                command = ["sh", "-ec", _UNPACK, "sh", folder, KEYRING, source]
                subprocess.run(command, check=True, capture_output=True, timeout=600)
                (Path(folder) / "usr/bin").rename(kept)
    return kept
