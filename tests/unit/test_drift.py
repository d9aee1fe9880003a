"""`drift` reports every difference of a firewall container in its layer, and `run` removes it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.agents.attachment import require_serving
from clawker_fw.errors import RefusedError
from clawker_fw.model.containers import ContainerSpec, Shape
from clawker_fw.model.differences import Cause, Layer, Verdict
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import pipeline
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.steps import ConvergeOptions
from clawker_fw.stack import labels
from clawker_fw.stack.envoy.sibling import LISTENERS, ROUTES
from clawker_fw.stack.files import FOLDER, public
from clawker_fw.stack.image_tar import BuiltImage
from devkit import stacks
from devkit.memory.engine import MemoryEngine

RULES = ("a.test", ".wild.test", {"dst": "h.test", "proto": "http"})


@pytest.fixture
def wanted(memory: MemoryEngine) -> Blueprint:
    """A stack that is up and current."""
    blueprint = stacks.blueprint(memory.facts(), *RULES)
    assert stacks.converged(memory, blueprint).diff.verdict is Verdict.CURRENT
    return blueprint


Tamper = Callable[[MemoryEngine], None]


def take_an_address(memory: MemoryEngine) -> None:
    """Let the engine give an agent one of our addresses."""
    image = memory.inside("clawker-envoy").image
    spec = ContainerSpec("agent", image, {}, Shape((), (), {"clawker-net": "10.213.1.200"}))
    memory.start(memory.create_container(spec))


def write(path: str, content: bytes | None) -> Tamper:
    """Return a tamper that changes or deletes a file in Envoy's volume."""

    def tamper(memory: MemoryEngine) -> None:
        files = memory.inside("clawker-envoy").files
        files.pop(path, None)
        if content is not None:
            files[path] = public(content)

    return tamper


def lose_a_label(memory: MemoryEngine) -> None:
    inside = memory.inside("clawker-coredns")
    kept = {key: text for key, text in inside.spec.labels.items() if key != labels.INFRA_CERTS_READY}
    inside.spec = replace(inside.spec, labels=kept)


def option(network: str, name: str, value: str) -> Tamper:
    """Return a tamper that gives a network an option that we do not set."""

    def tamper(memory: MemoryEngine) -> None:
        (found,) = [each for each in memory.networks() if each.name == network]
        memory.alter_network(network, options={**found.options, f"com.docker.network.bridge.{name}": value})

    return tamper


def stop_before_start(memory: MemoryEngine) -> None:
    """Create Envoy but do not start it, as a run killed between the two does."""
    memory.stop("clawker-envoy")
    container = memory.inside("clawker-envoy")
    container.status = "created"
    container.files = {path: file for path, file in container.files.items() if not path.startswith("good/")}


def open_folder(memory: MemoryEngine) -> None:
    """Make a folder writable for others, so that they could replace its files."""
    memory.inside("clawker-envoy").files["/fw/hot/lds"] = replace(FOLDER, mode=0o777)


def takes_agents(memory: MemoryEngine, wanted: Blueprint) -> bool:
    """Return whether an agent may start in the stack."""
    seen = pipeline.compare(memory, wanted)
    try:
        require_serving("clawker", seen.observed, seen.diff)
    except RefusedError as error:
        return error.code != "not-serving"
    return True


E, C = "envoy", "coredns"

# `tests/engine/test_tamper.py` performs many more on a real engine.
MATRIX = [
    (lose_a_label, (C, "labels", labels.INFRA_CERTS_READY, "tamper", "replace")),
    (write(ROUTES, None), (E, "hot", ROUTES, "tamper", "commit")),
    (write("stage/hot/lds/listeners.json", b"x"),
     (E, "boot", "stage/hot/lds/listeners.json", "tamper", "replace")),
    (write(f"good/{LISTENERS}", b"x"), (E, "hot", f"good/{LISTENERS}", "tamper", "commit")),
    (write(f"good/{ROUTES}", None), (E, "hot", f"good/{ROUTES}", "tamper", "commit")),
    (stop_before_start, (E, "state", "status", "tamper", "start")),
    (open_folder, (E, "boot", "/fw/hot/lds", "tamper", "replace")),
    (take_an_address, (C, "state", "address.10.213.1.200", "tamper", "detach")),
    (lambda memory: memory.alter_network("clawker-net", driver="macvlan"),
     (C, "shape", "networks.clawker-net.driver", "tamper", "recreate-networks")),
    *((option(name, *word), (owner, "shape", f"networks.{name}.options", "tamper", "recreate-networks"))
      for word in (("enable_ip_masquerade", "false"), ("gateway_mode_ipv4", "routed"), ("host_ipv4", "10.9.9.9"))
      for name, owner in (("clawker-net", C), ("clawker-egress", E))),
    (option("clawker-egress", "inhibit_ipv4", "true"),
     (E, "shape", "networks.clawker-egress.options", "tamper", "recreate-networks")),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "finding"), MATRIX, ids=[" ".join(finding[:3]) for _, finding in MATRIX])
