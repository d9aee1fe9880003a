"""This machine's tools in containers: for actions of an administrator, and of a user without capabilities."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from docker import APIClient

from clawker_fw.stack.image_tar import BuiltImage, Entry
from devkit.engines import PATH, install, run
from devkit.host import load
from devkit.processes import processes

_PACKAGES = {
    "ip": "iproute2",
    "tc": "iproute2",
    "iptables-nft": "iptables",
    "iptables-legacy": "iptables",
    "nft": "nftables",
}


def run_inside(client: APIClient, container: str, script: str) -> None:
    """Run a script in a container's network and among its processes, or raise `EngineError` with its output."""
    install(_PACKAGES)
    process = next(processes(client, container))
    enter = ["nsenter", f"--net={process}/ns/net", f"--pid={process}/ns/pid", "unshare", "--mount"]
    run([*enter, "sh", "-ec", f"mount -t proc proc /proc\n{script}"])


def read_as(client: APIClient, user: str, container: str, path: str) -> str | None:
    """Read a file's first line in a container's volume as a user without capabilities; None if that is denied."""
    host = client.create_host_config(volumes_from=[f"{container}:ro"], cap_drop=["ALL"])
    script = f'{{ read -r line || [ -n "$line" ]; }} <{shlex.quote(path)} && printf %s "$line"'
    shell = Path(shutil.which("sh", path=PATH) or "sh")
    files = sorted({shell, *libraries([shell])})
    entries = tuple(Entry(str(path).lstrip("/"), path, 0o755) for path in files)
    image = BuiltImage("clawker-fw/tools", "dev", client.version()["Arch"], entries, labels={})
    load(client, image)
    made = client.create_container(image.reference, ["sh", "-c", script], host_config=host, user=user)["Id"]
    try:
        client.start(made)
        code = client.wait(made, timeout=60)["StatusCode"]
        said = client.logs(made).decode(errors="replace")
    finally:
        client.remove_container(made, force=True)
    if code != 0 and "Permission denied" not in said:
        raise RuntimeError(f"{path} can't be read: {said}")
    return said if code == 0 else None


def libraries(files: Iterable[Path]) -> Iterator[Path]:
    for each in files:
        listed = subprocess.run(["ldd", each], capture_output=True, text=True, check=False).stdout
        yield from map(Path, re.findall(r"(/\S+) \(0x", listed))
