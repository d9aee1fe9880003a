"""Private Docker engines for tests, the demo and the benchmarks. Nothing here depends on the firewall.

An engine has its own network, mount, process and UTS namespaces, so killing process 1 ends everything at once. A
small shell outside, the keeper, waits for that end and removes the rest: the name of the network namespace, the
control groups, the folder. New network namespaces inherit the engine's settings, as on a host (`engine.sh`).
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from devkit import moby_engine
from devkit.floor import lock
from devkit.kept import KEPT, make_once
from devkit.starting import StartError, pings, wait_for

ENGINE_ROOTS = KEPT / "engines"
APT_LOCK = KEPT / "apt.lock"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR_VARIABLE = "DEVKIT_DEBIAN_MIRROR"
# After `su` without `-`, PATH lacks the folders in which Debian installs the programs that are started here.
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
# Seconds that removing an engine may take: with an image of a gigabyte, a minute where the disk is busy.
_REMOVAL = 300.0
# The longest path of a socket in an engine's folder must fit into sockaddr_un (108 bytes).
LONGEST_FOLDER = 107 - len("/exec/containerd/containerd.sock.ttrpc")


class EngineError(RuntimeError):
    """A private engine could not be prepared, started or removed, for the reason in the message."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of engine: version, Debian suite, additions to daemon.json. `moby_engine` compiles a built one."""

    name: str
    suite: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    built: bool = False


OTHER_RUNTIME = "runc-by-another-name"
"""A second runtime of private engines, with which a test can create a container by hand."""

# It is set, because the default depends on the version.
_CLASSIC_STORE = {"features": {"containerd-snapshotter": False}}

_AROUND = {"ip": "iproute2", "iptables": "iptables"}
"""What makes an engine's network and changes it from outside: programs of this machine, with their packages."""

FORWARDING = {"net.ipv4.ip_forward": "1"}
"""What every engine sets for its host, unless it is told not to."""

_ROOM, _MEMORY_FOR_DATA = "12g", 16 << 30
"""The most that an engine's data may take of the memory, and the machine's octets from which on it is there."""

INSTALLED = Kind("installed")
USUAL = "28.5.2"
"""The kind on which tests run that are about no kind: what most people have. It also takes a quarter less time
than the oldest: dockerd 20.10 starts itself anew for each archive that goes into or out of a container."""

MATRIX = (
    Kind("20.10.24", "bookworm"),
    Kind("28.5.2", "sid", _CLASSIC_STORE),
    # the store is containerd's, or the classic one where an earlier engine has kept its images
    Kind("29", "sid", {"firewall-backend": "iptables"}, built=True),
    Kind("29-nftables", "sid", {"firewall-backend": "nftables"}, built=True),
)
KINDS = tuple(kind.name for kind in MATRIX)
_OF_NAME = {kind.name: kind for kind in (INSTALLED, *MATRIX)}

_SHELL = Path(__file__).with_name("engine.sh").read_text("utf-8")
"""Functions for `sh`, which are called in the line after it."""