def test_each_tamper_is_seen_and_closed(
    tamper: Tamper, finding: tuple[str, str, str, str, str], memory: MemoryEngine, wanted: Blueprint
) -> None:
    """`drift` reports exactly this finding, agents may not start after tampering, and `run` repairs it."""
    tamper(memory)
    assert stacks.found(memory, wanted) == {finding}
    assert takes_agents(memory, wanted) is (finding[3] != "tamper")
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT
    assert stacks.found(memory, wanted) == set()


def test_what_agents_see_is_told_of_the_right_sibling(memory: MemoryEngine, wanted: Blueprint) -> None:
    """CoreDNS tests Envoy as agents do. The finding names the right container, and only if there is no other."""
    coredns, envoy = memory.inside("clawker-coredns"), memory.inside("clawker-envoy")
    coredns.agents_see = {"coredns": (), "envoy": ("10.213.1.10:443 over https: no answer",)}
    assert stacks.found(memory, wanted) == {(E, "live", "agents_see", "tamper", "replace")}
    envoy.network_differences = ("eth0 is down",)
    assert stacks.found(memory, wanted) == {(E, "live", "network", "tamper", "replace")}
    envoy.network_differences, coredns.network_differences = (), ("eth0 is down",)
    assert stacks.found(memory, wanted) == {(C, "live", "network", "tamper", "replace")}
    coredns.network_differences = ()
    coredns.agents_see = {"coredns": ("10.213.1.53:53 over tcp: no answer",), "envoy": ()}
    assert stacks.found(memory, wanted) == {(C, "live", "agents_see", "tamper", "replace")}
    coredns.agents_see = {"coredns": (), "envoy": ()}
    assert stacks.found(memory, wanted) == set()


def test_an_engine_s_word_on_health_can_be_old(memory: MemoryEngine, wanted: Blueprint) -> None:
    """Docker's `unhealthy` counts only while a health check would still fail."""
    envoy = memory.inside("clawker-envoy")
    envoy.health = "unhealthy"
    assert stacks.found(memory, wanted) == set()
    envoy.unhealthy = "not live at version 1"
    assert stacks.found(memory, wanted) == {("envoy", "state", "health", "tamper", "replace")}
    (finding,) = pipeline.compare(memory, wanted).diff.findings
    assert finding.running == "unhealthy: not live at version 1"
    envoy.files["state/committed.json"] = public(
        b"{}"
    )  # the check relies on it, so that finding explains the failure
    assert stacks.found(memory, wanted) == {("envoy", "hot", "state/committed.json", "tamper", "commit")}
    envoy.files.pop("state/committed.json")
    assert stacks.converged(memory, wanted).diff.verdict is Verdict.CURRENT


def test_a_pulled_image_that_was_removed_is_pulled_again(memory: MemoryEngine) -> None:
    """Without the image, ids can't be compared, so it is drift until the image is there again."""
    reference = "proxy@sha256:" + "1" * 64
    pulled = stacks.blueprint(memory.facts(), "a.test", images={"envoy": reference})
    stacks.converged(memory, pulled)
    before = memory.inside("clawker-envoy").id
    memory.retag(reference, None)
    assert stacks.found(memory, pulled) == {("envoy", "image", "reference", "tamper", "pull")}
    stacks.converged(memory, pulled)
    assert stacks.found(memory, pulled) == set()
    assert memory.inside("clawker-envoy").id == before


