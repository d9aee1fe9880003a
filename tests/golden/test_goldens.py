"""Whole rendered files and outputs; `pytest tests/golden --update-goldens` writes them, to read their diff."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from clawker_fw.agents.attachment import Attachment
from clawker_fw.diagnose.explaining import ConnectionAnswer
from clawker_fw.diagnose.explanation import Explainer
from clawker_fw.diagnose.trial import Attempted
from clawker_fw.fleet.hosts import HostVerdict, LeftOut, StackRelease, Trouble
from clawker_fw.model.desired import Rules
from clawker_fw.model.differences import Action, Cause, Finding, Layer, Verdict
from clawker_fw.model.engines import Machine
from clawker_fw.model.stacks import Sibling, Slots
from clawker_fw.model.trials import FoundAddress, Lookup, Trial, TrialStep
from clawker_fw.reconcile import pipeline
from clawker_fw.reconcile.desired_state import Blueprint, desired_state
from clawker_fw.reconcile.pipeline import Comparison
from clawker_fw.reconcile.steps import ConvergeOptions
from clawker_fw.report import documents, explaining, fleet, step_display, text
from clawker_fw.report.documents.parts import SettingsNamed
from clawker_fw.report.fleet import FleetStatusDocument, LiveRules, Proof, ReleaseUsed, Row
from clawker_fw.rules.policy import Policy
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.rules.target import parse_target
from clawker_fw.settings.values import LimitSettings
from clawker_fw.stack import labels, virtual
from clawker_fw.stack.envoy.listeners import listeners
from clawker_fw.stack.envoy.telemetry import Serving
from clawker_fw.stack.envoy.tls_interception import table
from clawker_fw.stack.release import Release
from clawker_fw.stack.resources import discovery_response
from clawker_fw.stack.topology import Addressing, EnvoyAddresses
from devkit import stacks
from devkit.envoy import shipped_clusters
from devkit.memory.engine import MemoryEngine

EXPECTED = Path(__file__).with_name("expected")
RULES = (
    "api.example.com",
    ".example.org",
    {"dst": "deep.er.example.org", "port": 8443},
    {"dst": "mirror.example.net", "proto": "http"},
    {"dst": "mirror.example.net", "proto": "http", "port": 8080},
    {"dst": "registry.internal.example", "port": 5000, "allow_private": True},
    {"dst": ".internal.example", "proto": "http", "allow_private": True},
    {"dst": "not.internal.example", "action": "deny"},
    {"dst": ".former.example.org", "action": "deny", "proto": "https"},
    {"dst": "quic.example.net", "proto": "udp", "port": 443},
    {"dst": "10.1.2.3", "as": "time.internal.example", "proto": "udp", "port": 123, "allow_private": True},
)
INSPECTED = (
    {
        "dst": "api.example.com",
        "path_rules": [
            {"path": "/v1", "methods": ["GET", "POST"]},
            {"path": "/v1/private", "action": "deny"},
            {"path": "~/v[23]/[^/]+", "methods": ["GET"]},
        ],
    },
    {"dst": "git.example.com", "git": {"acme/site": "write", "acme/widgets": "read"}, "lfs": True},
    {
        "dst": ".example.org",
        "inspect": True,
        "port": 8443,
        "allow_private": True,
        "insecure_skip_tls_verify": True,
    },
    {"dst": "no.example.org", "action": "deny"},
    {"dst": "other.example.org", "port": 8443},
)
ADDRESSES = Addressing(IPv4Network("10.213.0.0/20"), IPv4Network("10.214.0.0/24"))
MACHINE = Machine(2, 8 << 30)

Check = Callable[[str, bytes], None]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Check:
    """Compare content with a golden file, or write the file."""

    def check(name: str, content: bytes) -> None:
        path = EXPECTED / name
        if request.config.getoption("--update-goldens"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        assert path.read_bytes().decode() == content.decode(), f"{name} has changed: read the diff"

    return check


@pytest.fixture
def blueprint(release: Release) -> Blueprint:
    """A stack with rules of every kind."""
    return stacks.blueprint(MemoryEngine().facts(), *RULES, release=release)


def addressing(blueprint: Blueprint) -> Addressing:
    """Return all addresses, including those of names."""
    return replace(ADDRESSES, numbers=virtual.assigned(blueprint.policy.opaque, virtual.Numbers(), ADDRESSES.room))


def pretty(content: bytes) -> bytes:
    """Return indented JSON with a readable diff."""
    return json.dumps(json.loads(content), indent=1, sort_keys=True).encode() + b"\n"


@pytest.mark.parametrize("sibling", list(Sibling))
def test_files(sibling: Sibling, blueprint: Blueprint, golden: Check) -> None:
    """Every boot and hot file of a container, byte for byte."""
    wanted = desired_state(blueprint, addressing(blueprint), MACHINE, Slots(0, 1)).siblings[sibling]
    for path, file in {**wanted.boot, **wanted.hot}.items():
        if path.startswith("bin/"):
            continue
        golden(f"{sibling}/{path}", pretty(file.content) if path.endswith(".json") else file.content)


@pytest.mark.parametrize("sibling", list(Sibling))
def test_shape(sibling: Sibling, blueprint: Blueprint, golden: Check) -> None:
    """The shape of each container."""
    wanted = desired_state(blueprint, addressing(blueprint), MACHINE, Slots(1, 0)).siblings[sibling]
    golden(f"{sibling}/shape.json", pretty(json.dumps(labels.shape_fields(wanted.shape)).encode()))


def test_inspected(golden: Check) -> None:
    """The files of a stack with inspected TLS: the table, the listeners, and the clusters."""
    rules = RuleSet.of(RuleEntry.model_validate(entry).rule() for entry in INSPECTED)
    policy, here = Policy(rules), IPv4Address("10.213.1.10")
    for name, made in (
        ("routes", [table(policy, 1000)]),
        ("listeners", listeners(Serving(policy, EnvoyAddresses(here, here, here, here), LimitSettings()))),
        ("clusters", shipped_clusters("https-rules", trusted_ca="/etc/ssl/certs/ca-certificates.crt")),
    ):
        golden(f"inspected/{name}.json", pretty(discovery_response(made)))


def test_drift_labels(golden: Check) -> None:
    """The names and values of the three labels, which are a contract."""
    stamped = labels.drift_labels(infra_certs_ready=False, otel_infra_port=4319, stack_build_sha="f" * 64)
    golden("drift-labels.json", pretty(json.dumps(stamped).encode()))


def shown(renderable: RenderableType, width: int = 120) -> bytes:
    console = Console(width=width, no_color=True, highlight=False, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable, soft_wrap=True)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).encode() + b"\n"


@pytest.fixture
def stale(blueprint: Blueprint, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    """A stack with changed rules, a changed setting and tampering, and constant digests."""
    monkeypatch.setattr("clawker_fw.reconcile.apply.time.sleep", lambda _: None)
    memory = MemoryEngine()
    stacks.converged(memory, blueprint)
    memory.inside("clawker-envoy").connections = 3
    memory.stop("clawker-coredns")
    changed = stacks.blueprint(memory.facts(), "api.example.com", otel={"infra_port": 4320})
    return pipeline.compare(memory, changed)


def test_drift_report(stale: Comparison, golden: Check) -> None:
    """The output of `drift`."""
    golden("drift.txt", shown(text.drift_report(stale.diff, pipeline.summary_of(stale), files=True)))


def test_plan_report(stale: Comparison, golden: Check, blueprint: Blueprint) -> None:
    """The steps that `run --dry-run` prints."""
    steps = stale.plan(ConvergeOptions())
    printed = shown(step_display.plan_report(steps))
    for image in blueprint.images.values():
        printed = printed.replace(image.reference.encode(), image.sibling.value.encode())
    golden("plan.txt", printed)


def test_compose(golden: Check) -> None:
    """The override file for Compose."""
    golden("compose.yaml", Attachment("clawker-net", "10.213.8.53").compose(["agent", "web"]).encode() + b"\n")


ENTRIES: tuple[dict[str, Any], ...] = (
    {"dst": "api.example.com", "note": "the API \x1b[2J"},
    {"dst": ".example.org"},
    {"dst": "former.example.org", "action": "deny"},
    {"dst": "mirror.example.net", "proto": "http", "until": "2026-01-31T18:00:00Z"},
    {"dst": "mirror.example.net", "port": 8443},
)
OFFICE = FoundAddress("10.0.0.7", ("guarded",))
FOUND = Lookup((FoundAddress("198.51.100.7", ()), OFFICE))
ASKED: dict[str, Lookup | None] = {
    "https://api.example.com": FOUND,
    "api.exmple.com": Lookup((), "no such name"),
    "former.example.org": FOUND,
    "office.example.org": Lookup((OFFICE,)),
    "mirror.example.net": FOUND,
    "http://mirror.example.net": None,
    "https://[2001:db8::1]/": None,
}


def test_explanation_report(golden: Check) -> None:
    """The output of `explain` for each kind of answer."""
    entries = [RuleEntry.model_validate(entry) for entry in ENTRIES]
    rules = RuleSet.of(entry.rule(f"clawker-fw.yaml, line {place}") for place, entry in enumerate(entries, 2))
    printed = b""
    for asked, lookup in ASKED.items():
        found = Explainer(rules, 1780000000).explain(parse_target(asked))
        answer = ConnectionAnswer(
            found.with_addresses(lookup) if lookup else found, Rules(5, ""), unasked="" if lookup else "x"
        )
        printed += b"$ " + asked.encode() + b"\n" + shown(explaining.explanation_report(answer)) + b"\n"
    golden("explain.txt", printed)


def test_explanation_of_an_attempt(golden: Check) -> None:
    """The output of `explain --live` where the stack differs from the rules."""
    rules = RuleSet.of(RuleEntry.model_validate(entry).rule("clawker-fw.yaml") for entry in ENTRIES)
    found = Explainer(rules, 0).explain(parse_target("api.example.com")).with_addresses(FOUND)
    trial = Trial(
        (
            TrialStep("resolve", "", 0.0012, ok=True, status=0, outcome="10.213.8.10"),
            TrialStep("connect", "", 0.0004, ok=True, status=0, outcome="10.213.8.10:443"),
            TrialStep("handshake", "", 0.01, ok=False, status=0, outcome="closed without an answer"),
        )
    )
    answer = ConnectionAnswer(found, Rules(5, ""), attempted=Attempted(trial, Reason.NO_RULE))
    golden("explain-live.txt", shown(explaining.explanation_report(answer)))


@pytest.mark.parametrize("place", ["inspected/listeners.json", "envoy/hot/lds/listeners.json"])
def test_no_record_has_a_header_that_may_be_a_secret(place: str) -> None:
    """Whatever a secret's header is called, only a request's method, host and path are on record."""
    content = (EXPECTED / place).read_text(encoding="utf-8")
    named = set(re.findall(r"%(?:REQ|REQUEST_HEADER|RESP|TRAILER)[A-Z_]*\(([^:?)]*:?[^:?)]*)", content))
    assert named == {":AUTHORITY", ":METHOD"}
    assert set(re.findall(r"headers\[([^]]*)\]", content)) <= {"':authority'"}


FLEET = FleetStatusDocument.of(
    (
        Row(
            "build-1",
            HostVerdict.CURRENT,
            "ssh://build-1",
            "docker context build-1",
            engine="28.5.2",
            release=StackRelease("0.1.0", "b51912e" * 9, installed=True),
            rules=LiveRules(12, "582dbac" * 9),
            agents=4,
            proven=Proof("2026-01-01T00:00:00+00:00", "comparison"),
            seconds=0.5,
        ),
        Row(
            "build-2",
            HostVerdict.DRIFTED,
            "ssh://build-2",
            "docker context build-2",
            engine="20.10.24",
            release=StackRelease("0.0.9", "77aa012" * 9, installed=False),
            rules=LiveRules(11, "0a1b2c3" * 9),
            agents=12,
            summary=(
                "Envoy will be replaced, a lookup may be delayed:",
                "  upgrade from 0.0.9 (77aa012) to 0.1.0",
            ),
            differences=(
                Finding(Sibling.ENVOY, Layer.SHAPE, "pids", 100, 200, Cause.UPGRADE, Action.REPLACE),
                Finding(
                    Sibling.COREDNS,
                    Layer.HOT,
                    "hot/policy.json",
                    "a" * 64,
                    "b" * 64,
                    Cause.SETTINGS,
                    Action.COMMIT,
                ),
            ),
            siblings=dict.fromkeys(Sibling, Verdict.DRIFTED),
            made_from=("/etc/other.yaml on build-2",),
            seconds=0.75,
        ),
        Row(
            "build-3",
            HostVerdict.OPEN,
            "ssh://build-3",
            "docker context build-3",
            engine="28.5.2",
            release=StackRelease("0.1.0", "b51912e" * 9, installed=True),
            rules=LiveRules(12, "582dbac" * 9),
            agents=2,
            open_agents=("trainer",),
            seconds=0.5,
        ),
        Row("build-4", HostVerdict.NO_STACK, "ssh://build-4", "docker context build-4", engine="28.5.2", agents=0),
        Row(
            "build-5",
            HostVerdict.UNREACHABLE,
            "ssh://build-5",
            "docker context build-5",
            error=Trouble(
                "engine-unreachable",
                "The Docker engine at ssh://build-5 can't be reached.",
                ("Permission denied (publickey).", "named by docker context build-5"),
                "Start it, or name another one with --host, --context or DOCKER_HOST.",
            ),
            seconds=1.25,
        ),
    ),
    (LeftOut("default", "build-1"),),
    SettingsNamed("/etc/clawker-fw.yaml", "--config"),
    ReleaseUsed("0.1.0", "b51912e" * 9),
    findings=True,
)


def test_fleet_status(golden: Check) -> None:
    """Many hosts as text, with their differences."""
    golden("fleet-status.txt", shown(fleet.status_report(FLEET), 80))


def test_fleet_in_json(golden: Check) -> None:
    """Many hosts as JSON."""
    golden("fleet-diff.json", documents.text(FLEET).encode() + b"\n")
