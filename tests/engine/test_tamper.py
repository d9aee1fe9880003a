"""Every difference, by hand or by an upgrade, is reported and removed on a real engine."""

import json
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, suppress
from pathlib import Path

import pytest
from docker import APIClient

from clawker_fw.engine.docker import connect
from clawker_fw.fwctl import HelperReader
from clawker_fw.stack import labels
from clawker_fw.stack.release import Release
from devkit import stacks
from devkit.engines import OTHER_RUNTIME
from devkit.firewall import Firewall, Outcome, upgraded
from devkit.hand import Hand
from devkit.peers import Peers
from devkit.tampering import TAMPERINGS, WITH_ANOTHER_RUNTIME, Tampering
from devkit.tampering.way import Sign, batches, make
from devkit.waiting import until

ENVOY, COREDNS = "envoy", "coredns"
Finding = tuple[str, str, str, str, str]
ANEW = {"create", "replace", "recreate-networks"}


@pytest.fixture
def hand(docker: APIClient, shared: Firewall, peers: Peers, request: pytest.FixtureRequest) -> Hand:
    """A user who tampers with the module's stack, which is repaired if an earlier test has failed."""
    if request.session.testsfailed:
        shared.run()
    return Hand(docker, shared, peers)


BATCHES = batches(way for ways in TAMPERINGS.values() for way in ways)


def _called(batch: Sequence[Tampering]) -> str:
    return batch[0].what if len(batch) == 1 else f"{batch[0].what}, and {len(batch) - 1} more"


@pytest.mark.parametrize("batch", BATCHES, ids=map(_called, BATCHES))
def test_tampering(batch: Sequence[Tampering], hand: Hand) -> None:
    """Each kind is reported exactly where it was done, and `run` repairs it with the cheapest action."""
    possible = [way for way in batch if WITH_ANOTHER_RUNTIME not in way.what or _has_another_runtime(hand)]
    names = {"project": hand.firewall.project, "service": hand.service(), "envoy": hand.address(ENVOY)}
    signs = [(sign, _finding(sign, names), way.what) for way in possible for sign in way.signs]

    make(hand, possible)

    before = containers(hand)
    drift = _settled(hand.firewall, {finding for _, finding, _ in signs})
    assert drift.findings == {finding for _, finding, _ in signs}
    running = _running(drift)
    assert [what for sign, finding, what in signs if sign.says not in running[finding]] == [], running
    hand.firewall.draining("1").run()  # anything left would be an extra finding in the next test
    made = {sign.sibling for sign, _, _ in signs if sign.action in ANEW}
    if any(sign.action == "recreate-networks" for sign, _, _ in signs):
        made = {ENVOY, COREDNS}
    after = containers(hand)
    assert {sibling for sibling in after if not after[sibling] <= before[sibling]} == made
    if possible != batch:
        pytest.skip("ANOTHER RUNTIME IS NOT TESTED: this engine has none")


def _has_another_runtime(hand: Hand) -> bool:
    return OTHER_RUNTIME in hand.docker.info()["Runtimes"]


def _finding(sign: Sign, names: Mapping[str, str]) -> Finding:
    return sign.sibling, sign.layer, sign.field.format(**names), sign.cause, sign.action


def _running(drift: Outcome) -> Mapping[Finding, str]:
    return {
        (sibling["name"], each["layer"], each["field"], each["cause"], each["action"]): json.dumps(each["running"])
        for sibling in drift.json["siblings"]
        for each in sibling["findings"]
    }


def containers(hand: Hand) -> Mapping[str, set[str]]:
    """Return the ids of each sibling's containers, whatever their names."""
    ours = [f"{labels.PROJECT}={hand.firewall.project}"]
    return {
        sibling: {
            each["Id"]
            for each in hand.docker.containers(all=True, filters={"label": [*ours, f"{labels.SIBLING}={sibling}"]})
        }
        for sibling in (ENVOY, COREDNS)
    }


def _settled(firewall: Firewall, expected: AbstractSet[Finding]) -> Outcome:
    """Return `drift` once it has the expected findings, or after programs had time to load and answer."""
    drift = firewall.drift()

    def settled() -> bool:
        nonlocal drift
        drift = firewall.drift()
        return drift.findings == expected

    if drift.findings != expected and any(layer == "live" for _, layer, *_ in drift.findings | expected):
        with suppress(TimeoutError):
            until(settled)
    return drift


