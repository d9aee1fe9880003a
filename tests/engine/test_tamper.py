"""On a real engine: everything that can be made different, by hand or by an upgrade, is seen and closed."""

import json
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from clawker_fw.engine.docker import connect
from clawker_fw.model import EngineFacts, Sibling
from clawker_fw.stack import coredns, images, labels, listeners
from clawker_fw.stack.images import BuiltImage
from clawker_fw.stack.release import Release
from devkit import stacks
from devkit.firewall import Firewall, upgraded
from devkit.hand import Body, Hand
from devkit.waiting import until

ENVOY, COREDNS = "envoy", "coredns"
Finding = tuple[str, str, str, str, str]


@pytest.fixture
def hand(docker: APIClient, shared: Firewall) -> Hand:
    """A hand on the module's stack, made current again where the test before this one has failed."""
    if not shared.current():
        shared.run()
    return Hand(docker, shared)


def host(**fields: Any) -> Callable[[Body], None]:  # noqa: ANN401 - any of the engine's
    """Return a change of a container's HostConfig."""
    return lambda body: body["HostConfig"].update(fields)


def config(**fields: Any) -> Callable[[Body], None]:  # noqa: ANN401 - any of the engine's
    """Return a change of a container's Config."""
    return lambda body: body.update(fields)


def add_variable(body: Body) -> None:
    """Add an environment variable."""
    body["Env"] = [*(body["Env"] or []), "GODEBUG=netdns=go"]


def lower_concurrency(body: Body) -> None:
    """Change Envoy's command line."""
    body["Cmd"] = [*body["Cmd"], "--restart-epoch", "0"]


def remove_label(body: Body) -> None:
    """Take one of the three labels away."""
    body["Labels"] = {key: text for key, text in body["Labels"].items() if key != labels.STACK_BUILD_SHA}


SHAPES: list[tuple[str, Callable[[Body], None], str, str]] = [
    (ENVOY, lower_concurrency, "shape", "command"),
    (COREDNS, add_variable, "shape", "environment"),
    (ENVOY, host(Binds=["/etc/hostname:/etc/extra:ro"]), "shape", "mounts"),
    (ENVOY, host(CapAdd=["NET_ADMIN", "NET_RAW", "SETGID", "SETPCAP", "SETUID", "SYS_TIME"]), "shape",
     "capabilities_added"),
    (COREDNS, host(Sysctls={"net.ipv4.ip_unprivileged_port_start": "0"}), "shape", "sysctls"),
    (ENVOY, host(Memory=2 << 30, MemorySwap=4 << 30), "shape", "memory"),
    (COREDNS, host(PidsLimit=64), "shape", "pids"),
    (COREDNS, host(RestartPolicy={"Name": "no"}), "shape", "restart"),
    (COREDNS, remove_label, "labels", labels.STACK_BUILD_SHA),
]  # fmt: skip


@pytest.mark.parametrize(("sibling", "change", "layer", "field"), SHAPES, ids=[row[3] for row in SHAPES])
def test_a_container_made_anew_by_hand(
    sibling: str, change: Callable[[Body], None], layer: str, field: str, hand: Hand
) -> None:
    """Each field that we set is compared with what runs, and nothing else differs."""
    hand.recreate(sibling, change)
    if sibling == COREDNS:
        hand.fwctl(COREDNS, "claim", "0")  # its record of the claim came with the files
    drift = until(lambda: _settled(hand.firewall))
    assert drift.findings == {(sibling, layer, field, "tamper", "replace")}
    hand.firewall.run("--drain-timeout", "1")
    assert hand.firewall.current()


def _settled(firewall: Firewall) -> Any:  # noqa: ANN401 - an outcome
    """Return `drift` once the programs that were just started answer."""
    drift = firewall.drift()
    return None if any(finding[1] == "live" for finding in drift.findings) else drift


def test_another_image(hand: Hand, release: Release, host: str) -> None:
    """A container of the right name and labels that runs another Envoy is seen."""
    facts = connect(host, None, {}).facts()
    ours = images.bundled(Sibling.ENVOY, release, facts)
    other = BuiltImage("test/envoy", "0", ours.architecture, ours.entries[1:], ours.digests)
    list(hand.docker.load_image(other.archive()))  # type: ignore[no-untyped-call]
    hand.recreate(ENVOY, config(Image=other.reference))
    drift = until(lambda: _settled(hand.firewall))
    assert drift.findings == {(ENVOY, "image", "id", "tamper", "replace")}
    hand.firewall.run("--drain-timeout", "1")
    assert hand.firewall.current()
    hand.docker.remove_image(other.reference)


