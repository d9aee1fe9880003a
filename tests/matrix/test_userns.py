"""An engine whose root is nobody on its host."""

from pathlib import Path

import pytest

from devkit.engines import available, private_engine
from devkit.firewall import Firewall

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
