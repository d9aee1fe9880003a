"""A real registry (Debian's docker-registry) in the network of a private engine, on its loopback interface."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from docker import APIClient

from devkit.engines import PrivateEngine, install
from devkit.waiting import until

ADDRESS = "127.0.0.1:5000"
"""What the engine calls it; engines speak plain HTTP to registries on loopback."""

_CONFIG = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {folder}/data}}
  delete: {{enabled: true}}
http: {{addr: {address}}}
"""


@contextmanager
def registry(engine: PrivateEngine, folder: Path) -> Iterator[str]:
    """Give the address of an empty registry that ends with its user."""
    install({"docker-registry": "docker-registry"})
    config = folder / "registry.yml"
    config.write_text(_CONFIG.format(folder=folder, address=ADDRESS))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            engine.network_argv("docker-registry", "serve", str(config)), stdout=log, stderr=log
        )
    try:
        until(lambda: _answers(engine))
        yield ADDRESS
    finally:
        process.terminate()
        process.wait()


def _answers(engine: PrivateEngine) -> bool:
    host, port = ADDRESS.split(":")
    probe = ["bash", "-c", f"</dev/tcp/{host}/{port}"]
    return engine.run_in_network(probe, check=False).returncode == 0


def push(client: APIClient, image: str, repository: str) -> str:
    """Push an image of the engine to the registry, and return the reference that names it by digest."""
    client.tag(image, f"{ADDRESS}/{repository}", "pushed")
    lines: list[dict[str, Any]] = list(
        client.push(f"{ADDRESS}/{repository}", tag="pushed", stream=True, decode=True)
    )
    digests = [line["aux"]["Digest"] for line in lines if "Digest" in line.get("aux", {})]
    if not digests:
        raise RuntimeError(f"nothing was pushed: {lines[-1]}")
    client.remove_image(f"{ADDRESS}/{repository}:pushed")
    return f"{ADDRESS}/{repository}:pushed@{digests[0]}"
