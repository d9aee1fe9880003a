"""The watcher while its settings are unreadable, or writable by an agent."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import (
    EngineError,
    RefusedError,
    SettingsError,
)
from clawker_fw.model.containers import Mount
from clawker_fw.reconcile import converge, pipeline
from clawker_fw.reconcile.apply import RunContext
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.records import origin
from clawker_fw.reconcile.steps import ConvergeOptions
from clawker_fw.settings.secrets.declared import SecretsFile
from clawker_fw.settings.secrets.vault import Vault
from clawker_fw.settings.secrets.wanted import wanted as wanted_secrets
from clawker_fw.stack.files import public
from clawker_fw.stack.name_list import POLICY
from clawker_fw.watch.reactions import Heal
from devkit import stacks
from devkit.memory.engine import MemoryEngine
from devkit.watched import COREDNS, ENVOY, INTERVAL, Watched
from tests.unit.test_watch_agents import join


def unreadable(watched: Watched, error: Exception) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return two functions that make the settings unreadable and readable again."""
    good = watched.blueprint

    def fail() -> Blueprint:
        raise error

    return partial(setattr, watched, "blueprint", fail), partial(setattr, watched, "blueprint", good)


BROKEN = SettingsError("settings-invalid", "Half a file.")


@pytest.mark.parametrize("heal", [Heal.TAMPER, Heal.ALL])
def test_what_needs_no_settings_is_healed_while_they_cannot_be_read(heal: Heal, watched: Watched) -> None:
    """Without readable settings, stopped, paused and disconnected containers are repaired."""
    begin, end = unreadable(watched, BROKEN)
    engine = watched.engine
    decisions = watched.until(
        40,
        (9, begin),
        (10, partial(engine.stop, ENVOY)),
        (15, partial(engine.pause, COREDNS)),
        (20, partial(engine.disconnect, "clawker-net", COREDNS)),
        heal=heal,
    )
    assert decisions[1] == "10 event heal done"
    for moment, decision in watched.decisions[1:]:
        assert decision.verdict is None, moment
        assert BROKEN in (decision.error, decision.unused)
    end()
    assert watched.is_current()


def test_what_needs_settings_waits_until_they_can_be_read(watched: Watched) -> None:
    """A container with tampered files is not started, and nothing is replaced."""
    begin, end = unreadable(watched, BROKEN)
    engine = watched.engine

    def tamper() -> None:
        begin()
        engine.stop(COREDNS)
        engine.put_files(COREDNS, {POLICY: public(b"forged")})
        engine.remove(ENVOY)

    def mend() -> None:
        assert engine.inside(COREDNS).status == "exited"
        assert engine.container(ENVOY) is None
        end()

    decisions = watched.until(60, (10, tamper), (20, mend))
    assert decisions[1:4] == ["10 event retry", "11 again retry", "12.5 again retry"]
    assert watched.decisions[1][1].error is BROKEN
    assert watched.decisions[1][1].verdict is None
    assert watched.is_current()


@dataclass
class Shared:
    """A stack whose settings file is in a folder mounted into an agent."""

    watched: Watched
    file: Path

    def wants(self, *rules: str) -> None:
        wanted = stacks.blueprint(self.watched.engine.facts(), *rules)
        digest = " ".join(rules)
        self.watched.wanted = replace(wanted, origin=origin(self.file, None, digest), files=(self.file,))

    def live(self) -> bytes:
        """Return the resolver's list of names."""
        return self.watched.engine.inside(COREDNS).files[POLICY].content


MakeShared = Callable[..., Shared]


@pytest.fixture
def shared(watched: Watched, tmp_path: Path) -> MakeShared:
    """Bring up the stack with an agent that can, or can't, write the settings file."""

    def made(*, read_only: bool) -> Shared:
        stack = Shared(watched, tmp_path / "clawker-fw.yaml")
        stack.file.touch()
        stack.wants("a.test")
        stacks.converged(watched.engine, watched.wanted)
        join(watched, "agent", mounts=(Mount("bind", "/work", str(tmp_path), read_only=read_only),))
        return stack

    return made


