"""Secrets in a firewall container's volume never appear in any output or record."""

import hashlib
import json
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.errors import EngineError
from clawker_fw.model.containers import ContainerSpec
from clawker_fw.model.files import File
from clawker_fw.stack import labels
from clawker_fw.stack.collector import FILE
from clawker_fw.stack.files import public, secret
from clawker_fw.stack.name_list import POLICY
from clawker_fw.stack.resources import Resource, live_digests
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import SETTINGS, Command, Outcome

COREDNS = "clawker-coredns"
PLANTED = b"planted-secret"


@pytest.fixture
def keyed(command: Command, settings_file: Path, tmp_path: Path) -> list[str]:
    """Lines of CoreDNS's private key in a stack with telemetry, and a planted secret with its digest."""
    settings_file.write_text(f"{SETTINGS}otel: {{endpoint: 'collector.test:4317'}}\n")
    assert command("run").code == 0
    files = (tmp_path / "state").rglob("*.key")
    lines = [line for path in files for line in path.read_text().splitlines() if "-----" not in line]
    return [*lines, PLANTED.decode(), hashlib.sha256(PLANTED).hexdigest()[:12]]


def require_untold(keyed: list[str], *texts: object) -> None:
    """Check that no text has a line of a key, or a digest that would confirm a guess."""
    assert not [word for word in keyed for text in texts if word in str(text)]


def looks(command: Command) -> list[Outcome]:
    """Run every command that reports on a stack."""
    lines = ("drift", "drift --format json", "--debug drift", "--debug --log-format json drift", "run --dry-run")
    return [command(*line.split()) for line in (*lines, "run --dry-run --format json", "status --format json")]


def said(outcomes: list[Outcome]) -> list[str]:
    return [text for each in outcomes for text in (each.out, each.err)]


@pytest.mark.parametrize("path", [FILE, f"good/{FILE}"])
@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"content": PLANTED}, ("another content", "this content")),
        ({"mode": 0o644}, ("mode 0644", "mode 0440")),
        ({"mode": 0o600, "owner": (0, 0)}, ("mode 0600, owner 0:0", "mode 0440, owner 65532:65532")),
        ({"content": PLANTED, "mode": 0o644}, ("another content, mode 0644", "this content, mode 0440")),
    ],
)
def test_a_secret_that_was_tampered_with(  # noqa: PLR0917 - the cases are in a table
    path: str,
    change: dict[str, Any],
    values: tuple[str, str],
    command: Command,
    memory: MemoryEngine,
    keyed: list[str],
) -> None:
    """Changed content, mode or owner is reported and healed without showing foreign content."""
    files = memory.inside(COREDNS).files
    before = files[path]
    assert before.secret
    files[path] = replace(before, **change)
    (finding,) = command("drift", "--format", "json").findings
    if path.startswith("good/") and "content" in change:
        values = ("another content", "this content")  # for a copy, only the difference is reported
    assert (finding["field"], finding["running"], finding["desired"]) == (path, *values)
    assert (finding["cause"], "diff" in finding) == ("tamper", False)
    outcomes = [*looks(command), command("--debug", "run")]
    assert command("drift").code == 0
    assert memory.inside(COREDNS).files[path] == before
    require_untold(keyed, *said(outcomes))


@pytest.mark.parametrize("path", ["boot/old", "hot/old", "good/hot/old"])
def test_a_secret_that_nobody_wants_any_more(
    path: str, command: Command, memory: MemoryEngine, keyed: list[str]
) -> None:
    """A file that not everyone may read counts as a secret, even if this release does not know it."""
    memory.inside(COREDNS).files[path] = File(PLANTED, 0o440, (65532, 65532), secret=True)
    assert path in {each["field"] for each in command("drift", "--format", "json").findings}
    require_untold(keyed, *said(looks(command)))
    memory.inside(COREDNS).files[path] = public(PLANTED)  # a file that everyone may read is not a secret
    if not path.startswith("good/"):
        (finding,) = command("drift", "--format", "json").findings
        assert "-planted-secret" in finding["diff"]


def test_a_secret_in_an_error(
    command: Command, memory: MemoryEngine, keyed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the traceback of `--debug` nor one with all local variables has a secret."""
    made, raised = memory.create_container, []

    def create(spec: ContainerSpec) -> str:
        if spec.name != COREDNS:
            return made(spec)
        files, file = spec.files, spec.files[FILE]
        raised.append(EngineError("engine-error", "It failed.", context=[repr(spec), repr(files), str(file)]))
        raise raised[-1]

    memory.remove(COREDNS)
    monkeypatch.setattr(memory, "create_container", create)
    outcomes = [command("--debug", *line.split()) for line in ("run", "--log-format json run")]
    assert all("Traceback" in each.err for each in outcomes)
    with_locals = [
        "".join(traceback.TracebackException.from_exception(each, capture_locals=True).format()) for each in raised
    ]
    assert any("file = File(secret" in each for each in with_locals)
    require_untold(keyed, *said(outcomes), *with_locals)


def test_a_secret_in_a_label_and_in_what_is_live() -> None:
    """A label has no digest of a secret, and a secret can't be a verified resource."""
    assert labels.recorded(secret(b"guess-me")) == "secret"
    assert labels.recorded(public(b"guess-me")) == labels.digest(b"guess-me")
    hashed = Resource("key", "key/token", hashed=True)
    assert live_digests([hashed], {"hot/key/token": public(b"x")}) == {"key": hashlib.sha256(b"x").hexdigest()}
    with pytest.raises(ValueError, match="key"):
        live_digests([hashed], {"hot/key/token": secret(b"x")})
    keyed = replace(hashed, keyed=True)  # a random key can't be guessed
    assert live_digests([keyed], {"hot/key/token": secret(b"x")}) == {"key": hashlib.sha256(b"x").hexdigest()}


@pytest.mark.parametrize(
    "path", ["state/origin.json", "state/attempt.json", "state/committed.json", "state/claimed"]
)
@pytest.mark.parametrize("change", [{"mode": 0o666}, {"owner": (65532, 0)}])
def test_a_record_that_others_could_write(
    path: str, change: dict[str, Any], command: Command, memory: MemoryEngine
) -> None:
    """Records belong to root; any that others could have written are reported and replaced."""
    assert command("run").code == 0
    memory.inside(COREDNS).files.setdefault("state/attempt.json", public(b"{}"))
    before = memory.inside(COREDNS).files[path]
    assert command("drift").code == 0
    memory.inside(COREDNS).files[path] = replace(before, **change)
    (finding,) = command("drift", "--format", "json").findings
    assert (finding["field"], finding["cause"]) == (path, "tamper")
    assert command("run").code == 0
    assert command("drift").code == 0
    assert json.loads(memory.inside(COREDNS).files[POLICY].content)["names"]
