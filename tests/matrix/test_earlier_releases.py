"""A stack that an earlier release made is upgraded like by any user: with its record, its files, its programs."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from devkit.earlier import earlier_release
from devkit.engines import INSTALLED, private_engine
from devkit.firewall import RULES, SIBLINGS, Firewall, upgraded
from devkit.host import client
from devkit.peers import Peers
from devkit.waiting import until
from devkit.watching import watching

LOAD = ("load", "--rate", "50", "--seconds", "0", "https://a.test/", "http://h.test/")


@pytest.mark.alone  # while others keep the machine busy, requests may fail
def test_a_stack_of_an_earlier_release(needs_engine: Callable[..., None], tmp_path: Path) -> None:
    """What differs is an upgrade: a watcher leaves it, agents may start, and `run` closes it without a failure.

    The host passes frames between containers to its packet filter, as many do.
    """
    needs_engine(INSTALLED.name)
    with private_engine(INSTALLED.name) as engine, closing(client(engine.host)) as docker:
        firewall = Firewall(engine.host, "clawker", tmp_path)
        firewall.write(*RULES)
        earlier = upgraded(firewall, earlier_release(docker.version()["Arch"]))
        engine.run_in_network(["sysctl", "-w", "net.bridge.bridge-nf-call-iptables=1"])
        earlier.run()

        def containers() -> list[str]:
            return [docker.inspect_container(firewall.container(each))["Id"] for each in SIBLINGS]

        before = containers()
        peers = Peers(docker)
        firewall.origin(peers, ["a.test", "h.test"])
        agent = firewall.agent(peers, *LOAD)
        until(lambda: any(line["done"] for line in agent.said() if line["event"] == "progress"))

        findings = firewall.drift().expect(1).findings
        assert {cause for *_, cause, _ in findings} == {"upgrade"}, sorted(findings)
        firewall.call("agent", "flags").expect()
        with watching(firewall) as watcher:
            left = watcher.wait(lambda each: each["decision"] != "settle")
            assert left["decision"] == "leave", left
        assert containers() == before

        firewall.draining("5").run()
        assert firewall.current()
        assert set(containers()).isdisjoint(before)
        summary = agent.stop().last
        assert summary["failed"] == 0, json.dumps(summary)
        assert summary["sent"] > 100
