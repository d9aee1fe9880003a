"""After an engine upgrade, the stack recovers without help, has not drifted, and serves its agents."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from docker import APIClient

from devkit.engines import PrivateEngine, private_engine
from devkit.firewall import Firewall, Outcome
from devkit.host import client
from devkit.peers import Peer, Peers
from devkit.waiting import until

KINDS = ("20.10.24", "29-nftables")
"""An engine and its successor, which uses the same image store but another firewall backend."""

STRICT = {"29": {"min-api-version": "1.44"}}
"""The oldest client API that the first releases of a series accepted."""


@dataclass
class Machine:
    """A machine whose engine is upgraded, while its containers' data stays."""

    folder: Path
    kept: Path

    @contextmanager
    def engine(self, kind: str) -> Iterator[PrivateEngine]:
        """Run this kind of engine with the former engine's data."""
        data = self.kept if self.kept.exists() else None
        settings = STRICT.get(kind.partition("-")[0])
        with private_engine(kind, folder=self.folder, data=data, settings=settings) as engine:
            yield engine
            engine.stop()
            shutil.move(engine.folder / "data", self.kept)


def test_an_upgraded_engine_makes_no_drift(needs_engine: Callable[..., None], tmp_path: Path) -> None:
    """A newer engine describes containers differently; that is not drift, and agents are served."""
    for kind in KINDS:
        needs_engine(kind)
    machine = Machine(Path(tempfile.mkdtemp(prefix="engine-", dir="/var/tmp")), tmp_path / "kept")
    made: dict[str, str] = {}
    agent = ""
    for kind in KINDS:
        with machine.engine(kind) as engine, closing(client(engine.host)) as docker:
            firewall = Firewall(engine.host, "upgraded", tmp_path)
            if not made:
                firewall.write({"dst": "a.test", "allow_private": True})
                firewall.run()
                made, agent = _identities(docker, firewall), _peers(docker, firewall)
            assert until(lambda: _clean(firewall)).findings == set(), kind  # noqa: B023 - asked at once
            assert firewall.run().json["changed"] is False
            assert _identities(docker, firewall) == made, kind
            asking = Peer(docker, agent, "agent")
            assert until(lambda: asking.get("https://a.test/", "--timeout", "2s").ok), kind  # noqa: B023 - asked at once
            assert asking.get("https://denied.test/").kind == "dns-nxdomain", kind


def _identities(docker: APIClient, firewall: Firewall) -> dict[str, str]:
    names = [firewall.container(sibling) for sibling in ("envoy", "coredns")]
    return {name: str(docker.inspect_container(name)["Id"]) for name in names}


def _peers(docker: APIClient, firewall: Firewall) -> str:
    """Start an origin and an agent that restart with the engine, and return the agent's container."""
    peers = Peers(docker)
    started = [firewall.origin(peers, ["a.test"]), firewall.agent(peers)]
    for each in started:
        docker.update_container(each.container, restart_policy={"Name": "always"})
    return started[-1].container


def _clean(firewall: Firewall) -> Outcome | None:
    """Return `drift` once it is clean, or once its findings no longer change."""
    drift = firewall.drift()
    starting = any(layer in {"live", "state"} for _, layer, *_ in drift.findings)
    return None if starting else drift