class PrivateEngine:
    """One engine. Its folder contains all of its state, and is enough to find it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        if len(str(self.folder)) > LONGEST_FOLDER:
            raise EngineError(f"longer than the {LONGEST_FOLDER} characters unix sockets allow: {self.folder}")
        self._socket = self.folder / "docker.sock"
        self.host = f"unix://{self._socket}"
        self.netns = f"engine-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]}"
        self._names = {
            "PATH": f"{self.folder}/bin:{PATH}",
            "NETNS": self.netns,
            "FOLDER": str(self.folder),
            "CHECKOUT": str(Path(__file__).resolve().parents[1]),
            "TEMPORARY": tempfile.gettempdir(),
        }
        self._keeper: subprocess.Popen[str] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None

    def configure(self, settings: Mapping[str, object], hosts: Sequence[str] = ()) -> None:
        """Prepare a new or empty folder with the daemon's settings, and `hosts` beside its socket."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.iterdir()):
            raise EngineError(f"{self.folder} is not empty, and destroying the engine would delete it")
        self.folder.chmod(0o711)  # a daemon with remapped users reads it as another user
        daemon = {
            "hosts": [self.host, *hosts],
            "data-root": f"{self.folder}/data",
            "exec-root": f"{self.folder}/exec",
            "pidfile": f"{self.folder}/pid",
            "cgroup-parent": f"/{self.netns}",
            "runtimes": {OTHER_RUNTIME: {"path": "runc"}},
            # systemd would receive pids of another namespace
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
        }
        (self.folder / "daemon.json").write_text(json.dumps({**daemon, **settings}, indent=2))
        (self.folder / "bin").mkdir()

    def hold(self, root: Path, name: str) -> None:
        """Create the engine's namespaces, which end with this process. `name` is its host's, if not this one's."""
        self._keeper = subprocess.Popen(
            ["sh", "-c", f"{_SHELL}\nkeep"],
            env=self._names | {"ROOT": str(root), "INIT": f"{_SHELL}\ninit", "HOSTNAME": name},
            cwd="/",
            # our end of the pipe closes when this process ends, however it ends
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self._keeper.stdout is not None  # noqa: S101 - for the type checker: PIPE was given
        first = self._keeper.stdout.readline()
        if not first.strip().isdigit():
            raise EngineError(f"no namespaces can be made: {first}{self._keeper.stdout.read()}".strip())
        (self.folder / "init").write_text(first)

    @property
    def init(self) -> int | None:
        """The pid of the engine's process 1, or None if it is gone, even if its pid has been reused."""
        try:
            pid = int((self.folder / "init").read_text())
            ours = Path(f"/proc/{pid}/ns/net").samefile(f"/run/netns/{self.netns}")
        except (OSError, ValueError):
            return None
        return pid if ours else None

    @property
    def root(self) -> Path:
        """The file system as the engine sees it; its API's pids are those of ``root / "proc"``."""
        return Path(f"/proc/{self.init}/root")

    def mount_data(self, size: str) -> None:
        """Give the engine's data a file system of its own, in memory, of a size such as `400m`."""
        data = f"{self.folder}/data"
        run([*self._nsenter(), "mkdir", "-p", data])
        run([*self._nsenter(), "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", data])

    def set_host(self, sysctls: Mapping[str, str]) -> None:
        """Set sysctls of the engine's network, which its containers must inherit, or raise `EngineError`."""
        for name, value in sysctls.items():
            self.run_in_network(["sysctl", "--quiet", "--write", f"{name}={value}"])
            if (found := inherited(self.network_argv(), name)) != value:
                raise EngineError(f"containers of a private engine start with {name}={found}, not {value}")

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            command = ["dockerd", "--config-file", f"{self.folder}/daemon.json"]
            self._daemon = subprocess.Popen(
                ["sh", "-c", f'{_SHELL}\nstart "$@"', "sh", *self._nsenter(), *command],
                env=self._names,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_for(self._daemon, lambda: pings(self._socket), self.folder / "log")
        except StartError as error:
            raise EngineError(f"there is no engine on {self.host}: {error}") from error

    def stop(self) -> None:
        """Stop dockerd as a service manager does. Containers stop with it, unless live-restore is on."""
        self._signal("TERM")

    def kill(self) -> None:
        self._signal("KILL")
        (self.folder / "pid").unlink(missing_ok=True)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _signal(self, name: str) -> None:
        if self.init is not None:
            command = ["sh", "-c", f'{_SHELL}\nsignal "$@"', "sh", f"{self.folder}/pid", name]
            run([*self._nsenter(), *command], timeout=90)
        if self._daemon is not None:
            self._daemon.wait()
            self._daemon = None

    def _nsenter(self) -> list[str]:
        if self.init is None:
            raise EngineError(f"there is no engine in {self.folder}")
        return ["nsenter", f"--target={self.init}", "--mount", "--net", "--pid", "--uts"]

    def destroy(self) -> None:
        """Remove the engine with everything that it created and its folder, in whatever state it is."""
        if (pid := self.init) is not None:
            os.kill(pid, signal.SIGKILL)
        if self._keeper is not None:
            self._keeper.communicate(timeout=_REMOVAL)
        if self._daemon is not None:
            self._daemon.wait()
        self._keeper = self._daemon = None
        # once more, in case the keeper was killed, and to report errors
        run(["sh", "-ec", f"{_SHELL}\nclean"], env=self._names)

    def network_argv(self, *argv: str) -> list[str]:
        """Return the command that runs a program of this machine in the engine's network namespace."""
        return ["nsenter", f"--net=/run/netns/{self.netns}", *argv]

    def answers(self, place: str) -> bool:
        probe = ["bash", "-c", f"</dev/tcp/{place.replace(':', '/')}"]
        return self.run_in_network(probe, check=False).returncode == 0

    def run_in_network(
        self, argv: Sequence[str], *, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        command = self.network_argv(*argv)
        return subprocess.run(command, input=stdin, check=check, capture_output=True, text=True, timeout=60)


def inherited(command: list[str], setting: str) -> str:
    """Return a sysctl below ``net`` of a new network namespace. `command` runs a program in the engine's."""
    read = [*command, "unshare", "--net", "cat", f"/proc/sys/{setting.replace('.', '/')}"]
    return subprocess.run(read, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def machine_root(host: str) -> Path:
    """Return the file system of a Docker host as the engine sees it: a private one's, or this machine's."""
    engine = PrivateEngine(Path(host.removeprefix("unix://")).parent)
    return engine.root if engine.init is not None else Path("/")


@contextlib.contextmanager
def private_engine(
    kind: str = USUAL,
    *,
    folder: Path | None = None,
    dns: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
    hosts: Sequence[str] = (),
    data: Path | None = None,
    sysctls: Mapping[str, str] = FORWARDING,
    commands: Sequence[Sequence[str]] = (),
    disk: str = "",
    name: str = "",
    programs: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[PrivateEngine]:
    """Yield a started engine and destroy it afterwards, even if this process is killed.

    `settings` are for daemon.json, `hosts` are further listening addresses, `sysctls` are of its network, and
    `commands` run there before the engine starts. `data` is a stopped engine's data folder, at the same path, as
    after an upgrade. `disk` is the size of its data's file system, in memory; without a `folder` there is a
    large one, if this machine has the memory. `name` is its host's. `programs` are what it calls by other names.
    """
    disk = disk or ("" if folder or data else _room_in_memory())
    of_kind = _OF_NAME[kind]
    root = prepare(kind)
    # not the default folder for temporary files, whose path may be long and which may be in memory
    engine = PrivateEngine(folder or Path(tempfile.mkdtemp(prefix="engine-", dir="/var/tmp")))
    engine.configure({**of_kind.settings, "dns": list(dns), **(settings or {})}, hosts)
    for called, program in programs.items():
        (engine.folder / "bin" / called).symlink_to(Path("/usr/sbin", program))
    try:
        if data:
            shutil.move(data, engine.folder / "data")
        engine.hold(root, name)
        engine.set_host(sysctls)
        if disk:
            engine.mount_data(disk)
        for command in commands:
            engine.run_in_network(command)
        engine.start()
        yield engine
    finally:
        engine.destroy()


def _room_in_memory() -> str:
    """Return how much memory an engine's data may take, or "" for the disk.

    On a disk, writing and removing the many files of images takes longer than most tests.
    """
    return _ROOM if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >= _MEMORY_FOR_DATA else ""


def available(kind: str = USUAL) -> str | None:
    """Return a sentence on why an engine of this kind can't run here now, or None if it can."""
    if sys.platform != "linux":
        return "private engines need Linux"
    if os.geteuid() != 0:
        return "private engines need root"
    root = _root(_OF_NAME[kind])
    tools = ["ip", "nsenter", "unshare", *(["dockerd", "iptables"] if root is None else [])]
    if missing := [tool for tool in tools if not shutil.which(tool, path=PATH)]:
        return f"not installed: {', '.join(missing)}"
    if root is not None and not root.exists():
        return f"the {kind} engine is not prepared, which --require-engine does"
    try:
        run(["unshare", "--mount", "--net", "--pid", "--fork", "true"])
    except EngineError as error:
        return f"no namespaces can be made: {error}"
    return None


def prepare(name: str) -> Path:
    """Make a kind of engine ready to be started without a network. Return the root folder of its programs."""
    kind = _OF_NAME[name]
    root = _root(kind)
    if root is None:
        install({"dockerd": "docker.io", **_AROUND})
        return Path("/")
    install(_AROUND)
    if kind.suite and not root.exists():
        make_once(root, functools.partial(_put_compiled if kind.built else _put_packaged, kind.suite))
    return root


def _root(kind: Kind) -> Path | None:
    if kind.built:
        return ENGINE_ROOTS / moby_engine.root_name()
    return None if kind.suite is None or f" {kind.name}" in _installed_version() else ENGINE_ROOTS / kind.suite


def _installed_version() -> str:
    dockerd = shutil.which("dockerd", path=PATH)
    return run([dockerd, "--version"]) if dockerd else ""


def install_client() -> None:
    """Install the docker CLI, which is part of the engine's package in some Debian suites."""
    install({"docker": "docker.io"})
    install({"docker": "docker-cli"})


def _put_packaged(suite: str, root: Path) -> None:
    bootstrap(suite, root, ["docker.io", "iptables", *moby_engine.PACKAGES])


def _put_compiled(suite: str, root: Path) -> None:
    """Put an engine from sources into a root folder with all else of a suite, in minutes."""
    packaged = ENGINE_ROOTS / suite
    make_once(packaged, functools.partial(_put_packaged, suite))
    run(["cp", "--archive", "--link", str(packaged), str(root)])  # nothing is written into a file of a root
    moby_engine.put_engine(root)


def bootstrap(suite: str, root: Path, packages: Sequence[str]) -> None:
    install({"debootstrap": "debootstrap", KEYRING: "debian-archive-keyring"})
    # In a namespace: an interrupted debootstrap leaves /proc and /sys mounted in a folder that we delete.
    command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--keyring={KEYRING}"]
    # The script is named because an old debootstrap does not know newer suites. It fits all of them.
    what = [suite, str(root), mirror(), "/usr/share/debootstrap/scripts/sid"]
    run([*command, f"--include={','.join(packages)}", *what], timeout=900)


def mirror() -> str:
    """Return the Debian mirror that this machine uses, or "", which is debootstrap's own choice."""
    if mirror := os.environ.get(MIRROR_VARIABLE):
        return mirror
    targets = run(["apt-get", "indextargets", "--format", "$(LABEL) $(COMPONENT) $(REPO_URI)"])
    found = re.search(r"^Debian main (\S+)$", targets, re.MULTILINE)
    if found is None:
        return ""
    # In Debian's cloud images, sources refer to a file with the mirrors.
    scheme, _, place = found[1].partition(":")
    return Path(place).read_text().split()[0] if scheme == "mirror+file" else found[1]


def install(wanted: Mapping[str, str]) -> None:
    if not _missing(wanted):
        return
    with lock(APT_LOCK):  # another process may have been installing them
        if packages := _missing(wanted):
            names = " ".join(packages)
            sudo = [] if os.geteuid() == 0 else ["sudo"]
            if not all(shutil.which(tool, path=PATH) for tool in ("apt-get", *sudo)):
                raise EngineError(f"please install {names}: it takes root, or sudo, and apt-get to do it for you")
            print(f"installing {names}", file=sys.stderr, flush=True)
            run([*sudo, "sh", "-ec", f'{_SHELL}\ninstall_packages "$@"', "sh", *packages], timeout=900)


def _missing(wanted: Mapping[str, str]) -> list[str]:
    return [wanted[name] for name in wanted if not shutil.which(name, path=PATH, mode=os.F_OK)]


def run(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, timeout: float = 60) -> str:
    """Run a program to its end, and return its output, or raise `EngineError` with it."""
    env = env or {**os.environ, "PATH": PATH}
    try:
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{argv[0]} has not ended within {timeout} s") from error
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise EngineError(f"{argv[0]} failed with {done.returncode}: {tail}")
    return done.stdout
