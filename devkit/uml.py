"""A machine of its own in User-Mode Linux, whose packet filter is the older iptables, for one command.

Its file system is this machine's, which it can only read; what it writes is in memory, except in one folder,
through which it answers. It has no network but its own loopback interface.

Debian's own `user-mode-linux` has nf_tables for bridges alone, and in Debian 12 and 13 it gives programs addresses
of 39 bits. So the kernel is built from Debian's sources, as `devkit/uml.config` says.
"""

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from string import Template

from devkit.engines import ENGINE_ROOTS, EngineError, bootstrap, install_client, install_engine
from devkit.kept import make_once
from devkit.peers import COMPILED_VARIABLE, peer_program
from devkit.programs import machine as architecture

PROJECT = Path(__file__).resolve().parent.parent

_CONFIGURATION = Path(__file__).with_name("uml.config")

_SUITE = "sid"
"""User-Mode Linux has addresses of 48 bits from Linux 6.13 on, which is later than the one of Debian 13."""

_PACKAGES = ("linux-source", "gcc", "libc6-dev", "make", "flex", "bison", "bc", "kmod")

# Without what takes most of the time to unpack. Kconfig reads a file in every folder.
_BUILD = """
mount -t proc proc /proc
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

_PARAMETERS = ("seccomp=on", "ncpus=2", "mem=3G", "con=null", "con0=null,fd:1")
"""The kernel's. With seccomp, it is several times as fast as with ptrace; earlier kernels pass over it."""


_SECONDS = 900


# Process 1 of the machine.
_INIT = r"""#!/bin/sh
export PATH=/run/bin:$PATH HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir -p /run/answer /run/bin /run/modules/lib /run/project
mount -t hostfs -o $ANSWER none /run/answer
exec >/run/answer/output 2>&1
cp -r $MODULES /run/modules/lib/modules
mount --bind $PROJECT /run/project
for each in /tmp /var/tmp /etc/docker; do mount -t tmpfs tmpfs $each; done
mkdir -p $PROJECT
mount --bind /run/project $PROJECT
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
printf '#!/bin/sh\nexec /sbin/modprobe -d /run/modules "$@"\n' >/run/bin/modprobe
chmod 755 /run/bin/modprobe
echo /run/bin/modprobe >/proc/sys/kernel/modprobe
for each in iptables ip6tables; do ln -s /usr/sbin/$each-legacy /run/bin/$each; done
ip link set lo up
cd /tmp
$COMMAND >/run/answer/text 2>&1
echo $? >/run/answer/code
sync
halt -f
"""


def run_in(command: Sequence[str]) -> None:
    """Boot a machine, and run a command in it.

    Raises:
        EngineError: with the end of what was printed, when the machine does not get so far, or the command fails.
    """
    install_engine()
    install_client()
    made = _own_kernel()
    with tempfile.TemporaryDirectory(prefix="uml-", dir="/var/tmp") as folder:
        answer, init = Path(folder, "answer"), Path(folder, "init")
        answer.mkdir()
        script = Template(_INIT).safe_substitute(
            COMMAND=shlex.join(["env", f"{COMPILED_VARIABLE}={peer_program(architecture())}", *command]),
            PROJECT=str(PROJECT),
            ANSWER=str(answer),
            MODULES=str(made / "lib/modules"),
        )
        init.write_text(script)
        init.chmod(0o755)
        _boot(made / "linux", init)
        code, *told = (answer / name for name in ("code", "output", "text"))
        if not code.exists() or int(code.read_text()):
            text = "".join(each.read_text() for each in told if each.exists())
            raise EngineError("the machine did not get to a good end:\n" + "\n".join(text.splitlines()[-40:]))


def _boot(kernel: Path, init: Path) -> None:
    root = ["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}"]
    ends_with_us = ["setpriv", "--pdeathsig", "KILL"]
    booted = subprocess.Popen(
        [*ends_with_us, str(kernel), *_PARAMETERS, *root],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(init.parent)},  # its memory is a file there
        start_new_session=True,
    )
    try:
        booted.wait(_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"the machine has not ended within {_SECONDS} s") from error
    finally:
        with suppress(ProcessLookupError):  # it has ended, with all that it started
            os.killpg(booted.pid, signal.SIGKILL)
        booted.wait()


def _own_kernel() -> Path:
    """Return a folder with `linux`, the kernel, and its modules in `lib/modules`. It is built if necessary."""
    digest = hashlib.sha256(_CONFIGURATION.read_bytes() + repr((_SUITE, _PACKAGES, _BUILD)).encode()).hexdigest()
    made = ENGINE_ROOTS / f"uml-{digest[:16]}"
    make_once(made, _build)
    return made


def _build(made: Path) -> None:
    root = made.with_name("root")
    bootstrap(_SUITE, root, _PACKAGES)
    shutil.copy(_CONFIGURATION, root / "uml.config")
    command = ["unshare", "--mount", "chroot", str(root), "sh", "-ec", _BUILD]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=3600
    )
    if done.returncode != 0:
        end = "\n".join(done.stdout.splitlines()[-20:])
        raise EngineError(f"no kernel could be built: {end}")
    (root / "made").rename(made)
