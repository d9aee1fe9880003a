"""An engine whose root is nobody on its host."""

from pathlib import Path

import pytest

from devkit.engines import available, private_engine
from devkit.firewall import Firewall
from devkit.host import client
from devkit.secret_files import call, require_private

KIND = "28.5.2"
"""One with a root folder of its own: it adds a user there."""


def test_remapped_users(require_engine: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a fixture
    """Up, current, changed live, replaced and down: namespaces of users take nothing that is needed."""
    if (reason := available(KIND)) and not require_engine:
        pytest.skip(f"REMAPPED USERS ARE NOT TESTED: {reason}")
    with private_engine(KIND, settings={"userns-remap": "default"}) as engine:
        firewall = Firewall(engine.host, "clawker", tmp_path)
        firewall.write("a.test")
        firewall.run()
        assert firewall.current()
        firewall.write("b.test")
        firewall.call("reload").expect()
        firewall.run("--force-recreate", "--drain-timeout", "1")
        assert firewall.current()
        firewall.call("down").expect()


def test_secrets_of_remapped_users(require_engine: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a fixture
    """A user of the container is another one to the engine: secrets are the program's alone there, too."""
    if (reason := available(KIND)) and not require_engine:
        pytest.skip(f"REMAPPED USERS ARE NOT TESTED: {reason}")
    with private_engine(KIND, settings={"userns-remap": "default"}) as engine:
        docker = client(engine.host)
        firewall = Firewall(engine.host, "clawker", tmp_path)
        firewall.write("a.test")
        call(firewall, 1, "run").expect()
        call(firewall, 2, "reload").expect()
        call(firewall, 2, "drift").expect()
        require_private(docker, firewall, 2)
