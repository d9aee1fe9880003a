"""A virtual machine with version 2 of control groups, in which the same benchmarks run.

It has a kernel of Debian, and this machine's file system with a disk of its own above it, so it changes no file of
this machine except the results. It has no network but loopback.

Without KVM, QEMU emulates the processor, and everything takes at least ten times as long.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.figures import RESULTS
from devkit.debian_programs import unpacked
from devkit.engines import INSTALLED, PATH, EngineError, install, prepare

OPTION = "--cgroup2"
PROCESSORS, MEMORY, DISK = 2, "8G", "24G"
SUFFIX = "-cgroup2"
"""What the names of its results end with."""

_TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "mkfs.ext4": "e2fsprogs"}
_SUITE = "bookworm"
"""The last one whose kernel has modules that are not compressed, which busybox loads."""

_PASSED = ("HOME", "LANG", "PATH", "VIRTUAL_ENV", "XDG_CACHE_HOME")

_PREPARE = """
version=$(ls lib/modules)
bin/busybox depmod -b . "$version"
ln -s busybox bin/modprobe
cp boot/vmlinuz-* kernel
"""

_INITRAMFS = """
cd "$1"/lib/modules/*
inside="$2$(pwd | sed 's#.*/lib/#/lib/#')"
mkdir -p "$inside" "$2/bin" "$2/dev" "$2/proc" "$2/lower" "$2/disk" "$2/system"
cp "$1/bin/busybox" "$2/bin"
cp modules.dep "$inside"
for module in virtio_pci virtio_blk crc32c_generic ext4 9pnet_virtio 9p overlay; do
  sed -n "s#^\\(kernel/.*/$module\\.ko\\):#\\1#p" modules.dep | xargs cp --parents -t "$inside"
done
cd "$2"
find . | bin/busybox cpio -o -H newc >"$3"
"""
"""Its arguments are the folder of the packages, the one of the files, and the archive."""

_INIT = """#!/bin/busybox sh
set -e
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
modprobe -a virtio_pci virtio_blk crc32c_generic ext4 9pnet_virtio 9p overlay
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose machine /lower
mount /dev/vda /disk
mkdir /disk/upper /disk/work /disk/tmp
mount -t overlay -o lowerdir=/lower,upperdir=/disk/upper,workdir=/disk/work overlay /system
mount --bind /disk/tmp /system/var/tmp  # layers of Docker can't be on an overlay
mkdir -p /system/lib/modules /system/shared
mount --bind "/lower$KEPT/lib/modules" /system/lib/modules
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 shared /system/shared
mount -t proc proc /system/proc
mount -t sysfs sysfs /system/sys
mount -t devtmpfs dev /system/dev
mount -t tmpfs tmpfs /system/run
mkdir -p /system/dev/pts /system/dev/shm
mount -t devpts devpts /system/dev/pts
mount -t tmpfs tmpfs /system/dev/shm
mount -t cgroup2 cgroup2 /system/sys/fs/cgroup
echo +cpuset +cpu +io +memory +pids >/system/sys/fs/cgroup/cgroup.subtree_control
echo "$KEPT/bin/modprobe" >/system/proc/sys/kernel/modprobe
ip link set lo up
hostname cgroup2
stty -opost </dev/console
umount /proc
exec switch_root /system /bin/sh /shared/run
"""

_RUN = """
cd {checkout}
rm -rf {results}  # only in the machine
mkdir {results}
env -i {environment} {command} </dev/null
echo $? >/shared/exit
cp -r {results} /shared/
sync
{kept}/bin/busybox poweroff -f
"""


def run(arguments: Sequence[str], kind: str | None) -> int:
    """Run `python -m bench` with these arguments in the machine, and return its exit code.

    The `kind` of engine that it starts there is prepared here, because nothing can be downloaded there.
    """
    if not _has_kvm():
        print("QEMU emulates the processor, because KVM can't run Debian's kernel here", file=sys.stderr)
    install(_TOOLS)
    prepare(kind or INSTALLED.name)
    kept = unpacked("linux-image-amd64", "busybox-static", suite=_SUITE, prepare=_PREPARE)
    with tempfile.TemporaryDirectory(prefix="machine-", dir="/var/tmp") as place:
        folder = Path(place)
        shared, files = folder / "shared", folder / "files"
        for made in (shared, files):
            made.mkdir()
        (shared / "run").write_text(_script(arguments, kept))
        (files / "init").write_text(_INIT.replace("$KEPT", str(kept)))
        (files / "init").chmod(0o755)
        _done("sh", "-ec", _INITRAMFS, "sh", str(kept), str(files), str(folder / "initramfs"))
        _done("truncate", f"--size={DISK}", str(folder / "disk"))
        _done("mkfs.ext4", "-q", str(folder / "disk"))
        _done(*_command(kept, folder, shared), capture=False)
        code = shared / "exit"
        if not code.exists():
            raise EngineError("the virtual machine has ended before the benchmark: see its output")
        RESULTS.mkdir(exist_ok=True)
        for result in shared.glob("results/*.json"):
            shutil.copy(result, RESULTS / f"{result.stem}{SUFFIX}.json")
        return int(code.read_text())


def _script(arguments: Sequence[str], kept: Path) -> str:
    environment = [f"{name}={os.environ[name]}" for name in _PASSED if name in os.environ]
    return _RUN.format(
        checkout=shlex.quote(str(RESULTS.parents[1])),
        environment=shlex.join(environment),
        command=shlex.join([sys.executable, "-m", "bench", *arguments]),
        results=shlex.quote(str(RESULTS)),
        kept=shlex.quote(str(kept)),
    )


def _command(kept: Path, folder: Path, shared: Path) -> list[str]:
    place = "local,security_model=none,multidevs=remap"
    return [
        "qemu-system-x86_64",
        *(("-accel", "kvm", "-cpu", "host") if _has_kvm() else ("-accel", "tcg,thread=multi", "-cpu", "max")),
        *("-smp", str(PROCESSORS), "-m", MEMORY),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-nic", "none"),
        *("-display", "none", "-serial", "stdio"),
        *("-kernel", str(kept / "kernel"), "-initrd", str(folder / "initramfs")),
        *("-append", "console=ttyS0 no_timer_check quiet panic=-1"),
        *("-drive", f"file={folder / 'disk'},if=virtio,format=raw,cache=unsafe"),
        *("-virtfs", f"{place},path=/,mount_tag=machine,readonly=on"),
        *("-virtfs", f"{place},path={shared},mount_tag=shared"),
    ]


def _has_kvm() -> bool:
    """Whether KVM can run a kernel of Debian: one on page tables alone (PVM) only runs kernels made for it."""
    return os.access("/dev/kvm", os.R_OK | os.W_OK) and not Path("/sys/module/kvm_pvm").exists()


def _done(*command: str, capture: bool = True) -> None:
    path = {**os.environ, "PATH": PATH}
    done = subprocess.run(
        command, env=path, stdin=subprocess.DEVNULL, capture_output=capture, text=True, check=False
    )
    if done.returncode != 0:
        raise EngineError(f"{command[0]} failed with {done.returncode}: {done.stderr or ''}")