STATES: list[tuple[str, Callable[[Hand], None], set[Finding]]] = [
    ("stopped envoy", lambda hand: hand.docker.stop(hand.name(ENVOY)),
     {(ENVOY, "state", "status", "tamper", "start")}),
    ("stopped coredns", lambda hand: hand.docker.stop(hand.name(COREDNS)),
     {(COREDNS, "state", "status", "tamper", "start")}),
    ("killed envoy, restart off", lambda hand: _kill_for_good(hand, ENVOY),
     {(ENVOY, "state", "status", "tamper", "start"), (ENVOY, "shape", "restart", "tamper", "replace")}),
    ("paused envoy", lambda hand: hand.docker.pause(hand.name(ENVOY)),
     {(ENVOY, "state", "status", "tamper", "unpause")}),
    ("paused coredns", lambda hand: hand.docker.pause(hand.name(COREDNS)),
     {(COREDNS, "state", "status", "tamper", "unpause")}),
    ("missing envoy", lambda hand: hand.docker.remove_container(hand.name(ENVOY), force=True, v=True),
     {(ENVOY, "state", "container", "tamper", "create")}),
    ("missing coredns", lambda hand: hand.docker.remove_container(hand.name(COREDNS), force=True, v=True),
     {(COREDNS, "state", "container", "tamper", "create")}),
    ("service address released", lambda hand: hand.fwctl(COREDNS, "release"),
     {(COREDNS, "state", "service_address", "tamper", "claim")}),
]  # fmt: skip


def _kill_for_good(hand: Hand, sibling: str) -> None:
    policy = {"Name": "no", "MaximumRetryCount": 0}
    hand.docker.update_container(hand.name(sibling), restart_policy=policy)  # type: ignore[arg-type]
    hand.docker.kill(hand.name(sibling))
    until(lambda: hand.inspect(sibling)["State"]["Status"] == "exited")


@pytest.mark.parametrize(("tamper", "findings"), [row[1:] for row in STATES], ids=[row[0] for row in STATES])
def test_a_sibling_that_does_not_serve(tamper: Callable[[Hand], None], findings: set[Finding], hand: Hand) -> None:
    """Stopped, paused, missing, or without its address: seen, and closed by the cheapest action."""
    tamper(hand)
    assert hand.firewall.drift().findings == findings
    hand.firewall.run("--drain-timeout", "1")
    assert hand.firewall.current()


@pytest.mark.parametrize(("sibling", "network"), [(ENVOY, "egress"), (ENVOY, "net"), (COREDNS, "net")])
def test_a_disconnected_sibling(sibling: str, network: str, hand: Hand) -> None:
    """A sibling that was taken off one of its networks is made anew on it."""
    name = f"{hand.firewall.project}-{network}"
    hand.docker.disconnect_container_from_network(hand.name(sibling), name)
    assert (sibling, "state", f"networks.{name}", "tamper", "replace") in hand.firewall.drift().findings
    hand.firewall.run("--drain-timeout", "1")
    assert hand.firewall.current()


def test_an_extra_network(hand: Hand) -> None:
    """A resolver that was given a way out is seen."""
    name = f"{hand.firewall.project}-egress"
    hand.docker.connect_container_to_network(hand.name(COREDNS), name)
    assert hand.firewall.drift().findings == {(COREDNS, "state", f"networks.{name}", "tamper", "replace")}
    hand.firewall.run("--drain-timeout", "1")
    assert hand.firewall.current()


FILES: list[tuple[str, str, bytes, str, str]] = [
    (ENVOY, "boot/bootstrap.yaml", b"admin: {}\n", "boot", "replace"),
    (COREDNS, "boot/Corefile", b". {\n    errors\n}\n", "boot", "replace"),
    (COREDNS, "boot/extra", b"x", "boot", "replace"),
    (ENVOY, "bin/fwctl", b"#!/bin/sh\n", "boot", "replace"),
    (ENVOY, listeners.LISTENERS, b'{"resources": []}', "hot", "commit"),
    (ENVOY, "hot/rds/extra.json", b"{}", "hot", "commit"),
]


@pytest.mark.parametrize(("sibling", "path", "content", "layer", "action"), FILES, ids=[row[1] for row in FILES])
def test_a_file_changed_by_hand(  # noqa: PLR0917 - the columns of the table
    sibling: str, path: str, content: bytes, layer: str, action: str, hand: Hand
) -> None:
    """Files are compared by content, in the volume, through the engine."""
    hand.write(sibling, path, content)
    findings = hand.firewall.drift().findings
    assert (sibling, layer, path, "tamper", action) in findings
    assert {finding[0] for finding in findings} == {sibling}
    hand.firewall.run("--drain-timeout", "1")
    assert hand.firewall.current()


def test_a_zone_changed_by_hand_is_seen_although_it_is_live(hand: Hand) -> None:
    """CoreDNS takes a file that was written in place, with a name that no rule allows: seen, and taken back."""
    zone = hand.read(COREDNS)[coredns.ZONE]
    envoy = hand.inspect(ENVOY)["NetworkSettings"]["Networks"][f"{hand.firewall.project}-net"]["IPAddress"]
    changed = zone.replace(b" 60 60 60 ", b" 61 61 61 ") + f"evil.test. 1 IN A {envoy}\n".encode()
    hand.write(COREDNS, coredns.ZONE, changed)
    assert (COREDNS, "hot", coredns.ZONE, "tamper", "commit") in hand.firewall.drift().findings
    hand.firewall.run()
    assert hand.read(COREDNS)[coredns.ZONE] == zone
    assert hand.firewall.current()


