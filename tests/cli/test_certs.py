"""`clawker-fw certs`, and the effect of telemetry's certificates on a stack."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.certificates.store import TelemetryStore
from clawker_fw.certificates.x509 import certificate
from clawker_fw.model.stacks import Sibling
from clawker_fw.stack.collector import CLUSTERS, FILE
from clawker_fw.stack.labels import INFRA_CERTS_READY, OTEL_INFRA_PORT
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command, Outcome

DAY = 86400
SIBLINGS = ("clawker-envoy", "clawker-coredns")


@dataclass
class Stack:
    """A stack with telemetry, on a machine whose state folder and clock belong to the test."""

    command: Command
    memory: MemoryEngine
    settings: Path
    state: Path
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *arguments: str) -> Outcome:
        return self.command(*arguments, XDG_STATE_HOME=str(self.state))

    def json(self, *arguments: str) -> Any:  # noqa: ANN401 - JSON
        return self(*arguments, "--format", "json").answer

    def otel(self, **values: object) -> None:
        text = json.dumps({"rules": [{"dst": "a.test"}], "otel": values})
        self.settings.write_text(text)

    def later(self, days: float) -> None:
        """Let time pass for certificates."""
        clock = TelemetryStore.__dataclass_fields__["clock"].default
        assert callable(clock)
        provide = _provide

        def now() -> float:
            return float(clock()) + days * DAY

        self.monkeypatch.setattr(
            TelemetryStore,
            "provide",
            lambda store, running: provide(
                TelemetryStore(store.folder, store.project, store.keeps, now, store.own), running
            ),
        )

    def causes(self) -> set[str]:
        """Compare, and return the cause of each finding."""
        return {each["cause"] for each in self("drift", "--format", "json").findings}

    @property
    def made(self) -> list[object]:
        """Identify the containers: other values mean replacements."""
        return [id(self.memory.inside(name)) for name in SIBLINGS]

    @property
    def ready(self) -> set[str]:
        """The label of both containers."""
        return {self.memory.inside(name).spec.labels[INFRA_CERTS_READY] for name in SIBLINGS}

    @property
    def keys(self) -> list[str]:
        """Every line of every private key on this machine."""
        files = [*self.state.rglob("*.key"), *self.settings.parent.rglob("*.key")]
        return [line for path in files for line in path.read_text().splitlines() if "-----" not in line]


_provide = TelemetryStore.provide


@pytest.fixture
def stack(
    command: Command,
    memory: MemoryEngine,
    settings_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Stack:
    """A stack whose settings name a collector, not running yet."""
    found = Stack(command, memory, settings_file, tmp_path_factory.mktemp("state"), monkeypatch)
    found.otel(endpoint="collector.test:4317")
    return found


def test_telemetry_is_ready_from_the_first_run_on(stack: Stack) -> None:
    """A run creates the certificates for both containers; then nothing differs."""
    assert stack("drift").code == 1
    assert not [each for each in stack.state.rglob("*") if each.is_file()]  # reading creates no certificate
    assert stack("run").code == 0
    assert stack.ready == {"true"}
    assert stack("drift").code == 0
    assert stack.memory.inside("clawker-envoy").files[CLUSTERS].secret
    told = json.loads(stack.memory.inside("clawker-coredns").files[FILE].content)
    assert told["server_name"] == "collector.test"
    assert told["endpoint"].endswith(".1.30:4319")
    assert told["resource"]["service.name"] == "clawker-fw-coredns"


def test_another_endpoint_is_a_commit(stack: Stack) -> None:
    """Another endpoint is applied without a replacement; the relay's port is a label."""
    assert stack("run").code == 0
    before = stack.made
    stack.otel(endpoint="other.test:4317")
    assert stack("run").code == 0
    assert stack.made == before
    stack.otel(endpoint="other.test:4317", infra_port=4444)
    assert stack("run").code == 0
    assert not set(before) & set(stack.made)
    assert stack.memory.inside("clawker-envoy").spec.labels[OTEL_INFRA_PORT] == "4444"