def test_what_earlier_releases_left_goes(memory: MemoryEngine, wanted: Blueprint) -> None:
    """Unused images and volumes of ours are not drift, but `run` removes them."""
    old = BuiltImage("clawker-fw/envoy", "0.0.1", "amd64", ())
    memory.load_image(old.archive(), 1, lambda _: None)
    used = BuiltImage("clawker-fw/envoy", "0.0.2", "amd64", ())
    memory.load_image(used.archive(), 1, lambda _: None)
    memory.create_container(ContainerSpec("other-envoy", used.reference, {}, Shape((), (), {})))
    memory.lost_volumes = {"orphan": "clawker", "another": "other"}
    assert stacks.found(memory, wanted) == set()
    seen = stacks.converged(memory, wanted)
    assert memory.image(old.reference) is None
    assert memory.image(used.reference) is not None
    assert memory.lost_volumes == {"another": "other"}
    assert seen.plan(ConvergeOptions()).empty


def test_a_network_that_differs_is_told_of_a_silent_program(memory: MemoryEngine, wanted: Blueprint) -> None:
    """A network difference is reported even if the program is silent, because it may be the cause."""
    memory.inside("clawker-envoy").silent = "no answer"
    memory.inside("clawker-envoy").network_differences = ("a rule is not ours",)
    assert stacks.found(memory, wanted) == {
        (E, "live", "answer", "tamper", "replace"),
        (E, "live", "network", "tamper", "replace"),
    }
    assert pipeline.compare(memory, wanted).diff.verdict is Verdict.DRIFTED
    memory.inside("clawker-envoy").network_differences = ()
    assert pipeline.compare(memory, wanted).diff.verdict is Verdict.UNKNOWN
    assert not takes_agents(memory, wanted)


@pytest.mark.parametrize(
    ("change", "layers"),
    [
        ({"otel": {"infra_port": 4320}}, {("envoy", "labels"), ("coredns", "labels")}),
        ({"drain_timeout": 5}, set()),
        ({"limits": {"connections": 5}}, {("envoy", "boot")}),
        ({"limits": {"connections_per_second": 5}}, {("envoy", "boot"), ("coredns", "boot")}),
        ({"limits": {"queries_per_second": 5}}, {("coredns", "boot")}),
        ({"limits": {"resolver_connections": 5}}, {("coredns", "boot")}),
    ],
)
@pytest.mark.usefixtures("wanted")
def test_a_changed_setting_is_told_as_one(
    change: dict[str, Any], layers: set[tuple[str, str]], memory: MemoryEngine
) -> None:
    """A setting changes only the containers that it affects."""
    changed = stacks.blueprint(memory.facts(), *RULES, **change)
    findings = stacks.found(memory, changed)
    assert {(sibling, layer) for sibling, layer, *_ in findings} == layers
    assert {cause for *_, cause, _ in findings} <= {"settings"}
    assert stacks.converged(memory, changed).diff.verdict is Verdict.CURRENT


def test_a_rule_changed_with_the_release_is_an_upgrade(
    memory: MemoryEngine, wanted: Blueprint, tmp_path: Path
) -> None:
    """Differences of a container from another release are upgrades, even if the settings changed too."""
    upgraded = stacks.copied_release(tmp_path)
    stacks.change_corefile(upgraded)
    changed = stacks.blueprint(memory.facts(), "b.test", release=upgraded, otel={"infra_port": 4320})
    findings = stacks.found(memory, changed)
    assert ("coredns", "labels", labels.OTEL_INFRA_PORT, "upgrade", "replace") in findings
    assert {cause for *_, cause, _ in findings} == {"upgrade"}
    memory.inside("clawker-envoy").files["hot/lds/listeners.json"] = public(b"{}")
    assert ("envoy", "hot", "hot/lds/listeners.json", "tamper", "commit") in stacks.found(memory, changed)
    assert stacks.converged(memory, changed).diff.verdict is Verdict.CURRENT
    assert wanted.release.build_sha != upgraded.build_sha


