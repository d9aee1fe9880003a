"""Whatever the engine's daemon.json adds to containers, the firewall is the same, and current."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from devkit import ignored
from devkit.engines import private_engine
from devkit.firewall import SIBLINGS, Firewall
from devkit.host import client
from devkit.hosts import HOSTILE_NETWORKS

KIND = "29"


@contextmanager
def stack_on(folder: Path, settings: Mapping[str, Any]) -> Iterator[tuple[Firewall, dict[str, Any]]]:
    """Yield a stack on an engine with these settings, and the engine's view of both containers."""
    folder.mkdir()
    with private_engine(KIND, settings=settings) as engine, closing(client(engine.host)) as docker:
        firewall = Firewall(engine.host, f"test{secrets.token_hex(3)}", folder)
        firewall.write({"dst": "a.test", "allow_private": True})
        firewall.run()
        yield firewall, {each: docker.inspect_container(firewall.container(each)) for each in SIBLINGS}


def test_siblings_are_the_same_on_every_engine(needs_engine: Callable[..., None], tmp_path: Path) -> None:
    """A hostile daemon.json changes only ignored fields; all others are compared."""
    needs_engine(KIND)
    with stack_on(tmp_path / "plain", {}) as (_, plain):
        pass
    with stack_on(tmp_path / "hostile", HOSTILE_NETWORKS) as (firewall, hostile):
        assert firewall.drift().expect().json["verdict"] == "current"
        assert {each["code"] for each in firewall.status()["warnings"]} >= {"log-may-lose-lines"}
    for sibling in SIBLINGS:
        one, other = plain[sibling]["HostConfig"], hostile[sibling]["HostConfig"]
        own = {"NetworkMode"}  # the stack's name
        differing = {field for field in {*one, *other} - own if one.get(field) != other.get(field)}
        assert differing <= {*ignored.HOST_CONFIG, *ignored.IN_PART}