@pytest.mark.parametrize("read_only", [False, True])
def test_a_change_that_an_agent_can_make_is_not_applied(shared: MakeShared, *, read_only: bool) -> None:
    """The mount is reported and the old rules stay in effect; with a read-only mount, a change is applied."""
    stack = shared(read_only=read_only)
    watched = stack.watched
    before = stack.live()
    watched.until(
        70, (10, lambda: stack.wants("evil.test")), (35, partial(watched.engine.stop, ENVOY)), heal=Heal.ALL
    )
    last = watched.decisions[-1][1]
    if read_only:
        assert stack.live() != before
        assert last.unused is None
        assert watched.is_current()
        return
    assert stack.live() == before
    assert watched.engine.inside(ENVOY).status == "running"
    assert last.unused is not None
    assert last.unused.code == "settings-open"
    assert last.unused.context == (f"agent can write {stack.file}: {stack.file.parent} is mounted at /work",)


def test_an_agent_that_writes_and_goes_is_remembered(shared: MakeShared) -> None:
    """An agent's change is not applied even after it is gone. Once undone, changes are applied again."""
    stack = shared(read_only=False)
    watched = stack.watched
    before = stack.live()

    def write_and_go() -> None:
        stack.wants("evil.test")
        watched.engine.remove("agent")

    def nothing_applied() -> None:
        assert stack.live() == before
        stack.wants("a.test")

    watched.until(
        170, (10, write_and_go), (80, nothing_applied), (120, lambda: stack.wants("more.test")), heal=Heal.ALL
    )
    assert "settings-open" in {each.unused.code for _, each in watched.decisions if each.unused}
    assert watched.decisions[-1][1].unused is None
    assert stack.live() != before
    assert watched.is_current()


