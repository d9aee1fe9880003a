"""The content of a secret in a sibling's volume does not appear in any output or record."""

import base64
import hashlib
import json
import traceback
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from clawker_fw.errors import EngineError
from clawker_fw.model import ContainerSpec, File, Files
from clawker_fw.stack import coredns, labels
from clawker_fw.stack.files import executable, public, secret
from clawker_fw.stack.policy import POLICY
from clawker_fw.stack.resources import Resource, live_digests
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command, Outcome

COREDNS = "clawker-coredns"
BOOT, HOT, OPEN = "boot/token", "hot/key/token", "boot/open"


@dataclass
class Keys:
    """Files of the resolver: two secrets, and one that is not."""

    memory: MemoryEngine
    boot: bytes = b"boot-secret-1"
    hot: bytes = b"hot-secret-1"
    open: bytes = b"everybody-may-read-1\n"
    ever: set[bytes] = field(default_factory=set)

    def give(self, boot: int, hot: int, open_: int) -> None:
        """Let the release contain these files from now on."""
        self.boot, self.hot = f"boot-secret-{boot}".encode(), f"hot-secret-{hot}".encode()
        self.open = f"everybody-may-read-{open_}\n".encode()
        self.ever |= {self.boot, self.hot}

    def require_untold(self, *texts: object) -> None:
        """Check that no text contains any part of a secret, or a digest that would confirm a guess."""
        for each in self.ever:
            digest = hashlib.sha256(each)
            forms = (each.decode(), digest.hexdigest()[:12], base64.b64encode(each).decode(), str(list(each)))
            for text in texts:
                assert not [word for word in forms if word in str(text)]


