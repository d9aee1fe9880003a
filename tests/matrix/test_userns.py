"""An engine with remapped users, on which containers' root is unprivileged on the host."""

from collections.abc import Callable
from pathlib import Path

from docker import APIClient

from clawker_fw.stack import collector
from clawker_fw.stack.container import GOOD, VOLUME
from devkit.engines import private_engine
from devkit.firewall import Firewall
from devkit.host import client
from devkit.tools import read_as

KIND = "28.5.2"
"""A kind with its own root folder, in which a user is added."""

TELEMETRY = {"endpoint": "192.0.2.99:4317"}
"""CoreDNS has a key for it."""

PROGRAM, OTHERS = "40000:65532", ("65531:65531", "40000:65531", "0:0")
"""Any user of the program's group, and of other groups."""


def require_private(docker: APIClient, coredns: str) -> None:
    """Require that only the program's group can read its key, while others can read the other files."""
    for path in (collector.FILE, f"{GOOD}{collector.FILE}"):
        read = {user: read_as(docker, user, coredns, f"{VOLUME}/{path}") for user in (PROGRAM, *OTHERS)}
        assert "PRIVATE KEY" in str(read.pop(PROGRAM)), path
        assert set(read.values()) == {None}, path
    assert all(read_as(docker, user, coredns, f"{VOLUME}/boot/Corefile") for user in OTHERS)


def test_remapped_users(needs_engine: Callable[..., None], tmp_path: Path) -> None:
    """A stack is created, changed, replaced and removed, and only its program can read its secrets."""
    needs_engine(KIND)
    with private_engine(KIND, settings={"userns-remap": "default"}) as engine:
        docker = client(engine.host)
        firewall = Firewall(engine.host, "clawker", tmp_path, variables={"XDG_STATE_HOME": str(tmp_path)})
        firewall.write("a.test", otel=TELEMETRY)
        firewall.run()
        firewall.write("b.test", otel=TELEMETRY)
        firewall.call("reload").expect()
        firewall.drift().expect()
        require_private(docker, firewall.container("coredns"))
        firewall.draining("1").run("--force-recreate")
        require_private(docker, firewall.container("coredns"))
        firewall.call("down").expect()
