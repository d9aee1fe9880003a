"""Listing containers for several stacks at the same time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from clawker_fw.engine.docker import DockerEngine
from clawker_fw.model.engines import EngineFacts
from clawker_fw.stack.labels import ownership_labels

THREADS = 4


class Client:
    """An engine with two labelled containers that answers all lists at the same time."""

    def __init__(self) -> None:
        self.inspected: list[str] = []
        self._lists = threading.Barrier(THREADS)

    def containers(self, **_: object) -> list[dict[str, Any]]:
        self._lists.wait(10)
        labels = ownership_labels("demo")
        return [{"Id": id_, "ImageID": "sha256:0", "Labels": labels, "State": "running"} for id_ in "ab"]

    def inspect_container(self, container: str) -> dict[str, Any]:
        self.inspected.append(container)
        time.sleep(0.05)  # so that another thread may do the same
        state = {"Status": "running"}
        return {
            "Id": container,
            "Name": "/it",
            "Image": "",
            "Created": "",
            "State": state,
            "Config": {},
            "HostConfig": {},
        }


def test_a_container_is_inspected_once_for_all_stacks() -> None:
    """With ten groups, each of ten threads would otherwise inspect the containers of all others."""
    client: Any = Client()
    engine = DockerEngine(client, EngineFacts("20.10.24", "1.41", "amd64"), (0, 0))
    with ThreadPoolExecutor(THREADS) as pool:
        lists = list(pool.map(lambda _: engine.listing(), range(THREADS)))
    assert [len(containers) for containers in lists] == [2] * THREADS
    assert sorted(client.inspected) == ["a", "b"]