def test_certificates_are_renewed_without_a_replacement(stack: Stack) -> None:
    """After two thirds of their lifetime, a run renews certificates in the running containers."""
    assert stack("run").code == 0
    before, file = stack.made, stack.memory.inside("clawker-coredns").files[FILE]
    stack.later(59)
    assert stack("drift").code == 0
    stack.later(61)
    outcome = stack("drift", "--format", "json")
    found = outcome.findings
    assert {each["field"] for each in found} >= {CLUSTERS, FILE}
    assert {each["action"] for each in found} == {"commit"}
    assert stack("run").code == 0
    assert stack.made == before
    assert stack.memory.inside("clawker-coredns").files[FILE] != file
    assert stack("drift").code == 0


@pytest.mark.parametrize(
    ("spoil", "days", "reason"),
    [
        (
            lambda own: (own / "envoy.key").write_bytes((own / "coredns.key").read_bytes()),
            0,
            "the key belongs to another",
        ),
        (lambda own: own.rename(own.with_name("elsewhere")), 0, "No such file"),
        (lambda _: None, 91, "have expired"),
    ],
)
def test_what_is_not_ready_enforces_as_ever(
    spoil: Callable[[Path], object], days: float, reason: str, stack: Stack
) -> None:
    """Unusable certificates of the user's own are a warning, and the current ones stay while valid."""
    own = stack.settings.parent / "own"
    TelemetryStore(own, "clawker", keeps=True).provide()
    (own / "ca.key").unlink()
    stack.otel(endpoint="collector.test:4317", certs_dir="own")
    assert stack("run").code == 0
    assert stack.ready == {"true"}
    before = stack.made
    spoil(own)
    stack.later(days)
    assert stack.causes() == ({"settings"} if days else set())
    outcome = stack("run")
    assert outcome.code == 0
    assert reason in outcome.said
    if days:
        assert stack.ready == {"false"}
        assert not set(before) & set(stack.made)
    else:  # the current certificates are valid, so they stay
        assert stack.made == before
    assert stack("status").code == 0
    assert stack("drift").code == 0


def test_a_stack_that_never_had_certificates_is_not_ready(stack: Stack) -> None:
    """Without any usable certificates, the label is false, and everything else works."""
    stack.otel(endpoint="collector.test:4317", certs_dir="nowhere")
    outcome = stack("run")
    assert outcome.code == 0
    assert "Nothing is sent to `otel.endpoint`" in outcome.said
    assert stack.ready == {"false"}
    assert stack.memory.inside("clawker-coredns").files[FILE].content == b"{}"
    shown = stack("certs", "show", "--format", "json")
    assert (shown.code, shown.answer["ready"]) == (1, False)
    assert "nowhere" in shown.json["reason"]
    assert stack("certs", "rotate").code == 6, "the user's own are the user's to renew"


def test_telemetry_is_ready_when_the_siblings_send(stack: Stack) -> None:
    """Telemetry is ready only once both containers have loaded the certificates, the endpoint and the name."""

    def expect(reason: str) -> None:
        shown, answer = stack("certs", "show"), stack("certs", "show", "--format", "json")
        assert shown.code == answer.code == (1 if reason else 0)
        found = answer.answer
        assert found["ready"] is not bool(reason)
        assert (found["reason"] or "") == (f"{reason}; `clawker-fw run` changes that" if reason else "")
        begin = "Not ready, so nothing is sent to " if reason else "Ready: Envoy and CoreDNS send to "
        assert f"{begin}{found['endpoint']}" in shown.out
        assert reason in shown.said

    expect("the stack clawker is not up")
    stack.otel()
    assert stack("run").code == 0
    stack.otel(endpoint="collector.test:4317")
    expect("envoy and coredns have loaded no certificate")
    assert stack("run").code == 0
    expect("")
    stack.otel(endpoint="other.test:4317")
    expect("Envoy and CoreDNS send to collector.test:4317")
    stack.otel(endpoint="collector.test:4317", server_name="other.test")
    expect("Envoy and CoreDNS send to collector.test:4317 only if it is collector.test")
    stack.otel(endpoint="collector.test:4317", sample=0.5)
    expect("")
    stack.memory.inside("clawker-envoy").live = {}
    expect("envoy has loaded no certificate")
    stack.memory.stop("clawker-coredns")
    expect("envoy and coredns have loaded no certificate")
    assert stack("run").code == 0
    assert stack("certs", "rotate").code == 0
    expect("")  # the renewed certificates are not loaded yet, but the loaded ones are valid
    stack.later(91)
    outcome = stack("certs", "show", "--format", "json")
    assert outcome.code == 1
    assert "the certificates have expired at" in outcome.json["reason"]


