"""The calls that bring up a stack on an empty engine, made one by one with the SDK: the lower bound of `run`.

A folder contains everything that the calls need: image tars, request bodies, and files for each volume.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import docker

FWCTL = "/fw/bin/fwctl"


def up(host: str, folder: Path) -> None:
    """Load the images, create the networks and containers, and wait until both programs answer."""
    client = docker.APIClient(base_url=host, version="auto", timeout=60)
    plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    for name in plan["images"]:
        with (folder / name).open("rb") as tar:
            for line in client.load_image(tar):  # type: ignore[no-untyped-call]
                if "error" in line:
                    raise SystemExit(line["error"])
    for network in plan["networks"]:
        client.create_network(**network)
    for name, container in plan["containers"].items():
        made = client.create_container_from_config(container["body"], name)["Id"]  # type: ignore[no-untyped-call]
        for network, address in container["networks"].items():
            client.connect_container_to_network(made, network, ipv4_address=address)
        client.put_archive(made, "/fw", (folder / f"{name}.tar").read_bytes())
        client.start(made)
    for name in plan["containers"]:
        while not _answers(client, name):
            time.sleep(0.03)


def _answers(client: docker.APIClient, name: str) -> bool:
    identity = client.exec_create(name, [FWCTL, "probe"])["Id"]
    output, _ = client.exec_start(identity, demux=True)
    if client.exec_inspect(identity)["ExitCode"] != 0:
        return False
    report = json.loads(output or "")
    return not report["error"] and not report["network"]


if __name__ == "__main__":
    up(sys.argv[1], Path(sys.argv[2]))
