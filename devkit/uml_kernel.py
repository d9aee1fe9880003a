"""A kernel of our own for User-Mode Linux, built from Debian's sources: with all that siblings need.

Debian's own `user-mode-linux` has nf_tables for bridges alone, and in Debian 12 and 13 it gives programs addresses
of 39 bits. This one is configured by `devkit/uml.config`, and what hosts may lack is a module.
"""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from devkit import engines
from devkit.floor import Lock

_SUITE = "sid"
"""User-Mode Linux has addresses of 48 bits from Linux 6.13 on, which is later than the one of Debian 13."""

_PACKAGES = ("linux-source", "gcc", "libc6-dev", "make", "flex", "bison", "bc", "kmod")

_CONFIGURATION = Path(__file__).with_name("uml.config")

# Without what takes most of the time to unpack. Kconfig reads a file in every folder.
_BUILD = """
mkdir /build
tar --extract --xz --file /usr/src/linux-source-*.tar.xz --directory /build --strip-components 1 --anchored \\
  --exclude '*/drivers/gpu/*.[ch]' --exclude '*/Documentation/*.rst' --exclude '*/tools/testing/*'
cd /build
make --silent ARCH=um KCONFIG_ALLCONFIG=/uml.config allnoconfig
grep '^CONFIG_' /uml.config | grep --fixed-strings --line-regexp --invert-match --file .config >/missing || :
if [ -s /missing ]; then echo "the kernel can't be configured like that:"; cat /missing; exit 1; fi
make --silent --jobs "$(nproc)" ARCH=um linux modules
mkdir /made
cp linux /made/
make --silent ARCH=um INSTALL_MOD_PATH=/made modules_install
"""


def own_kernel() -> Path:
    """Return a folder with `linux`, the kernel, and its modules in `lib/modules`. It is built if necessary."""
    digest = hashlib.sha256(_CONFIGURATION.read_bytes() + repr((_SUITE, _PACKAGES, _BUILD)).encode()).hexdigest()
    made = engines.ENGINE_ROOTS / f"uml-{digest[:16]}"
    if not made.exists():
        with Lock(made.with_name(f"{made.name}.lock")):  # another process may be at it
            _build(made)
    return made


def _build(made: Path) -> None:
    if made.exists():
        return
    print(f"building a kernel in {made}", flush=True)
    with tempfile.TemporaryDirectory(prefix=f"{made.name}-", dir=engines.ENGINE_ROOTS) as building:
        root = Path(building, "root")
        engines.bootstrap(_SUITE, root, _PACKAGES)
        shutil.copy(_CONFIGURATION, root / "uml.config")
        command = ["unshare", "--mount", "chroot", str(root), "sh", "-ec", f"mount -t proc proc /proc\n{_BUILD}"]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=3600
        )
        if done.returncode != 0:
            end = "\n".join(done.stdout.splitlines()[-20:])
            raise engines.EngineError(f"no kernel could be built: {end}")
        (root / "made").rename(made)  # only a complete folder gets its final name
