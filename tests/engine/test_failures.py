"""Failures on a real engine: rejected configuration, foreign containers, concurrent runs, and killed runs."""

import json
import signal
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from docker import APIClient

from devkit import stacks
from devkit.firewall import Firewall, read_until_done, upgraded
from devkit.peers import Peer, Peers
from devkit.waiting import until


@pytest.fixture(scope="module")
def agent(shared: Firewall, module_peers: Peers) -> Peer:
    """An agent of the module's stack, and an origin with the allowed names."""
    shared.origin(module_peers, ["a.test", "h.test"])
    return shared.agent(module_peers)


BROKEN_LISTENERS = """
import sys
from clawker_fw.stack.envoy import sibling
right = sibling.configuration
def broken(*given):
    files = right(*given)
    file = files[sibling.LISTENERS]
    text = file.content.replace(b'"guarded named"', b'"guarded named","no_such_field":1')
    return {**files, sibling.LISTENERS: file.saying(text)}
sibling.configuration = broken
from clawker_fw.__main__ import main
main()
"""


def test_a_refused_hot_file_keeps_the_old_rules(kept: Firewall, agent: Peer) -> None:
    """If Envoy rejects a listener, the exit code is 5, the reason is shown, and the old rules stay in effect."""
    before = kept.settings.read_text()
    kept.write({"dst": "b.test"}, {"dst": "c.test"}, {"dst": "h.test", "proto": "http", "allow_private": True})
    command = [sys.executable, "-c", BROKEN_LISTENERS, *kept.command("reload")[3:]]
    outcome = kept.call_raw(command)
    assert outcome.code == 5, outcome
    assert "error[commit-rejected]" in outcome.err
    assert "no_such_field" in outcome.err
    assert agent.get("https://a.test/").ok
    assert agent.get("http://h.test/").ok
    assert agent.get("https://b.test/").kind == "dns-nxdomain"
    kept.settings.write_text(before)
    assert kept.current()


BROKEN_RELEASES = {
    "rejects its config": lambda release: stacks.change_file(
        release.templates / "bootstrap.yaml.j2",
        lambda text: text.replace(b"stats_config:", b"no_such_field: 1\nstats_config:"),
    ),
    "answers nothing": lambda release: stacks.change_file(
        release.templates / "Corefile.j2", lambda text: text.replace(b". {\n", b"nowhere.test {\n")
    ),
}


@pytest.mark.parametrize("name", BROKEN_RELEASES)
def test_a_release_that_does_not_work_is_taken_back(
    name: str, kept: Firewall, agent: Peer, docker: APIClient, tmp_path: Path
) -> None:
    """The old containers keep serving; `run` exits with 5 and the reason, and leaves nothing behind."""
    BROKEN_RELEASES[name](stacks.copied_release(tmp_path / "newer"))
    before = {sibling: docker.inspect_container(kept.container(sibling))["Id"] for sibling in ("envoy", "coredns")}
    outcome = upgraded(kept, tmp_path / "newer").call("run").expect(5)
    assert "error[replacement-not-ready]" in outcome.err
    if name != "answers nothing":
        assert "log: " in outcome.err
    for sibling, old in before.items():
        assert docker.inspect_container(kept.container(sibling))["Id"] == old
    assert agent.get("https://a.test/").ok
    assert _names(docker, kept) == [f"/{kept.project}-coredns", f"/{kept.project}-envoy"]
    assert kept.current()


def _names(docker: APIClient, firewall: Firewall) -> list[str]:
    found = docker.containers(all=True, filters={"name": firewall.project})
    return sorted(name for each in found for name in each["Names"])


def test_a_run_that_is_killed_is_finished_by_the_next(firewall: Firewall, peers: Peers, docker: APIClient) -> None:
    """After SIGKILL during a replacement, agents are served, nothing else gets through, and `run` finishes."""
    up = firewall
    up.run()
    origin = up.origin(peers, ["a.test", "h.test", "evil.test"], "--http", "80", "--https", "443", "--tell")
    hostile = up.agent(peers)
    first = IPv4Address(up.status()["siblings"][0]["address"])
    load = up.agent(peers, "load", "--rate", "50", "--seconds", "0", "https://a.test/", "http://h.test/")
    until(lambda: any(line["done"] for line in load.said() if line["event"] == "progress"))
    process = up.draining("1").start("run", "--force-recreate")
    read_until_done(process, "take the service address")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    for address in (first, IPv4Address(int(first) ^ 1)):
        hostile.get("https://evil.test/", "--connect", str(address), "--timeout", "300ms")
    up.draining("1").run()
    assert up.current()
    assert _names(docker, up) == [f"/{up.project}-coredns", f"/{up.project}-envoy"]
    summary = load.stop().last
    assert summary["failed"] == 0, json.dumps(summary)
    assert {line["host"] for line in origin.said() if line["event"] == "request"} == {"a.test", "h.test"}


def half_done_run(firewall: Firewall, drain: str = "1") -> "subprocess.Popen[str]":
    """Start to replace both containers, and return once both new ones have been created."""
    process = firewall.draining(drain).start("run", "--force-recreate")
    read_until_done(process, "create and start")
    return process


def test_interrupted_once(kept: Firewall, docker: APIClient) -> None:
    """Ctrl-C ends the current step, says what serves, and exits with 130; the next run completes it."""
    process = half_done_run(kept)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Finishing the current step, then stopping." in err
    assert "The former envoy and coredns still serve." in err
    assert "Traceback" not in err
    assert kept.project + "-lock" not in str(_names(docker, kept))
    kept.draining("1").run()
    assert kept.current()


def test_interrupted_twice(kept: Firewall) -> None:
    """A second Ctrl-C stops immediately; the next run takes over the lock and completes the work."""
    process = half_done_run(kept)
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    next(line for line in process.stderr if "then stopping" in line)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)
    assert process.returncode == 130
    kept.draining("1").run()
    assert kept.current()
