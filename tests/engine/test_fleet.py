"""Many hosts with real engines: current, drifted over ssh, dead, silent; a swarm; Ctrl-C."""

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from devkit.engines import private_engine
from devkit.firewall import RULES, Firewall
from devkit.sshd import sshd
from devkit.stacks import environment

TIMEOUT, SLACK = 20.0, 20.0
"""What each host may take, and what starting and a busy machine may take beside that, in seconds."""

COUNT = 24
"""More hosts than are asked at the same time."""


def listening(at: Path) -> socket.socket:
    """Return a listening socket. Nobody accepts what comes, so it hangs, as seen from outside."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(at))
    made.listen()
    return made


@dataclass
class Site:
    """A stack that is current, one with other rules on another engine over ssh, and two addresses of nobody."""

    near: Firewall
    far: Firewall
    silent: str
    dead: str
    folder: Path

    def fleet(self, *arguments: str) -> list[str]:
        """Return the command line of a fleet command with the settings of the near stack."""
        return [*replace(self.near, host="").command("fleet"), *arguments]

    def options(self, *addresses: str) -> list[str]:
        """Return the options that name hosts."""
        return [word for each in addresses for word in ("--host", each)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two private engines."""
    folder = tmp_path_factory.mktemp("fleet")
    keys, others = folder / "ssh", folder / "other"
    for each in (keys, others):
        each.mkdir()
    with (
        private_engine() as engine,
        private_engine() as other,
        sshd(other.host, keys) as door,
        closing(listening(folder / "silent.sock")),
    ):
        near = Firewall(engine.host, "fleet", folder, variables=door.variables)
        far = Firewall(other.host, "fleet", others)
        near.write(*RULES)
        far.write("old.test")
        near.run()
        far.run()
        yield Site(
            near,
            replace(far, host=door.address),
            f"unix://{folder}/silent.sock",
            f"unix://{folder}/no.sock",
            folder,
        )


def test_each_host_has_its_row(site: Site) -> None:
    """All verdicts are right, and the silent host costs no more than its own time."""
    addresses = (site.near.host, site.far.host, site.silent, site.dead)
    limits = ("--timeout", f"{TIMEOUT:g}s", "--format", "json")
    outcome = site.near.call_raw(site.fleet("status", "--diff", *site.options(*addresses), *limits)).expect(1)
    assert outcome.seconds < TIMEOUT + SLACK
    found = {each["name"]: each for each in outcome.json["hosts"]}
    assert {name: each["verdict"] for name, each in found.items()} == {
        site.near.host: "current",
        site.far.host: "drifted",
        site.silent: "unreachable",
        site.dead: "unreachable",
    }
    assert found[site.silent]["error"]["code"] == "engine-silent"
    assert found[site.dead]["error"]["code"] == "engine-unreachable"
    far = found[site.far.host]
    assert {each["finding"]["cause"] for each in far["findings"]} == {"settings"}
    assert far["rules"]["count"] == 1
    assert "  - https old.test:443" in far["summary"]
    assert found[site.near.host]["rules"]["count"] == len(RULES)
    assert outcome.json["summary"] == "1 of 4 hosts are current; 1 drifted, 2 unreachable."


def test_an_interrupted_look_ends_at_once(site: Site, tmp_path: Path) -> None:
    """Ctrl-C ends it with exit code 130, whoever hangs, and leaves neither processes nor files."""
    silent: list[socket.socket] = []
    try:
        silent += [listening(tmp_path / f"{number}") for number in range(COUNT)]
        addresses = [f"unix://{tmp_path}/{number}" for number in range(COUNT)]
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        command = site.fleet("status", *site.options(*addresses), "--timeout", "3m")
        process = subprocess.Popen(
            command,
            env=environment(TMPDIR=str(temporary)),
            cwd=site.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        silent[0].settimeout(30)
        accepted, _ = silent[0].accept()  # it is being asked
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        accepted.close()
    finally:
        for each in silent:
            each.close()
    assert time.monotonic() - began < SLACK
    assert (process.returncode, "error[interrupted]" in said) == (130, True)
    assert list(temporary.iterdir()) == []
    left = subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, check=False, timeout=30)
    assert left.stdout == b""
