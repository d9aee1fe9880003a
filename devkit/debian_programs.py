"""Files that are taken out of the packages of Debian, without installing them."""

from functools import cache
from pathlib import Path

from devkit.engines import KEYRING, install, mirror, run
from devkit.kept import KEPT, make_once

_UNPACK = """
cd "$1"
mkdir -p lists/partial cache/archives/partial
echo "deb [signed-by=$2] $3 main" >sources.list
packages=$4
prepare=$5 required=
set -- -o Dir::Etc::SourceList="$PWD/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$PWD/lists" -o Dir::Cache="$PWD/cache" -o Acquire::Languages=none
apt-get -qq "$@" update
if [ "$prepare" ]; then
  required=$(apt-cache "$@" depends --important $packages | sed -n 's/.*Depends: //p')
fi
apt-get -qq "$@" download $packages $required
for package in *.deb; do dpkg-deb --extract "$package" root; done
cd root
eval "$prepare"
"""


@cache
def unpacked(*packages: str, suite: str = "trixie", prepare: str = "") -> Path:
    """Return the folder with the programs of packages. The first use on a machine downloads them.

    With commands that `prepare` them, it has all files of the packages and of those that they depend on.
    """
    kept = KEPT / f"{'-'.join(packages)}-{suite}"
    install({KEYRING: "debian-archive-keyring"})

    def put(made: Path) -> None:
        source = f"{mirror() or 'http://deb.debian.org/debian'} {suite}"
        command = ["sh", "-ec", _UNPACK, "sh", str(made.parent), KEYRING, source, " ".join(packages), prepare]
        run(command, timeout=600)
        (made.parent / "root" / ("" if prepare else "usr/bin")).rename(made)

    make_once(kept, put)
    return kept
