"""`clawker-fw certs` about roots that agents must trust, from the state folder and from a stack."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clawker_fw.agents.trusted_roots import TARGET
from clawker_fw.certificates.credentials import Pair, Provided, fingerprints
from clawker_fw.certificates.store import InspectionStore
from clawker_fw.model.containers import Mount
from clawker_fw.model.volumes import VolumeView
from clawker_fw.reconcile.trust_volume import trust_for
from clawker_fw.stack import labels
from clawker_fw.stack.envoy import signing
from clawker_fw.stack.files import public, signers
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command, Outcome, join

DAY = 86400.0
EXPORT, ROTATE = ("export", "roots"), ("rotate", "--roots")
NAMES = ("root", "intermediate")


@dataclass
class Stack:
    """A stack, and the state folder of this machine."""

    command: Command
    memory: MemoryEngine
    folder: Path

    def __call__(self, *arguments: str) -> Outcome:
        return self.command("certs", *arguments)

    def found(self, *arguments: str) -> Any:  # noqa: ANN401 - JSON
        """Return a command's answer, and its certificates by name."""
        answer = self(*arguments, "--format", "json").answer
        apart = {name: [each for each in answer["certificates"] if each["name"] == name] for name in NAMES}
        return {**answer, **apart}

    def inspects(self, *names: str) -> Provided:
        """Have the stack inspect connections to these names since yesterday, with this machine's root."""
        since = time.time() - DAY
        provided = InspectionStore(self.folder, "clawker", keeps=True, clock=lambda: since).provide(names)
        self.give(provided.trust, *provided.intermediates)
        return provided

    def give(self, trust: bytes, *intermediates: Pair) -> None:
        files = signing.files((), (), intermediates)
        there = self.memory.inside("clawker-envoy").files
        there[signing.TRUST] = public(trust)
        there[signing.INTERMEDIATES] = signers(files[signing.INTERMEDIATES].content)

    def agent(self, name: str, trust: bytes = b"") -> None:
        mounts: tuple[Mount, ...] = ()
        if trust:
            given = trust_for("clawker", trust, b"")
            made = {**labels.ownership_labels("clawker"), labels.TRUST: given.roots}
            self.memory.drivers[given.volume] = VolumeView(given.volume, "local", {}, made)
            mounts = (Mount("volume", TARGET, given.volume, read_only=True),)
        join(self.memory, name, mounts=mounts)


@pytest.fixture
def stack(command: Command, memory: MemoryEngine, settings_file: Path) -> Stack:
    command("run")
    return Stack(command, memory, settings_file.parent / "state" / "clawker-fw" / "certs" / "clawker")


def test_without_an_authority(stack: Stack) -> None:
    """`show` is empty; nothing can be exported or rotated, and nothing is created."""
    found = stack("show")
    assert (found.code, found.err) == (0, "")
    assert found.out == "No telemetry: `otel.endpoint` is not set.\n"
    answer = stack.found("show")
    assert (answer["inspects"], answer["root"], answer["agents_without_newest_root"]) == (False, [], [])
    for words in (EXPORT, ROTATE):
        refused = stack(*words)
        assert (refused.code, refused.out) == (6, "")
        assert "error[roots-missing]" in refused.err
    assert not list(stack.folder.glob("inspection-*"))


def test_show_says_what_signs_and_who_lacks_it(stack: Stack) -> None:
    """The signing root, the stack's intermediates, and agents without the root are shown."""
    provided = stack.inspects("a.test", "b.test")
    stack.agent("new", provided.trust)
    stack.agent("old")
    answer = stack.found("show")
    (root,) = answer["root"]
    assert (root["sha256"],) == fingerprints(provided.trust)
    assert (root["key"], root["live"], root["state"], root["signs_at"]) == (True, ["envoy"], "signs", None)
    (between,) = answer["intermediate"]
    assert (between["names"], between["root"]) == (["a.test", "b.test"], root["sha256"])
    assert {each["purpose"] for each in answer["certificates"]} == {"inspection"}
    assert (answer["inspects"], answer["agents_without_newest_root"]) == (True, ["old"])
    found = stack("show").out
    assert root["sha256"][:16] in found
    assert "a.test and 1 more" in found
    assert "Without the newest root: old. Create them again, by `clawker-fw agent run`" in found
    assert "PRIVATE" not in found
    assert stack.found(*EXPORT)["pem"].encode() == provided.trust
    assert stack(*EXPORT).out.encode() == provided.trust


def test_rotation_is_announced(stack: Stack) -> None:
    """The former root signs for a week; the bundle gives the new one to the stack first, then to agents."""
    provided = stack.inspects("a.test")
    stack.agent("agent", provided.trust)
    before = stack.memory.inside("clawker-envoy").id
    rotated = stack.found(*ROTATE)
    new, former = rotated["root"]
    assert [(each["state"], bool(each["live"])) for each in (new, former)] == [
        ("announced", False),
        ("signs", True),
    ]
    assert new["signs_at"] > new["begins"]
    assert rotated["agents_without_newest_root"] == ["agent"]
    assert "run `clawker-fw run`, then start agents again" in stack("show").out
    bundle = stack(*EXPORT).out.encode()
    assert fingerprints(bundle) == (new["sha256"], former["sha256"])
    stack.give(bundle, *provided.intermediates)
    assert f"agent. Create them again before {new['signs_at']}" in stack("show").out
    stack.agent("again", bundle)
    assert stack.found("show")["agents_without_newest_root"] == ["agent"]
    assert stack.memory.inside("clawker-envoy").id == before


def test_rotation_at_once_forgets_the_former_root(stack: Stack) -> None:
    """A root whose key has leaked is removed from every bundle at once."""
    stack.inspects("a.test")
    (root, gone) = stack.found(*ROTATE, "--at-once")["root"]
    assert (root["state"], root["live"], root["key"]) == ("signs", [], True)
    assert (gone["state"], gone["live"], gone["key"]) == ("former", ["envoy"], False)
    assert fingerprints(stack(*EXPORT).out.encode()) == (root["sha256"],)


def test_another_machine_has_the_stack_s_roots(stack: Stack) -> None:
    """Without the folder, the stack shows its roots, but rotation is refused: the machine can't sign."""
    provided = stack.inspects("a.test")
    for path in stack.folder.iterdir():
        path.unlink()
    (root,) = stack.found("show")["root"]
    assert (root["key"], root["live"], root["state"], root["path"]) == (False, ["envoy"], "signs", None)
    assert stack(*EXPORT).out.encode() == provided.trust
    assert "error[roots-missing]" in stack(*ROTATE).err


def test_a_damaged_root(stack: Stack) -> None:
    """`show` and `export` name the file and the command."""
    stack.inspects("a.test")
    (file,) = stack.folder.glob("inspection-*.crt")
    file.write_bytes(b"")
    for words in (("show",), EXPORT):
        refused = stack(*words)
        assert refused.code == 6
        assert f"{file} is damaged" in refused.said
    file.unlink()
    assert stack(*ROTATE, "--at-once").code == 0
    assert stack("show").code == 0


def test_words_that_do_not_go_together(stack: Stack) -> None:
    """Telemetry and inspection are rotated and exported separately."""
    for line in ("rotate --at-once", "rotate --roots --authority", "export collector", "export roots DIR"):
        assert stack(*line.split()).code == 2, line
