"""Other programs to compare with: this one with its limits off, and the release before it had any."""

import io
import resource
import subprocess
import tarfile
from pathlib import Path

from devkit.programs import machine
from devkit.stacks import CHECKOUT, change_file, copied_release
from hatch_build import PROGRAMS, compile_program

UNLIMITED = dict.fromkeys(
    ("connections", "connections_per_second", "queries_per_second", "resolver_connections"), 100_000
)
"""The highest `limits` that the settings accept."""

_FIRST_OF_THE_ATTACK_SUITE = "tests/attack"

_OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
"""The most that a private engine can give a container: it inherits this process's hard limit."""

_ENVOY_DEFAULTS = f"""
BUFFER = 1 << 20
HEADERS_KIBIBYTES = 60
HELLO_SECONDS = 15
INNER_BUFFER = PIPE = 1 << 20
LOOKUPS = 1_000_000


def room(memory, processors):
    return 1_000_000


def bounds(capacity):
    return Bounds(1 << 40, capacity.connections, {_OPEN_FILES})
""".encode()
"""What Envoy does by default, and an overload manager that never acts. The container's memory stays limited:
without that, the machine would be what is exhausted."""

_WITHOUT_FORWARDER = """
_forwarded = resolver


def resolver():
    config = _forwarded()
    del config["typed_config"]["resolvers"]
    return config
"""

_COREDNS_DEFAULTS = f"""
_OWN_FILES = {_OPEN_FILES} - 1_000_000


def _room(memory, processors):
    return 1_000_000
""".encode()


def without_limits(folder: Path) -> Path:
    """Copy this release into a folder, with what bounds Envoy and CoreDNS removed. Return the folder."""
    release = copied_release(folder)
    stack = release.package / "stack"
    change_file(stack / "envoy/bounds.py", lambda text: text + _ENVOY_DEFAULTS)
    change_file(stack / "envoy/lookups.py", lambda text: text + _WITHOUT_FORWARDER.encode())
    change_file(stack / "coredns.py", lambda text: text + _COREDNS_DEFAULTS)
    return folder


def before_limits(folder: Path) -> Path | None:
    """Check out and compile the last commit before the attack suite. Return None if there is no history."""
    added = _git("log", "--diff-filter=A", "--format=%H", "--reverse", "--", _FIRST_OF_THE_ATTACK_SUITE)
    archive = _git("archive", f"{added.split()[0].decode()}^") if added.split() else b""
    if not archive:
        return None
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    for program in PROGRAMS:
        target = folder / "clawker_fw" / "bin" / f"{program}-linux-{machine()}"
        compile_program(folder / "go" / program, target, machine())
    return folder


def _git(*arguments: str) -> bytes:
    """Return the output of a git command in the checkout, or nothing if it fails."""
    try:
        return subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""
