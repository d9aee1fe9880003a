"""What somebody with `docker` in their hands can do to a stack: the ways of tampering, on a real engine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from docker import APIClient

from clawker_fw.engine import archive
from clawker_fw.stack.container import VOLUME
from devkit.firewall import Firewall

Body = dict[str, Any]
"""A container's configuration as `POST /containers/create` takes it."""


@dataclass(frozen=True)
class Recipe:
    """A container to make: its configuration, further networks with its address there, a tar for its volume."""

    body: Body
    networks: dict[str, str]
    files: bytes


@dataclass(frozen=True)
class Hand:
    """The hand of a user, on one stack."""

    docker: APIClient
    firewall: Firewall

    def name(self, sibling: str) -> str:
        """Return a sibling's container."""
        return self.firewall.container(sibling)

    def inspect(self, sibling: str) -> Any:  # noqa: ANN401 - the engine's JSON
        """Return what `docker inspect` shows."""
        return self.docker.inspect_container(self.name(sibling))

    def write(self, sibling: str, path: str, content: bytes) -> None:
        """Change a file in the volume in place, as `docker cp` does."""
        self.docker.put_archive(self.name(sibling), VOLUME, archive.pack({path: content}))

    def read(self, sibling: str) -> dict[str, bytes]:
        """Return the files in the volume."""
        return archive.unpack(b"".join(self.docker.get_archive(self.name(sibling), VOLUME)[0]))

    def fwctl(self, sibling: str, *arguments: str) -> None:
        """Run a verb of the helper."""
        identity = self.docker.exec_create(self.name(sibling), [f"{VOLUME}/bin/fwctl", *arguments])["Id"]
        self.docker.exec_start(identity)

    def recipe(self, sibling: str) -> Recipe:
        """Return what a sibling's container could be made anew from: its own `docker inspect`, and its files."""
        raw = self.inspect(sibling)
        body: Body = {**raw["Config"], "HostConfig": raw["HostConfig"], "Hostname": ""}
        first, *rest = sorted(raw["NetworkSettings"]["Networks"].items())
        if first[0] != raw["HostConfig"]["NetworkMode"]:
            rest, first = [first], rest[0]
        body["NetworkingConfig"] = {"EndpointsConfig": {first[0]: {"IPAMConfig": first[1]["IPAMConfig"]}}}
        networks = {network: endpoint["IPAMConfig"]["IPv4Address"] for network, endpoint in rest}
        return Recipe(body, networks, archive.pack(self.read(sibling)))

    def recreate(self, sibling: str, change: Callable[[Body], None], stop_seconds: int | None = None) -> None:
        """Make a sibling's container anew from its own recipe, with a change.

        With `stop_seconds` the old one is given so long to end by itself.
        """
        name, recipe = self.name(sibling), self.recipe(sibling)
        change(recipe.body)
        if stop_seconds is not None:
            self.docker.stop(name, timeout=stop_seconds)
        self.docker.remove_container(name, force=True, v=True)
        made = self.docker.create_container_from_config(recipe.body, name)["Id"]  # type: ignore[no-untyped-call]
        for network, address in recipe.networks.items():
            self.docker.connect_container_to_network(made, network, ipv4_address=address)
        self.docker.put_archive(made, VOLUME, recipe.files)
        self.docker.start(made)
