"""`clawker-fw ca`: what agents have to trust, from the state folder and from a stack."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from clawker_fw.agents.trust import TARGET, Known, trust_for
from clawker_fw.certificates.credentials import Pair, Provided
from clawker_fw.certificates.inspection import BUNDLE, InspectionStore
from clawker_fw.certificates.validity import fingerprints
from clawker_fw.model import ContainerSpec, Mount, Shape, VolumeView
from clawker_fw.stack import labels
from clawker_fw.stack.envoy import signing
from clawker_fw.stack.files import public, signers
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import Command, Outcome

DAY = 86400.0


@dataclass
class Stack:
    """A stack, and the state folder of this machine."""

    command: Command
    memory: MemoryEngine
    folder: Path

    def __call__(self, *arguments: str) -> Outcome:
        """Run a command of `ca`."""
        return self.command("ca", *arguments)

    def inspects(self, *names: str) -> Provided:
        """Have the stack inspect connections to these names since yesterday, with what this machine has."""
        since = time.time() - DAY
        provided = InspectionStore(self.folder, "clawker", keeps=True, clock=lambda: since).provide(names)
        self.give(provided.trust, *provided.intermediates)
        return provided

    def give(self, trust: bytes, *intermediates: Pair) -> None:
        """Have the stack's Envoy have these."""
        files = signing.files((), (), intermediates)
        there = self.memory.inside("clawker-envoy").files
        there[signing.TRUST] = public(trust)
        there[signing.INTERMEDIATES] = signers(files[signing.INTERMEDIATES].content)

    def agent(self, name: str, trust: bytes = b"") -> None:
        """Start an agent that was given these roots."""
        mounts: tuple[Mount, ...] = ()
        if trust:
            given = trust_for("clawker", trust, Known(b""))
            made = {**labels.ownership_labels("clawker"), labels.TRUST: given.roots}
            self.memory.drivers[given.volume] = VolumeView(given.volume, "local", {}, made)
            mounts = (Mount("volume", TARGET, given.volume, read_only=True),)
        shape = Shape(("x",), (), {"clawker-net": ""}, mounts=mounts)
        image = self.memory.inside("clawker-envoy").image
        self.memory.start(self.memory.create_container(ContainerSpec(name, image, {}, shape)))


@pytest.fixture
def stack(command: Command, memory: MemoryEngine, settings_file: Path) -> Stack:
    """A stack that runs and inspects nothing."""
    command("run")
    return Stack(command, memory, settings_file.parent / "state" / "clawker-fw" / "certs" / "clawker")


def test_without_an_authority(stack: Stack) -> None:
    """`show` says so; there is nothing to export or to rotate, and nothing is made."""
    found = stack("show")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("There is no authority yet")
    answer = stack("show", "--format", "json").valid("ca")
    assert (answer["inspects"], answer["roots"], answer["agents_without_newest_root"]) == (False, [], [])
    for verb in ("export", "rotate"):
        refused = stack(verb)
        assert (refused.code, refused.out) == (6, "")
        assert "error[ca-missing]" in refused.err
    assert not list(stack.folder.glob("inspection-*"))


def test_show_says_what_signs_and_who_lacks_it(stack: Stack) -> None:
    """The root that signs, the intermediates of the stack, and agents that were not given it."""
    provided = stack.inspects("a.test", "b.test")
    stack.agent("new", provided.trust)
    stack.agent("old")
    answer = stack("show", "--format", "json").valid("ca")
    (root,) = answer["roots"]
    assert (root["sha256"],) == fingerprints(provided.trust)
    assert (root["key"], root["live"], root["state"], root["signs_at"]) == (True, True, "signs", None)
    (between,) = answer["intermediates"]
    assert (between["names"], between["root"]) == (["a.test", "b.test"], root["sha256"])
    assert (answer["inspects"], answer["agents_without_newest_root"]) == (True, ["old"])
    found = stack("show").out
    assert root["sha256"][:16] in found
    assert "a.test and 1 more" in found
    assert "Without the newest root: old. Create them again, by `clawker-fw agent run`" in found
    assert "PRIVATE" not in found