def test_a_process_that_serves_an_older_config(hand: Hand) -> None:
    """Files that are right on disk prove nothing: Envoy is asked what it has loaded."""
    firewall = hand.firewall
    before = firewall.settings.read_text()
    firewall.write("other.test")
    facts: EngineFacts = connect(firewall.host, None, {}).facts()
    wanted = stacks.blueprint(facts, "other.test", project=firewall.project)
    envoy = hand.inspect(ENVOY)["NetworkSettings"]["Networks"][f"{firewall.project}-net"]["IPAddress"]
    for path, content in listeners.render(wanted.rules, IPv4Address(envoy))[0].items():
        hand.write(ENVOY, path, content)  # in place: Envoy looks at renames only
    findings = {finding for finding in firewall.drift().findings if finding[0] == ENVOY}
    assert {finding[1] for finding in findings} == {"live"}
    assert {finding[2] for finding in findings} == {"lds/listeners", "rds/http-443", "rds/http-80"}
    firewall.run()
    assert firewall.current()
    firewall.settings.write_text(before)
    firewall.run()


def test_routes_changed_inside(hand: Hand) -> None:
    """A rule that goes around the guard is seen in the kernel, though every file and label is in place."""
    before = hand.read(ENVOY)["boot/sibling.json"]
    sibling = json.loads(before)
    sibling["tables"].append({**sibling["tables"][1], "from": sibling["tables"][0]["from"], "table": 103})
    hand.write(ENVOY, "boot/sibling.json", json.dumps(sibling).encode())
    hand.fwctl(ENVOY, "serve", "--", "/nonexistent")
    hand.write(ENVOY, "boot/sibling.json", before)
    assert hand.firewall.drift().findings == {(ENVOY, "live", "network", "tamper", "replace")}
    hand.firewall.run("--drain-timeout", "1")
    assert hand.firewall.current()


UPGRADES: dict[str, tuple[Callable[[Release], None], set[tuple[str, str, str]]]] = {
    "Corefile template": (stacks.change_corefile, {(COREDNS, "boot", "boot/Corefile")}),
    "bootstrap template": (stacks.change_bootstrap, {(ENVOY, "boot", "boot/bootstrap.yaml")}),
    "Envoy image": (stacks.change_envoy_image, {(ENVOY, "image", "id")}),
    "command": (stacks.change_envoy_command, {(ENVOY, "shape", "command")}),
}


@pytest.mark.parametrize("name", UPGRADES)
def test_an_upgrade(name: str, shared: Firewall, tmp_path: Path) -> None:
    """Other content is seen in the layer that it changes, as an upgrade, and one `run` applies it."""
    change, expected = UPGRADES[name]
    change(stacks.copied_release(tmp_path))
    newer = upgraded(shared, tmp_path)
    findings = newer.drift().findings
    assert {finding[3] for finding in findings} == {"upgrade"}
    by_content = {finding[:3] for finding in findings if finding[1] != "labels"}
    assert by_content == expected
    assert {finding[0] for finding in findings if finding[2] == labels.STACK_BUILD_SHA} == {ENVOY, COREDNS}
    newer.run("--drain-timeout", "1")
    assert newer.current()
    shared.run("--drain-timeout", "1")
    assert shared.current()


def test_another_coredns_program(shared: Firewall, docker: APIClient, tmp_path: Path) -> None:
    """A CoreDNS compiled anew reaches the running resolver by one ordinary `run`."""
    stacks.change_coredns(stacks.copied_release(tmp_path), docker.version()["Arch"])
    newer = upgraded(shared, tmp_path)
    assert (COREDNS, "image", "id", "upgrade", "replace") in newer.drift().findings
    newer.run("--drain-timeout", "1")
    assert newer.current()
    shared.run("--drain-timeout", "1")


def test_another_build_sha_replaces_both(shared: Firewall, docker: APIClient, tmp_path: Path) -> None:
    """A stack brought up with one build SHA, and again with another, gets two new containers and two records."""
    before = {sibling: docker.inspect_container(shared.container(sibling))["Id"] for sibling in (ENVOY, COREDNS)}
    release = stacks.copied_release(tmp_path)
    stacks.change_file(release.package / "stack/zone.py", lambda text: text + b"# another build\n")
    outcome = upgraded(shared, tmp_path).call("--log-format", "json", "run", "--drain-timeout", "1").expect()
    after = {sibling: docker.inspect_container(shared.container(sibling))["Id"] for sibling in (ENVOY, COREDNS)}
    assert all(before[sibling] != after[sibling] for sibling in before)
    records = [json.loads(line) for line in outcome.err.splitlines() if line.startswith("{")]
    drifted = [each for each in records if each["event"] == "firewall_container_spec_drift"]
    assert [each["container"] for each in drifted] == [shared.container(ENVOY), shared.container(COREDNS)]
    assert all(each["running_stack_build_sha"] != each["desired_stack_build_sha"] for each in drifted)
    shared.run("--drain-timeout", "1")
