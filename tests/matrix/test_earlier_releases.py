"""Upgrades of a stack created by an earlier release, with its record, its files and its programs."""

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from devkit.engines import INSTALLED, private_engine
from devkit.firewall import RULES, SIBLINGS, Firewall, upgraded
from devkit.host import client
from devkit.kept import KEPT, make_once
from devkit.peers import KEPT_LOADS, WAITING, Peers
from devkit.stacks import CHECKOUT
from devkit.waiting import until
from devkit.watching import watching
from hatch_build import PROGRAMS, compile_program

EARLIER = {"861b1375a470": ("templates",), "24e469b1f86f": ()}
"""Commits of earlier releases, and their files beside the package and the Go programs.

The first is the last one with the record format of 0.1.0, the second the last one whose `drain` cuts connections
without a pause.
"""


def earlier_release(commit: str, architecture: str) -> Path:
    """Return an earlier release's cached folder, run by `PYTHONPATH=folder python -m clawker_fw`.

    Raises:
    subprocess.CalledProcessError: the commit is missing, as in a shallow clone, or can't be compiled.
    """
    folder = KEPT / "releases" / commit / architecture

    def put(made: Path) -> None:
        made.mkdir()
        command = ["git", "archive", commit, "clawker_fw", "go", *EARLIER[commit]]
        packed = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(made, filter="data")
        for program in PROGRAMS:
            target = made / "clawker_fw" / "bin" / f"{program}-linux-{architecture}"
            compile_program(made / "go" / "cmd" / program, target, architecture)
        shutil.rmtree(made / "go")
        for other in EARLIER[commit]:
            shutil.move(made / other, made / "clawker_fw" / other)  # as in a wheel

    make_once(folder, put)
    return folder


@pytest.mark.parametrize(
    "commit",
    # while others keep the machine busy, requests on kept connections may fail
    [pytest.param(commit, marks=() if parts else pytest.mark.alone) for commit, parts in EARLIER.items()],
)
def test_a_stack_of_an_earlier_release(commit: str, needs_engine: Callable[..., None], tmp_path: Path) -> None:
    """All differences are upgrades: a watcher ignores them, agents may start, and `run` fails no request.

    Groups may be added at the same time. The host passes bridged frames to its packet filter. Kept connections
    fail only if the earlier Envoy can be drained by nothing but its own helper.
    """
    needs_engine(INSTALLED.name)
    with private_engine(INSTALLED.name) as engine, closing(client(engine.host)) as docker:
        firewall = Firewall(engine.host, "clawker", tmp_path)
        firewall.write(*RULES)
        earlier = upgraded(firewall, earlier_release(commit, docker.version()["Arch"]))
        engine.run_in_network(["sysctl", "-w", "net.bridge.bridge-nf-call-iptables=1"])
        earlier.run()

        def containers() -> list[str]:
            return [docker.inspect_container(firewall.container(each))["Id"] for each in SIBLINGS]

        before = containers()
        peers = Peers(docker)
        firewall.origin(peers, ["a.test", "h.test"])
        loads = [("--rate", "50"), *([] if EARLIER[commit] else KEPT_LOADS)]
        agents = [firewall.agent(peers, "load", *load, "--seconds", "0", *WAITING) for load in loads]
        until(lambda: all(any(line.get("done") for line in agent.said()) for agent in agents))

        findings = firewall.drift().expect(1).findings
        assert {cause for *_, cause, _ in findings} == {"upgrade"}, sorted(findings)
        firewall.call("agent", "flags").expect()
        with watching(firewall) as watcher:
            left = watcher.wait(lambda each: each["decision"] != "settle")
            assert left["decision"] == "leave", left
        assert containers() == before

        firewall.write(*RULES, groups={} if EARLIER[commit] else {"web": {}, "work": {}})
        firewall.draining("8").run()
        assert firewall.current()
        assert set(containers()).isdisjoint(before)
        summaries = [agent.stop().last for agent in agents]
        assert [each["failed"] for each in summaries] == [0] * len(agents), json.dumps(summaries)
        assert summaries[0]["sent"] > 100