def test_rotation_is_announced(stack: Stack) -> None:
    """The former root signs for a week. The new one is in the bundle: the stack gets it first, then agents."""
    provided = stack.inspects("a.test")
    stack.agent("agent", provided.trust)
    before = stack.memory.inside("clawker-envoy").id
    rotated = stack("rotate", "--format", "json").valid("ca")
    new, former = rotated["roots"]
    assert [(each["state"], each["live"]) for each in (new, former)] == [("announced", False), ("signs", True)]
    assert new["signs_at"] > new["begins"]
    assert rotated["agents_without_newest_root"] == ["agent"]
    assert "run `clawker-fw run`, then start agents again" in stack("show").out
    bundle = (stack.folder / BUNDLE).read_bytes()
    assert fingerprints(bundle) == (new["sha256"], former["sha256"])
    stack.give(bundle, *provided.intermediates)
    assert f"agent. Create them again before {new['signs_at']}" in stack("show").out
    stack.agent("again", bundle)
    assert stack("show", "--format", "json").valid("ca")["agents_without_newest_root"] == ["agent"]
    assert stack.memory.inside("clawker-envoy").id == before


def test_rotation_at_once_forgets_the_former_root(stack: Stack) -> None:
    """Whose key has become known is in no bundle any more."""
    stack.inspects("a.test")
    (root, gone) = stack("rotate", "--at-once", "--format", "json").valid("ca")["roots"]
    assert (root["state"], root["live"], root["key"]) == ("signs", False, True)
    assert (gone["state"], gone["live"], gone["key"]) == ("former", True, False)
    assert fingerprints((stack.folder / BUNDLE).read_bytes()) == (root["sha256"],)


def test_export_is_the_bundle(stack: Stack, tmp_path: Path) -> None:
    """It is what agents have to trust, without a key: on standard output, or in a file."""
    provided = stack.inspects("a.test")
    assert stack("export").out.encode() == provided.trust
    file = tmp_path / "roots.pem"
    assert stack("export", "--output", str(file)).out == ""
    assert file.read_bytes() == provided.trust
    assert stack("export", "--output", str(tmp_path)).code != 0


def test_another_machine_has_the_stack_s_roots(stack: Stack) -> None:
    """Without the folder, the stack says what it has. It can't be rotated there, where nobody could sign on."""
    provided = stack.inspects("a.test")
    for path in stack.folder.iterdir():
        path.unlink()
    (root,) = stack("show", "--format", "json").valid("ca")["roots"]
    assert (root["key"], root["live"], root["state"]) == (False, True, "signs")
    assert stack("export").out.encode() == provided.trust
    assert "error[ca-missing]" in stack("rotate").err


def test_what_can_t_be_read_is_an_error(stack: Stack) -> None:
    """A root that is none is told, and no command ends with a traceback."""
    stack.inspects("a.test")
    (root,) = stack.folder.glob("inspection-*.crt")
    root.write_text("nothing")
    for verb in ("show", "export"):
        assert "error[ca-unusable]" in stack(verb).err


@pytest.mark.parametrize("kind", ["crt", "key"])
def test_a_root_that_a_power_loss_has_emptied(stack: Stack, kind: str) -> None:
    """`show` and `export` name the file and the command; `rotate` repairs it, says so, and both work again."""
    trust = stack.inspects("a.test").trust
    (file,) = stack.folder.glob(f"inspection-*.{kind}")
    file.write_bytes(b"")
    for verb in ("show", "export"):
        refused = stack(verb)
        assert refused.code == 6
        assert f"{file} is damaged; `clawker-fw ca rotate`" in " ".join(refused.err.split())
    rotated = stack("rotate")
    assert rotated.code == 0
    assert f"{file} was damaged" in " ".join(rotated.err.split())
    assert file.exists() == (kind == "crt")
    assert trust.decode().strip() in stack("export").out
    assert stack("show").code == 0
