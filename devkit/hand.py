"""Changes that a user with `docker` can make to a stack on a real engine, for tests of tampering."""

import io
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from docker import APIClient
from docker.errors import APIError

from clawker_fw.engine import archive
from clawker_fw.model.files import File
from clawker_fw.stack.container import HELPER, HOT, VOLUME
from clawker_fw.stack.files import executable, public
from clawker_fw.stack.resources import watched_folder
from clawker_fw.stack.topology import Addressing
from devkit.engines import machine_root
from devkit.firewall import Firewall
from devkit.peers import Peers
from devkit.tools import run_inside
from devkit.waiting import until

Body = dict[str, Any]
"""A container's configuration, in the form of `POST /containers/create`."""


FORWARDER, SIGNER, RECORDER = 65530, 65531, 65533
"""The groups whose processes are beside a sibling's program."""

_KILL = """
found=
for each in /proc/[0-9]*; do
  group=
  while read -r field number _; do
    if [ "$field" = Gid: ]; then group=$number; fi
  done <"$each/status" || continue
  read -r name <"$each/comm" || continue
  if [ "$name" = fwctl ] && [ "$group" = GROUP ]; then kill -SIGNAL "${each#/proc/}"; found=yes; fi
done
[ "$found" ]
"""


_NETWORK = ("Driver", "Internal", "EnableIPv6", "IPAM", "Options", "Labels")
"""What a network is created from, in the engine's API."""


@dataclass(frozen=True)
class Recipe:
    """The input for creating a container: configuration, further networks with addresses, a tar for its volume."""

    body: Body
    networks: dict[str, str]
    files: bytes


