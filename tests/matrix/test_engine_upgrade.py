"""After an upgrade of the engine, the stack recovers by itself and has not drifted."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from devkit.engines import private_engine
from devkit.firewall import Firewall, Outcome
from devkit.host import client
from devkit.waiting import until

VERSIONS = ("20.10.24", "26.1.5", "28.5.2")


def test_an_upgraded_engine_makes_no_drift(
    needs_engine: Callable[..., None],
    tmp_path: Path,
) -> None:
    """A newer engine describes the same containers differently, but that is not drift."""
    for version in VERSIONS:
        needs_engine(version)
    folder, kept = Path("/var/tmp") / f"engine-{tmp_path.name[-20:]}", tmp_path / "kept"  # noqa: S108 - sockets need it short
    made: dict[str, str] = {}
    for version in VERSIONS:
        data = kept if made else None
        with private_engine(version, folder=folder, data=data) as engine, closing(client(engine.host)) as docker:
            firewall = Firewall(engine.host, "upgraded", tmp_path)
            names = [firewall.container(sibling) for sibling in ("envoy", "coredns")]
            if not made:
                firewall.write("a.test")
                firewall.run()
                made = {name: docker.inspect_container(name)["Id"] for name in names}
            assert until(lambda: _clean(firewall)).findings == set(), version  # noqa: B023 - asked at once
            assert firewall.run().json["changed"] is False
            assert {name: docker.inspect_container(name)["Id"] for name in names} == made, version
            engine.stop()
            shutil.move(engine.folder / "data", kept)


def _clean(firewall: Firewall) -> Outcome | None:
    """Return `drift` once it is clean, or once its findings don't change any more."""
    drift = firewall.drift()
    starting = any(layer in {"live", "state"} for _, layer, *_ in drift.findings)
    return None if starting else drift