@pytest.fixture
def keys(memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """A release whose resolver has secrets."""
    given = Keys(memory)
    given.give(1, 1, 1)
    boot, hot = coredns.boot, coredns.hot

    def more_boot(*arguments: Any) -> Files:  # noqa: ANN401 - those of `boot`
        return {**boot(*arguments), BOOT: secret(given.boot), OPEN: public(given.open)}

    def more_hot(*arguments: Any) -> Files:  # noqa: ANN401 - those of `hot`
        return {HOT: secret(given.hot), **hot(*arguments)}

    monkeypatch.setattr(coredns, "boot", more_boot)
    monkeypatch.setattr(coredns, "hot", more_hot)
    return given


def findings(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Return the findings of `drift --format json` by field."""
    answer = outcome.valid("drift")
    return {each["field"]: each for sibling in answer["siblings"] for each in sibling["findings"]}


def looks(command: Command) -> list[Outcome]:
    """Run every command that reports on a stack."""
    lines = ("drift", "drift --format json", "--debug drift", "--debug --log-format json drift", "run --dry-run")
    return [command(*line.split()) for line in (*lines, "run --dry-run --format json", "status --format json")]


def said(outcomes: list[Outcome]) -> list[str]:
    """Return everything that was written."""
    return [text for each in outcomes for text in (each.out, each.err)]


def test_secrets_go_all_the_way(command: Command, memory: MemoryEngine, keys: Keys) -> None:
    """Secrets are created, found to differ, replaced and committed, without their content in any output."""
    outcomes = [command("--debug", "run", "--format", "json")]
    inside = memory.inside(COREDNS)
    assert (inside.files[BOOT], inside.files[HOT]) == (secret(b"boot-secret-1"), secret(b"hot-secret-1"))
    assert inside.files[f"good/{HOT}"] == secret(b"hot-secret-1")
    assert command("drift").code == 0

    keys.give(1, 2, 1)
    outcomes += looks(command)
    found = findings(command("drift", "--format", "json"))
    assert found[HOT] == {
        "layer": "hot",
        "field": HOT,
        "running": "another content",
        "desired": "this content",
        "cause": "settings",
        "action": "commit",
    }
    outcomes += [command("--debug", "--log-format", "json", "reload", "--format", "json")]
    assert memory.inside(COREDNS) is inside
    assert (inside.files[HOT], inside.files[f"good/{HOT}"]) == (secret(b"hot-secret-2"), secret(b"hot-secret-2"))
    assert command("drift").code == 0

    keys.give(2, 2, 2)
    outcomes += looks(command)
    found = findings(command("drift", "--format", "json"))
    assert (found[BOOT]["running"], found[BOOT]["desired"]) == ("another content", "this content")
    assert "diff" not in found[BOOT]
    assert "+everybody-may-read-2" in found[OPEN]["diff"]  # a file that is not secret is shown in full
    assert any("everybody-may-read-2" in text for text in said(outcomes))
    outcomes += [command("--debug", "run")]
    replacement = memory.inside(COREDNS)
    assert replacement is not inside
    assert replacement.files[BOOT] == secret(b"boot-secret-2")
    assert command("drift").code == 0
    keys.require_untold(*said(outcomes), inside.spec.labels, replacement.spec.labels, replacement, inside)


@pytest.mark.parametrize("path", [BOOT, HOT, f"good/{HOT}"])
@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"content": b"boot-secret-9"}, ("another content", "this content")),
        ({"mode": 0o644}, ("mode 0644", "mode 0440")),
        ({"owner": (0, 65532)}, ("owner 0:65532", "owner 65532:65532")),
        ({"mode": 0o600, "owner": (0, 0)}, ("mode 0600, owner 0:0", "mode 0440, owner 65532:65532")),
        ({"content": b"boot-secret-9", "mode": 0o644}, ("another content, mode 0644", "this content, mode 0440")),
    ],
)
def test_a_secret_that_was_tampered_with(
    path: str, change: dict[str, Any], values: tuple[str, str], command: Command, keys: Keys
) -> None:
    """Changed content, mode or owner is found and healed, and foreign content is not shown either."""
    assert command("run").code == 0
    keys.ever.add(b"boot-secret-9")
    before = keys.memory.inside(COREDNS).files[path]
    keys.memory.inside(COREDNS).files[path] = replace(before, **change)
    (finding,) = findings(command("drift", "--format", "json")).values()
    if path.startswith("good/") and "content" in change:
        values = ("another content", "this content")  # for a copy, only the difference is reported
    assert (finding["field"], finding["running"], finding["desired"]) == (path, *values)
    assert (finding["cause"], "diff" in finding) == ("tamper", False)
    outcomes = [*looks(command), command("--debug", "run")]
    assert command("drift").code == 0
    assert keys.memory.inside(COREDNS).files[path] == before
    keys.require_untold(*said(outcomes))


@pytest.mark.parametrize("path", ["boot/old", "hot/old", "good/hot/old"])
def test_a_secret_that_nobody_wants_any_more(
    path: str, command: Command, memory: MemoryEngine, keys: Keys
) -> None:
    """A file that not everyone may read counts as a secret, even if this release does not know it."""
    assert command("run").code == 0
    keys.ever.add(b"old-secret")
    memory.inside(COREDNS).files[path] = File(b"old-secret", 0o440, (65532, 65532), secret=True)
    assert path in findings(command("drift", "--format", "json"))
    keys.require_untold(*said(looks(command)))
    memory.inside(COREDNS).files[path] = public(b"old-secret")  # and what everybody may read is none
    if not path.startswith("good/"):
        assert "-old-secret" in findings(command("drift", "--format", "json"))[path]["diff"]


def test_a_secret_in_an_error(
    command: Command, memory: MemoryEngine, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret is neither in the traceback of `--debug` nor in one with all local variables."""
    made, raised = memory.create_container, []

    def create(spec: ContainerSpec) -> str:
        if spec.name != COREDNS:
            return made(spec)
        files, file = spec.files, spec.files[BOOT]
        raised.append(EngineError("engine-error", "It failed.", context=[repr(spec), repr(files), str(file)]))
        raise raised[-1]

    monkeypatch.setattr(memory, "create_container", create)
    outcomes = [command("--debug", *line.split()) for line in ("run", "--log-format json run")]
    assert len(raised) == len(outcomes)
    assert all("Traceback" in each.err and BOOT in each.err for each in outcomes)
    with_locals = "".join(traceback.TracebackException.from_exception(raised[0], capture_locals=True).format())
    assert "file = File(secret" in with_locals
    keys.require_untold(*said(outcomes), with_locals)


def test_a_secret_is_in_no_repr() -> None:
    """The content of other files is not in tracebacks either, because it may be large."""
    assert repr(secret(b"guess-me")) == "File(secret, mode 0440, owner (65532, 65532))"
    assert repr(executable(b"guess-me")) == "File(8 bytes, mode 0755, owner (0, 0))"
    assert str({"a": secret(b"guess-me")}) == "{'a': File(secret, mode 0440, owner (65532, 65532))}"


def test_a_secret_in_a_label_and_in_what_is_live() -> None:
    """A label contains no digest of a secret, and a secret can't be a proven resource."""
    assert labels.recorded(secret(b"guess-me")) == "secret"
    assert labels.recorded(public(b"guess-me")) == labels.digest(b"guess-me")
    hashed = Resource("key", "key/token", hashed=True)
    assert live_digests([hashed], {HOT: public(b"x")}) == {"key": hashlib.sha256(b"x").hexdigest()}
    with pytest.raises(ValueError, match="key"):
        live_digests([hashed], {HOT: secret(b"x")})
    keyed = replace(hashed, keyed=True)  # a random key can't be guessed
    assert live_digests([keyed], {HOT: secret(b"x")}) == {"key": hashlib.sha256(b"x").hexdigest()}


@pytest.mark.parametrize(
    "path", ["state/origin.json", "state/attempt.json", "state/committed.json", "state/claimed"]
)
@pytest.mark.parametrize("change", [{"mode": 0o666}, {"owner": (65532, 0)}])
def test_a_record_that_others_could_write(
    path: str, change: dict[str, Any], command: Command, memory: MemoryEngine
) -> None:
    """Records belong to root. If others could have written them, they are found and replaced."""
    assert command("run").code == 0
    memory.inside(COREDNS).files.setdefault("state/attempt.json", public(b"{}"))
    before = memory.inside(COREDNS).files[path]
    assert command("drift").code == 0
    memory.inside(COREDNS).files[path] = replace(before, **change)
    (finding,) = findings(command("drift", "--format", "json")).values()
    assert (finding["field"], finding["cause"]) == (path, "tamper")
    assert command("run").code == 0
    assert command("drift").code == 0
    assert json.loads(memory.inside(COREDNS).files[POLICY].content)["names"]