def test_images_are_told_by_version(memory: MemoryEngine, wanted: Blueprint) -> None:
    """Versions come from the program or its image; otherwise the version is unknown."""

    def versions(**images: str) -> dict[str, tuple[str | None, str | None] | None]:
        changed = stacks.blueprint(memory.facts(), *RULES, images=images)
        found = pipeline.compare(memory, changed).diff.findings
        return {each.sibling.value: each.versions for each in found if each.layer is Layer.IMAGE}

    bundled = wanted.images[Sibling.ENVOY].version
    digest = "@sha256:" + "1" * 64
    assert versions(envoy=f"proxy:v1.41.0{digest}") == {"envoy": (bundled, "1.41.0")}
    memory.inside("clawker-envoy").build = "6f0b1e9a/1.39.3/Clean/RELEASE/BoringSSL"
    assert versions(envoy=f"proxy:v1.41.0{digest}") == {"envoy": ("1.39.3", "1.41.0")}
    assert versions(envoy=f"proxy{digest}") == {"envoy": ("1.39.3", None)}
    memory.inside("clawker-coredns").build = "CoreDNS-1.14.0"
    assert versions(coredns=f"resolver:1.15.1{digest}") == {"coredns": ("1.14.0", "1.15.1")}
    assert versions() == {}


def test_an_envoy_older_than_the_release_s_own_is_warned_of(memory: MemoryEngine) -> None:
    """An Envoy older than the pinned one is a warning; a newer or bundled one is not."""

    def warned(build: str, **images: str) -> list[str]:
        blueprint = stacks.blueprint(memory.facts(), *RULES, images=images)
        stacks.converged(memory, blueprint)
        memory.inside("clawker-envoy").build = build
        seen = pipeline.compare(memory, blueprint)
        assert seen.diff.verdict is Verdict.CURRENT
        return [each.code for each in seen.advice]

    reference = "proxy@sha256:" + "1" * 64
    assert warned("6f0b1e9a/1.9.0/Clean/RELEASE/BoringSSL", envoy=reference) == ["envoy-outdated"]
    assert warned("6f0b1e9a/99.0.0/Clean/RELEASE/BoringSSL", envoy=reference) == []
    assert warned("memory", envoy=reference) == []
    assert warned("6f0b1e9a/1.9.0/Clean/RELEASE/BoringSSL") == []


def test_a_bug_that_envoy_detects_in_itself_is_a_warning(memory: MemoryEngine, wanted: Blueprint) -> None:
    """The verdict stays, and the warning says which lines to report. An earlier helper can't tell."""
    stacks.converged(memory, wanted)
    for failed, words in ((None, ()), (0, ()), (1, ("1 check ",)), (1234, ("1,234 checks ",))):
        memory.inside("clawker-envoy").failed_checks = failed
        seen = pipeline.compare(memory, wanted)
        assert seen.diff.verdict is Verdict.CURRENT
        assert [each.code for each in seen.advice] == ["failed-checks" for _ in words]
        shown = " ".join(each.message for each in seen.advice)
        assert all(text in shown for text in words)
        assert ("docker logs clawker-envoy" in shown) is bool(words)


def test_a_changed_subnet_waits_for_the_agents(memory: MemoryEngine, wanted: Blueprint) -> None:
    """A network is recreated only without agents on it."""
    agent = memory.create_container(stacks.bare_container("agent", wanted, "clawker-net"))
    memory.start(agent)
    changed = stacks.blueprint(memory.facts(), *RULES, network={"subnet": "10.99.0.0/20"})
    field = "networks.clawker-net.subnet"
    assert ("coredns", "shape", field, "settings", "recreate-networks") in stacks.found(memory, changed)
    with pytest.raises(RefusedError) as caught:
        stacks.converged(memory, changed)
    assert caught.value.code == "network-in-use"
    assert "attached: agent" in caught.value.context
    assert stacks.found(memory, wanted) == set()
    memory.remove(agent)
    assert stacks.converged(memory, changed).diff.verdict is Verdict.CURRENT


@pytest.mark.usefixtures("wanted")
def test_a_changed_subnet_is_a_change_of_the_settings(memory: MemoryEngine) -> None:
    """A changed subnet counts as a settings change in every finding, unless CoreDNS lost its original address."""
    changed = stacks.blueprint(memory.facts(), *RULES, network={"subnet": "10.99.0.0/20"})
    found = {(each.field, each.running, each.cause) for each in pipeline.compare(memory, changed).diff.findings}
    assert ("service_address", "10.213.1.53", Cause.SETTINGS) in found
    assert {cause for _, _, cause in found} == {Cause.SETTINGS}
    inside = memory.inside("clawker-coredns")
    inside.addresses -= set(inside.addresses) - set(inside.networks.values())  # and the claim in its volume stays
    found = {(each.field, each.running, each.cause) for each in pipeline.compare(memory, changed).diff.findings}
    assert ("service_address", "not held", Cause.TAMPER) in found
