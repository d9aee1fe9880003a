"""A watcher that is started while something is wrong with the settings: it goes on by the last good ones."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from clawker_fw.model.containers import Mount
from clawker_fw.settings import files
from clawker_fw.watch.decision import Decision, Reaction, RunOutcome
from devkit.memory.engine import MemoryEngine
from tests.cli.conftest import SETTINGS, Command, DecisionsOf, Outcome, join

ENVOY, COREDNS = "clawker-envoy", "clawker-coredns"
OTHER = "rules: [{dst: evil.test}]\n"


@pytest.fixture(autouse=True)
def at_once(steady_at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - it is needed
    monkeypatch.setattr(files, "PIPE_SECONDS", 0.1)


@dataclass
class Watchers:
    """Watchers of one stack, one after the other, each of which ends after some decisions."""

    command: Command
    memory: MemoryEngine
    settings: Path
    decisions_of: DecisionsOf
    options: tuple[str, ...] = ()

    @property
    def kept(self) -> Path:
        """The file with the last good settings."""
        return self.settings.parent / "state" / "clawker-fw" / "certs" / "clawker" / "last-good.json"

    def __call__(self, number: int = 1, *options: str) -> tuple[list[Decision], Outcome]:
        """Run a watcher until it has decided so often."""
        decisions = self.decisions_of(number)
        outcome = self.command(*self.options, "--project", "clawker", "watch", "--interval", "1", *options)
        assert outcome.code == 0, outcome.err
        return decisions, outcome

    def agent(self, source: Path | None = None, *, privileged: bool = False) -> None:
        """Start an agent, with a writable mount, or one that is privileged."""
        mounts = (Mount("bind", "/work", str(source)),) if source else ()
        join(self.memory, "agent", mounts=mounts, privileged=privileged)


@pytest.fixture
def watchers(command: Command, memory: MemoryEngine, settings_file: Path, decisions_of: DecisionsOf) -> Watchers:
    found = Watchers(command, memory, settings_file, decisions_of)
    assert command("run").code == 0
    return found


def linked(path: Path, target: Path | str) -> None:
    path.unlink()
    path.symlink_to(target)


def linked_to_another(path: Path, name: bytes) -> None:
    """Replace a file by a link to another one that is valid."""
    folder = path.parent / "elsewhere"
    folder.mkdir()
    other = folder / os.fsdecode(name)
    other.write_text(OTHER)
    linked(path, other)


def replaced_by_a_pipe(path: Path) -> None:
    """Replace a file by a pipe to which nobody writes."""
    path.unlink()
    os.mkfifo(path)


OBSTACLES: dict[str, Callable[[Path], object]] = {
    "another file": lambda path: linked_to_another(path, b"other.yaml"),
    "a name that is no text": lambda path: linked_to_another(path, b"other-\xff.yaml"),
    "a pipe": replaced_by_a_pipe,
    "a device": lambda path: linked(path, "/dev/zero"),
    "nothing": lambda path: path.unlink(),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "half a file": lambda path: path.write_text("rules:\n  - dst: https://half"),
    "another project": lambda path: path.write_text(f"project: '\u00e4'\n{SETTINGS}"),
    "authorities without end": lambda path: path.write_text(f"{SETTINGS}inspection: {{ca_file: /dev/zero}}\n"),
    "a secret that is not declared": lambda path: path.write_text(
        "rules: [{dst: a.test, path_rules: [{path: /v1}], inject: api}]\n"
    ),
    "a file that is not there": lambda path: path.write_text(f"{SETTINGS}include: [none.yaml]\n"),
    "more than there is": lambda path: path.write_text(f"{SETTINGS}resources: {{envoy: {{memory: 900GiB}}}}\n"),
}


@pytest.mark.parametrize(
    ("obstacle", "heal"),
    [*((obstacle, "tamper") for obstacle in OBSTACLES), ("another file", "all"), ("half a file", "all")],
)
def test_whatever_an_agent_does_to_the_settings_the_next_watcher_heals(
    obstacle: str, heal: str, watchers: Watchers
) -> None:
    """By the settings that the watcher before has kept: an Envoy that is gone is made again, with their rules."""
    memory, settings = watchers.memory, watchers.settings.parent / "shared" / "clawker-fw.yaml"
    settings.parent.mkdir()
    watchers.settings.rename(settings)
    watchers.options = ("--config", str(settings))
    watchers.agent(settings.parent)
    (before,), _ = watchers()
    assert before.answer is Reaction.NOTHING
    live = dict(memory.inside(COREDNS).files)
    OBSTACLES[obstacle](settings)
    memory.remove(ENVOY)
    memory.stop(COREDNS)
    (healed,), _ = watchers(1, "--heal", heal)
    assert (healed.answer, healed.outcome) == (Reaction.HEAL, RunOutcome.DONE), healed.error
    assert healed.unused is not None
    assert memory.inside(ENVOY).status == memory.inside(COREDNS).status == "running"
    assert {name: content for name, content in memory.inside(COREDNS).files.items() if "names" in name} == {
        name: content for name, content in live.items() if "names" in name
    }


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_whatever_is_wrong_with_the_settings_open_agents_are_stopped(
    obstacle: str, watchers: Watchers, *, kept: bool
) -> None:
    """Whether there are good settings or not: who is open follows from the containers."""
    if kept:
        watchers()
    OBSTACLES[obstacle](watchers.settings)
    watchers.agent(privileged=True)
    (seen,), _ = watchers(1, "--on-open", "stop")
    assert seen.error or seen.unused
    assert [agent.name for agent in seen.agents if agent.openings] == ["agent"]
    assert watchers.memory.inside("agent").status == "exited"


def test_what_needs_no_settings_is_healed_by_the_next_watcher_while_a_person_writes(watchers: Watchers) -> None:
    """As by the same watcher: nothing is created by the earlier rules, and what has stopped is started."""
    watchers()
    watchers.settings.write_text("rules:\n  - dst: https://half")
    watchers.memory.stop(ENVOY)
    (healed,), _ = watchers()
    assert (healed.answer, healed.verdict) == (Reaction.HEAL, None)
    watchers.memory.remove(ENVOY)
    (waits,), _ = watchers()
    assert waits.answer is Reaction.RETRY
    assert watchers.memory.container(ENVOY) is None


def test_the_texts_are_kept_and_nobody_else_can_read_them(watchers: Watchers) -> None:
    """They are the user's alone, change with the settings, and go with the stack."""
    watchers()
    assert watchers.kept.stat().st_mode & 0o777 == 0o600
    assert watchers.kept.parent.stat().st_mode & 0o777 == 0o700
    assert [source["text"] for source in json.loads(watchers.kept.read_text())["sources"]] == [SETTINGS]
    with watchers.kept.open() as before:
        watchers()
        watchers.settings.write_text(f"{SETTINGS}  - dst: more.test\n")
        watchers()
        assert "more.test" in watchers.kept.read_text()
        assert "more.test" not in before.read(), "it is replaced, and not changed"
    assert watchers.command("down", "--all").code == 0
    assert not watchers.kept.exists()


