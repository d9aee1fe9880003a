"""Foreign resources are never removed, changed or disconnected, however similar they are to ours."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from docker import APIClient
from docker.types import Mount

from clawker_fw.stack import image_tar, labels
from devkit.firewall import Firewall
from devkit.peers import Peers


def parts(found: Mapping[str, str]) -> list[dict[str, str]]:
    pairs = tuple(found.items())
    return [dict(part) for size in range(len(pairs)) for part in itertools.combinations(pairs, size)]


class Foreign:
    """Foreign images, volumes, networks and containers, each with some of our labels."""

    def __init__(self, docker: APIClient, peers: Peers, project: str) -> None:
        self._docker = docker
        self.images = [self._load(part) for part in parts(image_tar.LABELS)]
        self.images.append(self._load(image_tar.LABELS, "clawker-agent/base"))
        self.images.append(self._load({**image_tar.LABELS, labels.PROJECT: project}))
        ours = labels.ownership_labels(project)
        self.volumes = [
            self._docker.create_volume(name=f"{project}-data{number}", labels=part)["Name"]
            for number, part in enumerate([*parts(ours), ours])
        ]
        self.networks = [
            self._docker.create_network(f"{project}-theirs{number}", labels=part, internal=True)["Id"]
            for number, part in enumerate([*parts(ours), ours])
        ]
        sibling = {**ours, labels.SIBLING: "envoy", labels.SLOT: "0"}
        every = {**sibling, **dict.fromkeys(labels.MADE_WITH[2:], "{}")}
        resolver = {**every, labels.SIBLING: "coredns"}
        some = [ours, {**ours, labels.SIBLING: "coredns"}, sibling, {labels.SIBLING: "envoy"}, {}, every, resolver]
        self.containers = [self._container(peers, part) for part in some]

    def _load(self, found: Mapping[str, str], name: str = "clawker-fw/lock") -> str:
        image = image_tar.BuiltImage(name, "theirs", self._docker.version()["Arch"], (), dict(found))
        list(self._docker.load_image(image.archive()))  # type: ignore[no-untyped-call]
        return image.reference

    def _container(self, peers: Peers, found: Mapping[str, str]) -> str:
        config: Any = self._docker.inspect_container(peers.start("wait", network="none").container)["Config"]
        identity = self._docker.create_container(
            config["Image"], command=["/peer", "wait"], labels=dict(found), volumes=["/fw"]
        )["Id"]
        self._docker.start(identity)
        return str(identity)

    def state(self) -> dict[str, Any]:
        """Return the current state of all of them. A missing one is an error."""
        return {
            "images": [self._docker.inspect_image(each)["Id"] for each in self.images],  # type: ignore[no-untyped-call]
            "volumes": [self._docker.inspect_volume(each) for each in self.volumes],
            "networks": [self._docker.inspect_network(each) for each in self.networks],
            "containers": [
                (found["State"]["StartedAt"], found["State"]["Running"], found["NetworkSettings"]["Networks"])
                for found in map(self._docker.inspect_container, self.containers)
            ],
        }

    def remove(self) -> None:
        for container in self.containers:
            self._docker.remove_container(container, force=True, v=True)
        for network in self.networks:
            self._docker.remove_network(network)
        for volume in self.volumes:
            self._docker.remove_volume(volume)
        for image in self.images:
            self._docker.remove_image(image)


@pytest.fixture
def foreign(docker: APIClient, peers: Peers, firewall: Firewall) -> Iterator[Foreign]:
    theirs = Foreign(docker, peers, firewall.project)
    yield theirs
    theirs.remove()


def test_nothing_of_others_is_touched(firewall: Firewall, docker: APIClient, foreign: Foreign) -> None:
    """Runs, replacements, clean-up and `down` leave them alone, but remove our image and volume."""
    before = foreign.state()
    old = image_tar.BuiltImage("clawker-fw/lock", "0", docker.version()["Arch"], ())
    list(docker.load_image(old.archive()))  # type: ignore[no-untyped-call]
    mount = Mount("/fw", None, labels=labels.ownership_labels(firewall.project))
    holder = docker.create_container(
        old.reference, entrypoint=["none"], host_config=docker.create_host_config(mounts=[mount])
    )
    lost = holder["Id"]
    (volume,) = [each["Name"] for each in docker.inspect_container(lost)["Mounts"]]
    docker.remove_container(lost, v=False)
    assert firewall.run().json["steps"]
    firewall.run("--force-recreate")
    left = {tag for image in docker.images() for tag in image["RepoTags"] or ()}
    assert old.reference not in left
    assert volume not in {each["Name"] for each in docker.volumes()["Volumes"]}
    assert foreign.state() == before
    firewall.call("down").expect()
    assert foreign.state() == before