def test_health_says_what_agents_see(hand: Hand) -> None:
    """If agents can't reach Envoy, CoreDNS soon becomes unhealthy, and `run` replaces Envoy."""

    def health() -> str:
        return str(hand.inspect(COREDNS)["State"]["Health"]["Status"])

    until(lambda: health() == "healthy")
    before = containers(hand)
    hand.deafen()
    until(lambda: health() == "unhealthy")
    assert hand.firewall.drift().findings == {(ENVOY, "live", "agents_see", "tamper", "replace")}
    hand.firewall.draining("1").run()
    assert hand.firewall.current()
    assert containers(hand)[COREDNS] == before[COREDNS]
    assert containers(hand)[ENVOY] != before[ENVOY]
    until(lambda: health() == "healthy")


def test_many_rules_are_proven_as_well(hand: Hand) -> None:
    """Among a thousand rules, one that Envoy loaded from another file is reported and repaired."""
    firewall, file = hand.firewall, "hot/lds/listeners.json"
    before = firewall.settings.read_text()
    firewall.write(*(f"host{number}.test" for number in range(1000)))
    firewall.run()
    right = hand.read(ENVOY)[file]
    hand.write(ENVOY, "hot/lds/other.json", right.replace(b"host7.test", b"evil.test"))
    hand.move(ENVOY, "hot/lds/other.json", file)
    hand.reload(file)
    until(lambda: {each[2] for each in firewall.drift().findings} == {file, "listeners"})
    hand.write(ENVOY, file, right)  # without telling Envoy
    assert firewall.drift().findings == {(ENVOY, "live", "listeners", "tamper", "commit")}
    done = firewall.run()
    assert "load changed files into envoy" in done.err
    assert firewall.drift().expect().findings == set()
    firewall.settings.write_text(before)
    firewall.call("reload").expect()


def test_what_another_process_has_changed_is_seen(hand: Hand) -> None:
    """A process that has read what Envoy serves reads it again once Envoy has loaded something else."""
    firewall = hand.firewall
    before = firewall.settings.read_text()
    envoy = firewall.container(ENVOY)

    def by_another_process() -> Mapping[str, str]:
        with closing(connect(firewall.host, None, {})) as other:
            return HelperReader(other, envoy).probe().live

    with closing(connect(firewall.host, None, {})) as watching:
        first = HelperReader(watching, envoy).probe().live
        assert HelperReader(watching, envoy).probe().live == first
        for changed in ({"dst": "other.test"}, {"dst": "other.test", "proto": "http"}):
            firewall.write(changed)
            firewall.call("reload").expect()
            assert HelperReader(watching, envoy).probe().live == by_another_process() != first
        firewall.settings.write_text(before)
        firewall.call("reload").expect()
        assert HelperReader(watching, envoy).probe().live == first


def _change_coredns(release: Release) -> None:
    """Append a byte to the program, which still runs. The demo compiles another one."""
    for program in (release.package / "bin").glob("coredns-linux-*"):
        stacks.change_file(program, lambda content: content + b"\0")


CONTENT: Mapping[Callable[[Release], None], tuple[str, str, str]] = {
    stacks.change_corefile: (COREDNS, "boot", "boot/Corefile"),
    stacks.change_bootstrap: (ENVOY, "boot", "boot/bootstrap.json"),
    stacks.change_envoy_image: (ENVOY, "image", "id"),
    stacks.change_envoy_command: (ENVOY, "shape", "command"),
    _change_coredns: (COREDNS, "image", "id"),
}
"""Changes of a release, and the resulting findings by content."""


def test_upgrades(hand: Hand, tmp_path: Path) -> None:
    """Changed content is an upgrade in its layer, and one `run` replaces both containers and records why."""
    firewall = hand.firewall
    release, newer = stacks.copied_release(tmp_path), upgraded(firewall, tmp_path)
    for change in CONTENT:
        change(release)
    findings = newer.drift().findings
    assert {finding[3] for finding in findings} == {"upgrade"}
    by_content = {finding for finding in findings if finding[1] != "labels"}
    assert by_content == {(*found, "upgrade", "replace") for found in CONTENT.values()}
    assert {finding[0] for finding in findings if finding[2] == labels.STACK_BUILD_SHA} == {ENVOY, COREDNS}
    before = containers(hand)
    outcome = newer.draining("1").call("--log-format", "json", "run").expect()
    assert all(before[sibling].isdisjoint(after) for sibling, after in containers(hand).items())
    records = [json.loads(line) for line in outcome.err.splitlines() if line.startswith("{")]
    drifted = [each for each in records if each["event"] == "firewall_container_spec_drift"]
    assert {each["container"] for each in drifted} == {firewall.container(ENVOY), firewall.container(COREDNS)}
    assert all(each["running_stack_build_sha"] != each["desired_stack_build_sha"] for each in drifted)
    assert newer.current()
    firewall.draining("1").run()
    assert firewall.current()