def an_agent_may_write(watchers: Watchers) -> None:
    """Have an agent's mount lead there by a link."""
    (watchers.settings.parent / "link").symlink_to(watchers.kept.parent)
    watchers.agent(watchers.settings.parent / "link")


def it_is_a_link(watchers: Watchers) -> None:
    """Replace the file by a link to a copy."""
    copied = watchers.kept.rename(watchers.kept.with_name("copied.json"))
    watchers.kept.symlink_to(copied)


SPOILT: dict[str, Callable[[Watchers], object]] = {
    "others can write it": lambda watchers: watchers.kept.chmod(0o666),
    "an agent can write it": lambda watchers: watchers.agent(watchers.kept.parent),
    "an agent may write it": an_agent_may_write,
    "it is a link": it_is_a_link,
    "it is half": lambda watchers: watchers.kept.write_text(watchers.kept.read_text()[:-9]),
    "it is another form": lambda watchers: watchers.kept.write_text('{"form": 3}'),
    "its settings are invalid": lambda watchers: watchers.kept.write_text(
        watchers.kept.read_text().replace("a.test", "https://half")
    ),
    "it is gone": lambda watchers: watchers.kept.unlink(),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_others_could_have_written_is_not_used(spoilt: str, watchers: Watchers) -> None:
    """Nor what can't be checked: then nothing is known of the settings, and nothing is healed."""
    watchers()
    watchers.settings.write_text("rules:\n  - dst: https://half")
    SPOILT[spoilt](watchers)
    watchers.memory.stop(ENVOY)
    (seen,), _ = watchers()
    assert (seen.answer, seen.error and seen.error.code) == (Reaction.RETRY, "settings-invalid")
    assert watchers.memory.inside(ENVOY).status == "exited"


def test_an_agent_that_can_write_the_memory_is_open(watchers: Watchers) -> None:
    """It decides about the rules of the next watcher, as the settings file does of this one."""
    watchers()
    watchers.agent(watchers.kept.parent)
    told = watchers.command.json("status")
    (entry,) = told["settings"]["open"]
    assert watchers.kept.is_relative_to(entry["file"])
    assert watchers.command.json("drift")["verdict"] == "open"


def test_a_memory_that_cannot_be_written_is_told_once(watchers: Watchers) -> None:
    """The watcher works without it."""
    watchers.kept.mkdir(parents=True)
    decisions, outcome = watchers(2)
    assert [decision.answer for decision in decisions] == [Reaction.NOTHING] * 2
    assert outcome.err.count("can't be kept for the next watcher") == 1


def test_what_a_person_has_applied_since_is_not_undone(watchers: Watchers) -> None:
    """Rules that `reload` has applied stay, although the watcher before kept earlier ones."""
    watchers()
    watchers.settings.write_text(OTHER)
    assert watchers.command("reload").code == 0
    live = dict(watchers.memory.inside(COREDNS).files)
    watchers.settings.unlink()
    watchers.agent(watchers.settings.parent)
    for decisions, _ in (watchers(1, "--heal", "all"), watchers(1, "--heal", "all")):
        assert decisions[0].verdict is None
    assert dict(watchers.memory.inside(COREDNS).files) == live
