"""A machine of its own in User-Mode Linux: its own kernel, modules and control groups, for one command.

Its file system is this machine's, which it can only read; what it writes is in memory, except in one folder,
through which it answers. It has no network but its own loopback interface.
"""

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from devkit.engines import EngineError, install_client, install_engine
from devkit.peers import COMPILED_VARIABLE, peer_program
from devkit.programs import machine as architecture
from devkit.uml_kernel import own_kernel

PROJECT = Path(__file__).resolve().parent.parent

_PARAMETERS = ("seccomp=on", "ncpus=2", "mem=3G")
"""The kernel's. With seccomp, it is several times as fast as with ptrace; earlier kernels pass over it."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What is special about a machine.

    `parameters` are the kernel's, and it lacks the modules `without`.
    `control_groups` is their version. `older_iptables` is one whose packet filter is not nf_tables.
    """

    parameters: Sequence[str] = ()
    without: Sequence[str] = ()
    control_groups: int = 2
    older_iptables: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """What a command in the machine has ended with, and printed on both streams."""

    code: int
    text: str


# Process 1 of the machine.
_INIT = r"""#!/bin/sh
export PATH=/run/bin:$PATH HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
if [ $CONTROL_GROUPS = 2 ]; then mount -t cgroup2 cgroup2 /sys/fs/cgroup; else
  mount -t tmpfs tmpfs /sys/fs/cgroup
  for each in blkio cpu cpuacct cpuset devices freezer memory pids; do
    if grep -q "^$each.*1$" /proc/cgroups; then
      mkdir /sys/fs/cgroup/$each
      mount -t cgroup -o $each cgroup /sys/fs/cgroup/$each
    fi
  done
fi
mount -t tmpfs tmpfs /run
mkdir -p /run/answer /run/bin /run/modules/lib /run/project
mount -t hostfs -o $ANSWER none /run/answer
exec >/run/answer/output 2>&1
cp -r $MODULES /run/modules/lib/modules
for each in $WITHOUT; do find /run/modules -name "$each.ko*" -delete; done
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
for each in iptables ip6tables; do ln -s /usr/sbin/$each-$VARIANT /run/bin/$each; done
ip link set lo up
cd /tmp
$COMMAND >/run/answer/text 2>&1
echo $? >/run/answer/code
sync
halt -f
"""


def run_in(machine: Machine, command: Sequence[str], *, seconds: float = 900) -> Said:
    """Boot a machine, run a command in it, and return what it has said.

    Raises:
        EngineError: when the machine does not get so far.
    """
    install_engine()
    install_client()
    made = own_kernel()
    with tempfile.TemporaryDirectory(prefix="uml-", dir="/var/tmp") as folder:
        answer = Path(folder, "answer")
        answer.mkdir()
        compiled = peer_program(architecture())
        replaced = {
            "COMMAND": shlex.join(["env", f"{COMPILED_VARIABLE}={compiled}", *command]),
            "CONTROL_GROUPS": str(machine.control_groups),
            "PROJECT": str(PROJECT),
            "ANSWER": str(answer),
            "MODULES": str(made / "lib/modules"),
            "WITHOUT": " ".join(machine.without),
            "VARIANT": "legacy" if machine.older_iptables else "nft",
        }
        script = _INIT
        for name, value in replaced.items():
            script = script.replace(f"${name}", value)
        init = Path(folder, "init")
        init.write_text(script)
        init.chmod(0o755)
        _boot([str(made / "linux"), *machine.parameters], init, seconds)
        if not (answer / "code").exists():
            raise EngineError(f"the machine did not get to the end: {_end(answer)}")
        return Said(int((answer / "code").read_text()), (answer / "text").read_text())


def _boot(kernel: Sequence[str], init: Path, seconds: float) -> None:
    root = ["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}"]
    console = ["con=null", "con0=null,fd:1"]
    ends_with_us = ["setpriv", "--pdeathsig", "KILL"]
    with (init.parent / "console").open("wb") as log:
        booted = subprocess.Popen(
            [*ends_with_us, *kernel, *_PARAMETERS, *root, *console],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "TMPDIR": str(init.parent)},  # its memory is a file there
            start_new_session=True,
        )
        try:
            booted.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"the machine has not ended within {seconds:g} s") from error
        finally:
            with suppress(ProcessLookupError):  # it has ended, with all that it started
                os.killpg(booted.pid, signal.SIGKILL)
            booted.wait()


def _end(answer: Path) -> str:
    text = "".join((answer / name).read_text() for name in ("output", "text") if (answer / name).exists())
    return "\n".join(text.splitlines()[-20:])
