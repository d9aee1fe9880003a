"""An engine with remapped users, on which the containers' root is unprivileged on the host."""

from collections.abc import Callable
from pathlib import Path

from devkit.engines import private_engine
from devkit.firewall import Firewall
from devkit.host import client
from devkit.secret_files import call, require_private

KIND = "28.5.2"
"""A kind with a root folder of its own, to which it adds a user."""


def test_remapped_users(needs_engine: Callable[..., None], tmp_path: Path) -> None:
    """A stack is brought up, changed live, replaced and taken down, and only its program can read its secrets."""
    needs_engine(KIND)
    with private_engine(KIND, settings={"userns-remap": "default"}) as engine:
        docker = client(engine.host)
        firewall = Firewall(engine.host, "clawker", tmp_path)
        firewall.write("a.test")
        call(firewall, 1, "run").expect()
        call(firewall, 2, "reload").expect()
        call(firewall, 2, "drift").expect()
        require_private(docker, firewall, 2)
        call(firewall, 2, "run", "--force-recreate", "--drain-timeout", "1").expect()
        require_private(docker, firewall, 2)
        firewall.call("down").expect()
