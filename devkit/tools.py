"""An image with this machine's network tools, for actions of an administrator in a container's network.

The tools run in a container that shares the other one's network namespace, so this works on every engine.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from docker import APIClient

from clawker_fw.stack.image_tar import BuiltImage, Entry
from devkit.engines import PATH, install
from devkit.host import load

_PACKAGES = {
    "ip": "iproute2",
    "tc": "iproute2",
    "iptables-nft": "iptables",
    "iptables-legacy": "iptables",
    "nft": "nftables",
}
_PROGRAMS = ("sh", "mv", *_PACKAGES)
_REFERENCE = "clawker-fw/tools"


def run_inside(client: APIClient, container: str, script: str) -> None:
    """Run a shell script in the network of a running container and among its processes.

    Raises:
        RuntimeError: with what the script has written, when it fails.
    """
    host = client.create_host_config(
        network_mode=f"container:{container}",
        pid_mode=f"container:{container}",
        cap_add=["NET_ADMIN", "NET_RAW", "SYS_PTRACE"],  # the last for /proc/1/root
        tmpfs={"/run": ""},  # for a lock
    )
    host |= {"MaskedPaths": [], "ReadonlyPaths": []}  # so that /proc/sys is writable
    code, said = _ran(client, script, host)
    if code != 0:
        raise RuntimeError(f"{script!r} ended with {code}: {said}")


def read_as(client: APIClient, user: str, container: str, path: str) -> str | None:
    """Read the first line of a file in a container's volume as a user without capabilities; None if it is denied.

    Raises:
        RuntimeError: when it can't be read for another reason.
    """
    host = client.create_host_config(volumes_from=[f"{container}:ro"], cap_drop=["ALL"])
    script = f'{{ read -r line || [ -n "$line" ]; }} <{shlex.quote(path)} && printf %s "$line"'
    code, said = _ran(client, script, host, user)
    if code != 0 and "Permission denied" not in said:
        raise RuntimeError(f"{path} can't be read: {said}")
    return said if code == 0 else None


def _ran(client: APIClient, script: str, host: dict[str, Any], user: str = "") -> tuple[int, str]:
    """Run a shell script in a container, and return its exit code and what it has written."""
    made = client.create_container(_image(client), ["sh", "-ec", script], host_config=host, user=user)["Id"]
    try:
        client.start(made)
        code = client.wait(made, timeout=60)["StatusCode"]
        return code, client.logs(made).decode(errors="replace")
    finally:
        client.remove_container(made, force=True)


def _image(client: APIClient) -> str:
    """Return the image, built from installed programs."""
    image = BuiltImage(_REFERENCE, "dev", client.version()["Arch"], _entries(), labels={})
    load(client, image)
    return image.reference


def libraries(files: Iterable[Path]) -> Iterator[Path]:
    """Yield the libraries that programs and other libraries need."""
    for each in files:
        listed = subprocess.run(["ldd", each], capture_output=True, text=True, check=False).stdout
        yield from map(Path, re.findall(r"(/\S+) \(0x", listed))


@cache
def _entries() -> tuple[Entry, ...]:
    """Return what is in the image, whose packages are installed if they are missing."""
    install(_PACKAGES)
    return tuple(Entry(str(path).lstrip("/"), path, 0o755) for path in sorted(set(_files())))


def _files() -> Iterator[Path]:
    """Find the programs, and the libraries that each of them needs."""
    programs = [Path(shutil.which(name, path=PATH) or name) for name in _PROGRAMS]
    yield from programs
    yield from libraries(programs)
    extensions = next(Path("/usr/lib").glob("*/xtables"))
    yield from extensions.glob("*.so")
