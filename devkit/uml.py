"""A machine of its own in User-Mode Linux, with an engine inside: its own kernel, modules and control groups.

The kernel is Debian's `user-mode-linux`. Its file system is this machine's, which it can only read; what it writes
is in memory, except in one folder, through which it answers. It has no network but its own loopback interface.
"""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devkit.engines import EngineError, install, install_client, install_engine

KERNEL = "linux.uml"

SOCKET = "/run/engine/docker.sock"
"""The engine's socket inside of the machine."""

ENGINE_NEEDS = (
    *("overlay", "veth", "bridge"),
    *("iptable_nat", "iptable_filter", "xt_MASQUERADE", "xt_conntrack", "xt_addrtype", "xt_nat"),
    *("nf_conntrack_netlink",),
)
"""The modules without which an engine does not start. Debian's kernel has them, but not nf_tables for IPv4."""

# Process 1 of the machine. The engine's packet filter is iptables's older one, whose modules the kernel has.
_INIT = r"""#!/bin/sh
export PATH=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp DOCKER_HOST=unix://$SOCKET
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for each in /run /tmp /var/tmp /etc/docker; do mount -t tmpfs tmpfs $each; done
mkdir -p /dev/pts /dev/shm /run/answer /run/bin /run/modules/lib /run/engine
mount -t devpts devpts /dev/pts
mount -t hostfs -o $ANSWER none /run/answer
exec >/run/answer/output 2>&1
ln -s /usr/lib/uml/modules /run/modules/lib/modules
printf '#!/bin/sh\nexec /sbin/modprobe -d /run/modules "$@"\n' >/run/bin/modprobe
chmod 755 /run/bin/modprobe
echo /run/bin/modprobe >/proc/sys/kernel/modprobe
for each in iptables ip6tables; do ln -s /usr/sbin/$each-legacy /run/bin/$each; done
ip link set lo up
modprobe -a $MODULES
echo '{}' >/run/engine/daemon.json
dockerd --config-file /run/engine/daemon.json --data-root /var/tmp/data --exec-root /run/engine/exec \
  -H $DOCKER_HOST --pidfile /run/engine/pid >/run/answer/engine.log 2>&1 &
until docker version >/dev/null 2>&1; do kill -0 $! || break; sleep 0.2; done
cd /tmp
$COMMANDS
sync
halt -f
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What a command in the machine has ended with, and printed on both streams."""

    code: int
    text: str


def ask_machine(
    commands: Mapping[str, Sequence[str]], files: Mapping[str, str], *, seconds: float = 600
) -> dict[str, Said]:
    """Boot a machine with an engine, run commands one after the other, and return what each has said, by name.

    `files` are written into the folder in which the commands run.

    Raises:
        EngineError: when the machine does not get so far.
    """
    install({KERNEL: "user-mode-linux", "modprobe": "kmod"})
    install_engine()
    install_client()
    with tempfile.TemporaryDirectory(prefix="uml-", dir="/var/tmp") as folder:
        answer = Path(folder, "answer")
        answer.mkdir()
        for name, text in files.items():
            (answer / name).write_text(text)
        steps = [
            "cp /run/answer/* . 2>/dev/null",
            *(
                f"{shlex.join(command)} >/run/answer/{name}.text 2>&1; echo $? >/run/answer/{name}.code"
                for name, command in commands.items()
            ),
        ]
        init = Path(folder, "init")
        replaced = {"SOCKET": SOCKET, "ANSWER": str(answer), "MODULES": " ".join(ENGINE_NEEDS)}
        script = _INIT.replace("$COMMANDS", "\n".join(steps))
        for name, value in replaced.items():
            script = script.replace(f"${name}", value)
        init.write_text(script)
        init.chmod(0o755)
        _boot(init, seconds)
        missing = [name for name in commands if not (answer / f"{name}.code").exists()]
        if missing:
            raise EngineError(f"the machine did not get to {', '.join(missing)}: {_end(answer)}")
        return {
            name: Said(int((answer / f"{name}.code").read_text()), (answer / f"{name}.text").read_text())
            for name in commands
        }


def _boot(init: Path, seconds: float) -> None:
    kernel = shutil.which(KERNEL) or KERNEL
    command = [kernel, "mem=3G", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}"]
    console = ["con=null", "con0=null,fd:1"]
    with (init.parent / "console").open("wb") as log:
        booted = subprocess.Popen(
            [*command, *console],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "TMPDIR": str(init.parent)},  # its memory is a file there
            start_new_session=True,
        )
        try:
            booted.wait(seconds)
        except subprocess.TimeoutExpired as error:
            os.killpg(booted.pid, 9)
            booted.wait()
            raise EngineError(f"the machine has not ended within {seconds:g} s") from error


def _end(answer: Path) -> str:
    text = "".join((answer / name).read_text() for name in ("output", "engine.log") if (answer / name).exists())
    return "\n".join(text.splitlines()[-20:])