@dataclass(frozen=True)
class Hand:
    """A user who tampers with one stack."""

    docker: APIClient
    firewall: Firewall
    peers: Peers

    def name(self, sibling: str) -> str:
        return self.firewall.container(sibling)

    def inspect(self, sibling: str) -> Any:  # noqa: ANN401 - the engine's JSON
        return self.docker.inspect_container(self.name(sibling))

    def write(self, sibling: str, path: str, content: bytes, like: File | None = None) -> None:
        """Change a file in the volume in place, as `docker cp` does. `like` has another mode and owner."""
        usual = executable(content) if path == HELPER else public(content)
        file = like.saying(content) if like else usual
        self.docker.put_archive(self.name(sibling), VOLUME, archive.pack({path: file}))

    def link(self, sibling: str, path: str, target: str) -> None:
        self._put(sibling, path, type=tarfile.SYMTYPE, linkname=target)

    def alter(self, sibling: str, path: str, **attributes: Any) -> None:  # noqa: ANN401 - those of `File`
        file = replace(self.files(sibling)[path], **attributes)
        self.docker.put_archive(self.name(sibling), VOLUME, archive.pack({path: file}))

    def open_folder(self, sibling: str, path: str, *, mode: int = 0o755, owner: int = 0) -> None:
        self._put(sibling, path, type=tarfile.DIRTYPE, mode=mode, uid=owner)

    def _put(self, sibling: str, path: str, **attributes: Any) -> None:  # noqa: ANN401 - those of `TarInfo`
        buffer, header = io.BytesIO(), tarfile.TarInfo(path)
        for name, value in attributes.items():
            setattr(header, name, value)
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.addfile(header)
        self.docker.put_archive(self.name(sibling), VOLUME, buffer.getvalue())

    def update(self, sibling: str, **limits: Any) -> None:  # noqa: ANN401 - any of the engine's
        self.docker.update_container(self.name(sibling), **limits)

    def take_away(self, sibling: str) -> None:
        """Remove a container by force, by its id: a watcher makes another with its name.

        An engine that is busy with its files is asked again.
        """
        container = self.docker.inspect_container(self.name(sibling))["Id"]

        def gone() -> bool:
            with suppress(APIError):
                self.docker.remove_container(container, force=True, v=True)
            return not self.docker.containers(all=True, filters={"id": container})

        until(gone, 15)

    def remove(self, sibling: str, path: str) -> None:
        self._place(sibling, path).unlink()

    def move(self, sibling: str, before: str, after: str) -> None:
        self._place(sibling, before).rename(self._place(sibling, after))

    def _place(self, sibling: str, path: str) -> Path:
        process = str(self.inspect(sibling)["State"]["Pid"])
        return machine_root(self.firewall.host) / "proc" / process / f"root{VOLUME}" / path

    def reload(self, path: str) -> None:
        """Have Envoy read a hot file again, as a commit does."""
        folder = watched_folder(path.removeprefix(HOT))
        self.inside("envoy", f"cd /proc/1/root{folder}; mv 0 1 || mv 1 0")

    def read(self, sibling: str) -> dict[str, bytes]:
        return {path: file.content for path, file in self.files(sibling).items()}

    def files(self, sibling: str) -> dict[str, File]:
        return archive.unpack(self.docker.get_archive(self.name(sibling), VOLUME)[0])

    def fwctl(self, sibling: str, *arguments: str) -> bool:
        """Return whether it succeeds."""
        identity = self.docker.exec_create(self.name(sibling), [f"{VOLUME}/bin/fwctl", *arguments])["Id"]
        self.docker.exec_start(identity)
        return bool(self.docker.exec_inspect(identity)["ExitCode"] == 0)

    def inside(self, sibling: str, script: str) -> None:
        run_inside(self.docker, self.name(sibling), script)

    def kill(self, sibling: str, group: int, signal: str = "KILL") -> bool:
        """Send our process of a group in a sibling's container a signal, and return whether there was one."""
        try:
            self.inside(sibling, _KILL.replace("GROUP", str(group)).replace("SIGNAL", signal))
        except RuntimeError:
            return False
        return True

    def append(self, sibling: str, file: str, line: str) -> None:
        """Add a line to a file that the engine mounts: `HostsPath`, `ResolvConfPath`, or `HostnamePath`."""
        with Path(f"{machine_root(self.firewall.host)}{self.inspect(sibling)[file]}").open("a") as there:
            there.write(f"{line}\n")

    def deafen(self) -> None:
        """Let Envoy close its listeners, and wait until it has. Its loaded configuration stays the same."""
        self.fwctl("envoy", "drain", "0")
        until(lambda: not self.fwctl("coredns", "health"))

    def recipe(self, sibling: str) -> Recipe:
        """Return everything to recreate a sibling's container, from its `docker inspect` and its files."""
        raw = self.inspect(sibling)
        body: Body = {**raw["Config"], "HostConfig": raw["HostConfig"], "Hostname": ""}
        first, *rest = sorted(raw["NetworkSettings"]["Networks"].items())
        if first[0] != raw["HostConfig"]["NetworkMode"]:
            rest, first = [first], rest[0]
        body["NetworkingConfig"] = {"EndpointsConfig": {first[0]: {"IPAMConfig": first[1]["IPAMConfig"]}}}
        networks = {network: endpoint["IPAMConfig"]["IPv4Address"] for network, endpoint in rest}
        return Recipe(body, networks, archive.pack(self.files(sibling)))

    def address(self, sibling: str) -> str:
        networks = self.inspect(sibling)["NetworkSettings"]["Networks"]
        return str(networks[f"{self.firewall.project}-net"]["IPAddress"])

    def service(self) -> str:
        (pool,) = self.docker.inspect_network(f"{self.firewall.project}-net")["IPAM"]["Config"]
        subnet = IPv4Network(pool["Subnet"])
        return str(Addressing(subnet, subnet).service)

    def recreate_network(self, end: str, *changes: Callable[[Body], None]) -> None:
        """Recreate a network of the stack with changes. Its containers are disconnected before."""
        name = f"{self.firewall.project}-{end}"
        raw = self.docker.inspect_network(name)
        body: Body = {key: raw[key] for key in _NETWORK}
        for change in changes:
            change(body)
        for container in raw["Containers"]:
            self.docker.disconnect_container_from_network(container, name, force=True)
        self.docker.remove_network(name)
        six = body.pop("EnableIPv6")
        self.docker.create_network(name, enable_ipv6=six, **{key.lower(): body[key] for key in body})

    def recreate(
        self,
        sibling: str,
        *changes: Callable[[Body], None],
        stop_seconds: int | None = None,
        start: bool = True,
    ) -> None:
        """Recreate a sibling's container with changes. The old one may have `stop_seconds` to stop."""
        name, recipe = self.name(sibling), self.recipe(sibling)
        for change in changes:
            change(recipe.body)
        if stop_seconds is not None:
            self.docker.stop(name, timeout=stop_seconds)
        self.docker.remove_container(name, force=True, v=True)
        made = self.docker.create_container_from_config(recipe.body, name)["Id"]  # type: ignore[no-untyped-call]
        for network, address in recipe.networks.items():
            self.docker.connect_container_to_network(made, network, ipv4_address=address)
        self.docker.put_archive(made, VOLUME, recipe.files)
        if start:
            self.docker.start(made)
