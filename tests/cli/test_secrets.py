"""A secret in a sibling's volume: nothing that is said, or kept elsewhere, tells of its content."""

import base64
import hashlib
import json
import traceback
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from clawker_fw.engine.memory import MemoryEngine
from clawker_fw.errors import EngineError
from clawker_fw.model import ContainerSpec, File, Files
from clawker_fw.stack import coredns, labels
from clawker_fw.stack.coredns import POLICY
from clawker_fw.stack.files import executable, public, secret
from clawker_fw.stack.resources import Resource, live_digests
from tests.cli.conftest import Command, Outcome

COREDNS = "clawker-coredns"
BOOT, HOT, OPEN = "boot/token", "hot/key/token", "boot/open"


@dataclass
class Keys:
    """What the resolver is given beside its files: two secrets, and a file that is none."""

    memory: MemoryEngine
    boot: bytes = b"boot-secret-1"
    hot: bytes = b"hot-secret-1"
    open: bytes = b"everybody-may-read-1\n"
    ever: set[bytes] = field(default_factory=set)

    def give(self, boot: int, hot: int, open_: int) -> None:
        """Have the release want these from now on."""
        self.boot, self.hot = f"boot-secret-{boot}".encode(), f"hot-secret-{hot}".encode()
        self.open = f"everybody-may-read-{open_}\n".encode()
        self.ever |= {self.boot, self.hot}

    def require_untold(self, *texts: object) -> None:
        """Pass when nothing of a secret is in any text, nor a digest by which a guess could be confirmed."""
        for each in self.ever:
            digest = hashlib.sha256(each)
            told = (each.decode(), digest.hexdigest()[:12], base64.b64encode(each).decode(), str(list(each)))
            for text in texts:
                assert not [word for word in told if word in str(text)]


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
    """Return what `drift --format json` finds, by field."""
    answer = outcome.valid("drift")
    return {each["field"]: each for sibling in answer["siblings"] for each in sibling["findings"]}


def looks(command: Command) -> list[Outcome]:
    """Look at a stack in every way in which one can be told about it."""
    lines = ("drift", "drift --format json", "--debug drift", "--debug --log-format json drift", "run --dry-run")
    return [command(*line.split()) for line in (*lines, "run --dry-run --format json", "status --format json")]


def said(outcomes: list[Outcome]) -> list[str]:
    """Return all that was written."""
    return [text for each in outcomes for text in (each.out, each.err)]


def test_secrets_go_all_the_way(command: Command, memory: MemoryEngine, keys: Keys) -> None:
    """They are made, found to differ, exchanged by a replacement or a commit, and current; and nobody is told."""
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
    assert "+everybody-may-read-2" in found[OPEN]["diff"]  # what is no secret is told in full
    assert any("everybody-may-read-2" in text for text in said(outcomes))
    outcomes += [command("--debug", "run")]
    replacement = memory.inside(COREDNS)
    assert replacement is not inside
    assert replacement.files[BOOT] == secret(b"boot-secret-2")
    assert command("drift").code == 0
    keys.require_untold(*said(outcomes), inside.spec.labels, replacement.spec.labels, replacement, inside)


@pytest.mark.parametrize("path", [BOOT, HOT, f"good/{HOT}"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"content": b"boot-secret-9"}, ("another content", "this content")),
        ({"mode": 0o644}, ("mode 0644", "mode 0400")),
        ({"owner": (0, 65532)}, ("owner 0:65532", "owner 65532:65532")),
        ({"mode": 0o600, "owner": (0, 0)}, ("mode 0600, owner 0:0", "mode 0400, owner 65532:65532")),
        ({"content": b"boot-secret-9", "mode": 0o644}, ("another content, mode 0644", "this content, mode 0400")),
    ],
)
def test_a_secret_that_was_tampered_with(
    path: str, change: dict[str, Any], told: tuple[str, str], command: Command, keys: Keys
) -> None:
    """It is found by content, mode and owner, healed, and what somebody has put there is not shown either."""
    assert command("run").code == 0
    keys.ever.add(b"boot-secret-9")
    before = keys.memory.inside(COREDNS).files[path]
    keys.memory.inside(COREDNS).files[path] = replace(before, **change)
    (finding,) = findings(command("drift", "--format", "json")).values()
    if path.startswith("good/") and "content" in change:
        told = ("another content", "this content")  # of a copy, it is enough that it is another one
    assert (finding["field"], finding["running"], finding["desired"]) == (path, *told)
    assert (finding["cause"], "diff" in finding) == ("tamper", False)
    outcomes = [*looks(command), command("--debug", "run")]
    assert command("drift").code == 0
    assert keys.memory.inside(COREDNS).files[path] == before
    keys.require_untold(*said(outcomes))


@pytest.mark.parametrize("path", ["boot/old", "hot/old", "good/hot/old"])
def test_a_secret_that_nobody_wants_any_more(
    path: str, command: Command, memory: MemoryEngine, keys: Keys
) -> None:
    """What not everybody may read is a secret, also when this release knows nothing of it."""
    assert command("run").code == 0
    keys.ever.add(b"old-secret")
    memory.inside(COREDNS).files[path] = File(b"old-secret", 0o400, (65532, 65532), secret=True)
    assert path in findings(command("drift", "--format", "json"))
    keys.require_untold(*said(looks(command)))
    memory.inside(COREDNS).files[path] = public(b"old-secret")  # and what everybody may read is none
    if not path.startswith("good/"):
        assert "-old-secret" in findings(command("drift", "--format", "json"))[path]["diff"]


def test_a_secret_in_an_error(
    command: Command, memory: MemoryEngine, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the traceback that `--debug` shows nor one with every local variable tells of it."""
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
    """Neither is the content of any other file: there may be much of it."""
    assert repr(secret(b"guess-me")) == "File(secret, mode 0400, owner (65532, 65532))"
    assert repr(executable(b"guess-me")) == "File(8 bytes, mode 0755, owner (0, 0))"
    assert str({"a": secret(b"guess-me")}) == "{'a': File(secret, mode 0400, owner (65532, 65532))}"


def test_a_secret_in_a_label_and_in_what_is_live() -> None:
    """A label names it without a digest, and a program can't be asked to prove it by one."""
    assert labels.recorded(secret(b"guess-me")) == "secret"
    assert labels.recorded(public(b"guess-me")) == labels.digest(b"guess-me")
    hashed = Resource("key", "key/token", hashed=True)
    assert live_digests([hashed], {HOT: public(b"x")}) == {"key": hashlib.sha256(b"x").hexdigest()}
    with pytest.raises(ValueError, match="key"):
        live_digests([hashed], {HOT: secret(b"x")})


@pytest.mark.parametrize(
    "path", ["state/origin.json", "state/attempt.json", "state/committed.json", "state/claimed"]
)
@pytest.mark.parametrize("change", [{"mode": 0o666}, {"owner": (65532, 0)}])
def test_a_record_that_others_could_write(
    path: str, change: dict[str, Any], command: Command, memory: MemoryEngine
) -> None:
    """Records are nobody's but root's: what others could have written is found and made anew."""
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