def test_certs_export(stack: Stack, tmp_path: Path) -> None:
    """The collector gets only the CA's certificate and its own pair for its name."""
    refused = stack("certs", "export", "collector", str(tmp_path / "tls"))
    assert refused.code == 6
    assert "has not been made yet" in refused.said
    assert stack("run").code == 0
    outcome = stack("certs", "export", "collector", str(tmp_path / "tls"), "--format", "json")
    (collector,) = (each for each in outcome.answer["certificates"] if each["name"] == "collector")
    assert (collector["use"], collector["names"]) == ("server", ["collector.test"])
    assert {each.name for each in (tmp_path / "tls").iterdir()} == {"ca.crt", "collector.crt", "collector.key"}
    stack.otel()
    assert stack("certs", "export", "collector", str(tmp_path / "tls")).code == 3
    shown = stack("certs", "show")
    assert (shown.code, "is not set" in shown.out) == (0, True)


def test_what_the_user_should_renew(stack: Stack, tmp_path: Path) -> None:
    """Every comparing command warns of an old collector certificate, with the time left."""
    assert stack("run").code == 0
    assert stack("certs", "export", "collector", str(tmp_path / "tls")).code == 0
    shown = certificate((tmp_path / "tls" / "collector.crt").read_bytes())
    stack.memory.inside("clawker-coredns").collector = shown
    assert stack.json("certs", "show")["due"] == []
    stack.later(250)
    assert stack("run").code == 0
    sentence = "The collector's certificate is valid until"
    for line in ("run", "drift", "status", "doctor"):
        outcome = stack(*line.split())
        assert sentence in outcome.said, line
    assert sentence in stack.json("certs", "show")["due"][0]
    assert sentence in stack("certs", "show").said


def test_no_key_is_ever_shown(stack: Stack) -> None:
    """No output or label, and no record outside the secret files, has any line of a private key."""
    outcomes = [stack("--debug", "run", "--format", "json")]
    stack.later(61)
    lines = ("drift --diff", "drift --diff --format json", "status --format json", "certs show --format json")
    outcomes += [stack("--debug", "--log-format", "json", *line.split()) for line in lines]
    outcomes += [stack("run", "--dry-run", "--diff"), stack("--debug", "run", "--diff")]
    outcomes += [stack("certs", "rotate", "--format", "json"), stack("--debug", "reload", "--diff")]
    outcomes += [stack("certs", "export", "collector", str(stack.state / "tls"), "--format", "json")]
    texts = [text for each in outcomes for text in (each.out, each.err)]
    for name in SIBLINGS:
        inside = stack.memory.inside(name)
        texts += [str(inside.spec), repr(inside), str(inside.spec.labels)]
        texts += [repr(file) for file in inside.files.values()]
        texts += [str(file.content) for file in inside.files.values() if not file.secret]
    keys = stack.keys
    assert len(keys) > 8
    for sibling, path in ((Sibling.ENVOY, CLUSTERS), (Sibling.COREDNS, FILE)):
        content = stack.memory.inside(f"clawker-{sibling}").files[path].content.decode()
        assert any(key in content for key in keys)
    assert not [key for key in keys if any(key in text for text in texts)]