ERRORS: dict[str, Exception] = {
    "invalid settings": BROKEN,
    "refused": RefusedError("secrets-not-private", "It can be used by others."),
    "unreachable": EngineError("engine-unreachable", "No."),
    "no text": UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"),
    "a mistake of ours": TypeError("unexpected"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_whatever_goes_wrong_with_what_is_desired_everything_is_healed(
    error: Exception, shared: MakeShared
) -> None:
    """An agent that can write the settings can't stop healing by any error in them."""
    stack = shared(read_only=False)
    watched = stack.watched
    begin, _ = unreadable(watched, error)
    before = stack.live()

    def tamper() -> None:
        begin()
        watched.engine.put_files(COREDNS, {POLICY: public(b"forged")})
        watched.engine.remove(ENVOY)

    watched.until(40, (10, tamper))
    assert stack.live() == before
    assert watched.engine.inside(ENVOY).status == "running"
    unused = watched.decisions[-1][1].unused
    assert unused is not None
    assert unused is error or unused.code == "settings-unusable"


def test_settings_that_break_between_a_look_and_its_heal_stop_no_healing(shared: MakeShared) -> None:
    """If settings break between comparison and heal, the earlier ones are applied."""
    stack = shared(read_only=False)
    watched = stack.watched
    good, calls = watched.blueprint, count()

    def flickering() -> Blueprint:
        if next(calls) % 2:
            raise BROKEN
        return good()

    watched.blueprint = flickering
    watched.until(25, (10, partial(watched.engine.remove, ENVOY)))
    assert watched.heals() == [10]
    assert watched.engine.inside(ENVOY).status == "running"


def test_a_file_of_secrets_that_an_agent_can_write_stops_no_healing(watched: Watched, tmp_path: Path) -> None:
    """The file is no longer read, but secrets read before the agent started stay in use."""
    (tmp_path / "api").write_text("hidden")
    declared = SecretsFile.model_validate({"secrets": {"api": {"from": {"file": "api"}, "hosts": ["a.test"]}}})
    vault = Vault(declared, tmp_path / "secrets.yaml")
    rule = {"dst": "a.test", "path_rules": [{"path": "/v1"}], "inject": "api"}
    wanted = stacks.blueprint(watched.engine.facts(), rule)
    needed = wanted_secrets(wanted.rules.rules, declared, vault.path)
    watched.wanted = replace(wanted, vault=vault, wanted=needed, headers=declared.headers)
    stacks.converged(watched.engine, watched.wanted)

    def come() -> None:
        join(watched, "agent", mounts=(Mount("bind", "/work", str(tmp_path)),))
        watched.engine.remove(ENVOY)

    watched.until(40, (10, come))
    unused = watched.decisions[-1][1].unused
    assert unused is not None
    assert unused.code == "secrets-exposed"
    assert watched.engine.inside(ENVOY).status == "running"
    assert {name: value for name, (value, _) in watched.engine.inside(ENVOY).secrets.items()} == {
        "api#bearer": "Bearer hidden"
    }


@pytest.mark.parametrize("heal", [Heal.TAMPER, Heal.ALL])
def test_a_machine_that_is_resized_is_replaced_for_once_at_most(heal: Heal, watched: Watched) -> None:
    """The difference is reported, and only `--heal all` replaces containers, once."""
    engine = watched.engine
    before = {name: engine.inside(name).id for name in (ENVOY, COREDNS)}

    def resize() -> None:
        engine.has = replace(engine.has, processors=4)

    decisions = watched.until(20 * INTERVAL, (10, resize), heal=heal)
    assert sum("heal" in each for each in decisions) == (heal is Heal.ALL)
    assert (before == {name: engine.inside(name).id for name in before}) is (heal is Heal.TAMPER)
    left = {each.cause.value for each in watched.decisions[-1][1].left}
    assert left == ({"machine"} if heal is Heal.TAMPER else set())


def test_a_watcher_that_starts_with_such_a_change_does_not_apply_it(shared: MakeShared) -> None:
    """The stack records what was applied, so an agent's change is not applied, but a person's is accepted."""
    stack = shared(read_only=False)
    watched = stack.watched
    before = stack.live()
    stack.wants("evil.test")
    watched.until(10, heal=Heal.ALL)
    assert {decision.error.code for _, decision in watched.decisions if decision.error} == {"settings-open"}
    assert stack.live() == before
    stacks.converged(watched.engine, watched.wanted)
    assert stack.live() != before
    watched.engine.stop(ENVOY)
    watched.until(10, heal=Heal.ALL)
    assert watched.decisions[-1][1].unused is None
    assert watched.is_current()


def test_a_watcher_with_another_settings_file_is_refused(shared: MakeShared, tmp_path: Path) -> None:
    """A second watcher with another file only reports, so that two watchers don't fight."""
    stack = shared(read_only=True)
    before = stack.live()
    stack.file = tmp_path / "other.yaml"
    stack.wants("other.test")
    stack.watched.until(10, heal=Heal.ALL)
    assert {decision.error.code for _, decision in stack.watched.decisions if decision.error} == {"settings-other"}
    assert stack.live() == before


@pytest.mark.parametrize("moment", ["after a look", "before the lock"])
@pytest.mark.parametrize("broken", [False, True])
def test_what_a_person_applies_is_not_undone(
    shared: MakeShared, monkeypatch: pytest.MonkeyPatch, *, moment: str, broken: bool
) -> None:
    """Rules from a `reload` between any two steps of a watcher that does not apply the file stay."""
    stack = shared(read_only=False)
    watched = stack.watched
    begin, end = unreadable(watched, BROKEN)
    due: list[bool] = []
    applied: list[bytes] = []

    def apply() -> None:
        if due:
            due.clear()
            stacks.converged(watched.engine, watched.wanted)
            applied.append(stack.live())

    def compare(engine: MemoryEngine, blueprint: Blueprint) -> pipeline.Comparison:
        seen = compared(engine, blueprint)
        if moment == "after a look":
            apply()
        return seen

    def converging(
        engine: EngineWriter,
        read: Callable[[], Blueprint],
        options: ConvergeOptions,
        context: RunContext,
        seen: pipeline.Comparison | None,
    ) -> pipeline.Comparison:
        if moment == "before the lock":
            apply()
        return converged(engine, read, options, context, seen)

    compared, converged = pipeline.compare, converge.converge
    monkeypatch.setattr(pipeline, "compare", compare)
    monkeypatch.setattr(converge, "converge", converging)

    def write() -> None:
        stack.wants("more.test")
        if broken:
            begin()

    def tamper() -> None:
        due.append(True)
        watched.engine.put_files(COREDNS, {POLICY: public(b"forged")})

    watched.until(100, (10, write), (30, tamper), (60, end), heal=Heal.ALL)
    assert applied
    assert stack.live() == applied[0]
    assert watched.decisions[-1][1].unused is None
    assert watched.is_current()
