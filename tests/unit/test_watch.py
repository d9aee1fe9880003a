"""The watcher on an in-memory engine with a scripted clock: when it compares, and what it does."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Network
from itertools import count, pairwise
from pathlib import Path

import pytest

from clawker_fw.errors import EngineError, RefusedError, SettingsError
from clawker_fw.fwctl import Helper
from clawker_fw.model.containers import ContainerSpec, Shape
from clawker_fw.model.differences import Verdict
from clawker_fw.model.engines import Event
from clawker_fw.model.networks import NetworkSpec
from clawker_fw.reconcile import converge, lock, pipeline
from clawker_fw.reconcile.apply import RunContext
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.records import origin
from clawker_fw.rules.paths import Form
from clawker_fw.settings.secrets.declared import SecretsFile
from clawker_fw.settings.secrets.vault import Vault
from clawker_fw.settings.secrets.wanted import WantedSecret
from clawker_fw.stack import images, labels
from clawker_fw.stack.expiry import EXPIRIES
from clawker_fw.stack.files import public
from clawker_fw.stack.name_list import POLICY
from clawker_fw.watch.decision import Reaction, RunOutcome, matters, ours
from clawker_fw.watch.reactions import Heal
from clawker_fw.watch.schedule import SPACING, Schedule
from clawker_fw.watch.watcher import CALM_SECONDS, SETTLE_SECONDS, Orders, Watcher
from devkit import stacks
from devkit.memory.engine import MemoryEngine
from devkit.watched import COREDNS, ENVOY, INTERVAL, CountingEngine, Script, Watched
from tests.unit.test_lock import hold


def forget_envoy(engine: MemoryEngine) -> None:
    inside = engine.inside(ENVOY)
    kept = {key: text for key, text in inside.spec.labels.items() if key != labels.STACK_BUILD_SHA}
    inside.spec = replace(inside.spec, labels=kept)


# --- looking --------------------------------------------------------------------------------------------------


def test_a_quiet_stack_is_looked_at_every_interval(watched: Watched) -> None:
    """Our own comparisons and the engine's health checks cause no comparison."""

    def check_health() -> None:
        for container in (ENVOY, COREDNS):
            inside = watched.engine.inside(container)
            health = Event("container", "exec_start", (container,), inside.id, "/fw/bin/fwctl health")
            watched.engine._emit(health)  # noqa: SLF001 - as an engine does

    ticks = [(moment, check_health) for moment in range(5, 100, 5)]
    assert watched.until(100, *ticks) == [
        "0 start nothing",
        "30 interval nothing",
        "60 interval nothing",
        "90 interval nothing",
    ]


TAMPERS: dict[str, Callable[[MemoryEngine], object]] = {
    "stopped": lambda engine: engine.stop(ENVOY),
    "paused": lambda engine: engine.pause(COREDNS),
    "removed": lambda engine: engine.remove(ENVOY),
    "disconnected": lambda engine: engine.disconnect("clawker-net", COREDNS),
    "image": lambda engine: engine.retag(engine.inside(ENVOY).spec.image, None),
    "hot file": lambda engine: engine.put_files(ENVOY, {"hot/lds/listeners.json": public(b"{}")}),
    "service address": lambda engine: Helper(engine, COREDNS).release(),
}


@pytest.mark.parametrize("name", TAMPERS)
def test_what_somebody_does_is_healed_at_once(name: str, watched: Watched) -> None:
    """An event only wakes the watcher; its content does not matter."""
    decisions = watched.until(25, (10, partial(TAMPERS[name], watched.engine)))
    assert decisions[:2] == ["0 start nothing", "10 event heal done"]
    assert decisions[2:] == [f"{10 + SPACING:g} event nothing"]  # its own actions caused events, too
    assert watched.is_current()


def test_what_nobody_tells_is_healed_by_the_interval(watched: Watched) -> None:
    """A change without an event is noticed at the next interval."""
    decisions = watched.until(35, (10, partial(forget_envoy, watched.engine)))
    assert decisions[:2] == ["0 start nothing", "30 interval heal done"]
    assert watched.is_current()


def test_a_storm_about_us_is_one_look_a_second(watched: Watched) -> None:
    """The first event is handled at once, later ones after a second."""

    def touch() -> None:
        inside = watched.engine.inside(ENVOY)
        watched.engine._emit(Event("container", "exec_start", (ENVOY,), inside.id, "sh"))  # noqa: SLF001 - as an engine does

    storm = [(10 + number / 100, touch) for number in range(1000)]
    watched.until(29, *storm)
    looks = [moment for moment, _ in watched.decisions[1:]]
    assert looks[0] == 10
    assert len(looks) == 11
    assert all(later - earlier >= SPACING - 1e-9 for earlier, later in pairwise(looks))


def test_the_end_of_what_somebody_runs_is_looked_at(watched: Watched) -> None:
    """The end of a program started in a container causes a comparison, unless the program only reads."""

    def told(action: str, words: str = "", run: str = "1") -> Callable[[], None]:
        inside = watched.engine.inside(COREDNS)
        event = Event("container", action, (COREDNS,), inside.id, words, run)
        return lambda: watched.engine._emit(event)  # noqa: SLF001 - as an engine does

    moments = [
        (5, told("exec_start", "/fw/bin/fwctl release")),
        (9, told("exec_die")),
        (12, told("exec_die")),
        (14, told("exec_start", "/fw/bin/fwctl health", "2")),
        (15, told("exec_die", run="2")),
        (16, told("exec_die", run="")),
    ]
    assert watched.until(20, *moments) == ["0 start nothing", "5 event nothing", "9 event nothing"]


def test_an_event_during_a_look_is_judged_by_what_the_look_finds(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that joins another network during its first comparison is noticed by the next one."""
    engine, compared = watched.engine, pipeline.compare
    agent = engine.create_container(stacks.bare_container("agent", watched.wanted, "clawker-net"))
    subnet = IPv4Network("172.30.1.0/24")
    engine.create_network(NetworkSpec("beside", subnet, subnet[1], subnet, False, {}, {}))  # noqa: FBT003

    def compare(engine: CountingEngine, blueprint: Blueprint) -> pipeline.Comparison:
        seen = compared(engine, blueprint)
        if seen.agents and "beside" not in engine.inside(agent).networks:
            engine.connect("beside", agent, "")
            engine.settle()
        return seen

    monkeypatch.setattr(pipeline, "compare", compare)
    watched.until(25, (5, partial(engine.start, agent)))
    assert [(moment, found.agent.name) for moment, found in watched.opened][-1] == (5 + 2 * SPACING, "agent")
    assert {opening.code for opening in watched.opened[-1][1].agent.openings} >= {"network"}


def test_an_agent_with_an_address_of_ours_is_taken_off(watched: Watched) -> None:
    """An event about our network alone is a reason to compare."""
    image = watched.engine.inside(COREDNS).spec.image
    spec = ContainerSpec("agent", image, {}, Shape((), (), {"clawker-net": "10.213.1.53"}))
    agent = watched.engine.create_container(spec)
    watched.until(20, (5, partial(watched.engine.start, agent)))
    assert watched.heals() == [5 + SPACING]
    assert watched.engine.inside(agent).networks == {}
    assert watched.is_current()


EVENTS: list[tuple[Event, bool]] = [
    (Event("container", "die", ("other-envoy",)), False),
    (Event("container", "exec_start", (ENVOY,), "1", '/fw/bin/fwctl probe without-envoy known={"a":{}}'), False),
    (Event("container", "health_status", (ENVOY,), "1", "healthy"), False),
    (Event("container", "create", ("clawker-lock",)), False),
    (Event("container", "extract-to-dir", ("clawker-lock",)), False),
    (Event("container", "destroy", ("clawker-lock",)), True),
    (Event("network", "destroy", ("clawker-egress",)), True),
    (Event("network", "disconnect", ("clawker-net",), "agent"), False),
    (Event("network", "connect", ("elsewhere",), "agent"), False),
    (Event("network", "connect", ("bridge",), "1"), True),
    (Event("image", "delete", ("sha256:1",)), True),
    (Event("image", "untag", ("other:1",)), False),
]


@pytest.mark.parametrize(("event", "reason"), EVENTS, ids=str)
def test_which_events_matter(event: Event, *, reason: bool) -> None:
    """Events about our containers cause comparisons, except those of probes."""
    own = replace(
        ours("clawker"), containers=frozenset({"1"}), images=frozenset({"clawker-fw/envoy:1", "sha256:1"})
    )
    assert matters(event, own) is reason


# --- what is healed -------------------------------------------------------------------------------------------


def test_a_changed_rule_waits_for_run(watched: Watched) -> None:
    """Tampering is healed without applying a pending change of rules."""
    watched.change("b.test")
    before = dict(watched.engine.inside(COREDNS).files)
    decisions = watched.until(20, (10, partial(watched.engine.stop, ENVOY)))
    assert decisions == ["0 start leave", "10 event heal done", "11 event leave"]
    assert dict(watched.engine.inside(COREDNS).files) == before
    assert {cause for *_, cause, _ in stacks.found(watched.engine, watched.wanted)} == {"settings"}
    assert watched.decisions[1][1].verdict is Verdict.DRIFTED


def ending(watched: Watched, file: Path, seconds: int) -> None:
    """Apply settings with a rule that expires at this second of the script."""
    until = datetime.fromtimestamp(seconds, UTC).isoformat()
    wanted = stacks.blueprint(watched.engine.facts(), "a.test", {"dst": "b.test", "until": until})
    watched.wanted = replace(wanted, origin=origin(file, None, "applied"), files=(file,))
    stacks.converged(watched.engine, watched.wanted)
    watched.blueprint = lambda: replace(watched.wanted, rules=watched.wanted.rules.at(watched.script.now))


@pytest.mark.parametrize("heal", [Heal.TAMPER, Heal.ALL])
def test_a_rule_that_has_ended_is_taken_away_soon(watched: Watched, tmp_path: Path, heal: Heal) -> None:
    """If the containers have not expired a rule, as in memory, the watcher removes it."""
    ending(watched, tmp_path / "clawker-fw.yaml", 12)
    assert watched.until(20, heal=heal) == ["0 start nothing", "15 interval heal done", "16 event nothing"]
    assert json.loads(watched.engine.inside(ENVOY).files[EXPIRIES].content) == {"ends": []}


def test_a_rule_that_has_ended_is_only_told(watched: Watched, tmp_path: Path) -> None:
    """With `--heal none`, or beside a pending change of the settings, an expired rule is only reported."""
    file = tmp_path / "clawker-fw.yaml"
    ending(watched, file, 12)
    assert watched.until(20, heal=Heal.NONE) == ["0 start nothing", "15 interval leave"]
    ending(watched, file, 12)
    changed = replace(watched.wanted, origin=origin(file, None, "changed"))
    watched.blueprint = lambda: replace(changed, rules=changed.rules.at(watched.script.now))
    assert watched.until(20) == ["0 start nothing", "15 interval leave"]


@pytest.mark.parametrize("days", [0, 1])
@pytest.mark.parametrize("kept", ["provision", "provided"])
def test_certificates_are_looked_at_when_they_should_be_renewed(
    kept: str, days: int, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal in 12 s causes a comparison; one that has been failing for a day causes none."""
    compared = pipeline.compare

    def compare(engine: MemoryEngine, blueprint: Blueprint) -> pipeline.Comparison:
        seen = compared(engine, blueprint)
        return replace(seen, **{kept: replace(getattr(seen, kept), renewed_at=12 - days * 86_400)})

    monkeypatch.setattr(pipeline, "compare", compare)
    first = "30" if days else "12"
    assert watched.until(35)[:2] == ["0 start nothing", f"{first} interval nothing"]
    watched.until(10 * INTERVAL)
    assert len(watched.decisions) <= 11


def test_a_secret_that_no_rule_needs_any_more_wakes_nobody(watched: Watched, tmp_path: Path) -> None:
    """An unused secret stays due without causing comparisons."""
    (tmp_path / "api").write_text("hidden")
    entry = {"from": {"file": "api"}, "hosts": ["a.test"], "refresh": 10}
    declared = SecretsFile.model_validate({"secrets": {"api": entry}})
    vault = Vault(declared, tmp_path / "secrets.yaml", clock=lambda: watched.script.now)
    vault.values([WantedSecret("api", Form.RAW)])
    watched.wanted = replace(watched.wanted, vault=vault)
    watched.until(10 * INTERVAL)
    assert len(watched.decisions) <= 12


def test_none_only_tells(watched: Watched) -> None:
    """With `--heal none`, differences are only reported."""
    assert watched.until(20, (10, partial(watched.engine.stop, ENVOY)), heal=Heal.NONE)[1:] == ["10 event leave"]
    assert [each.field for each in watched.decisions[-1][1].findings] == ["status"]
    assert watched.engine.inside(ENVOY).status == "exited"


@pytest.mark.parametrize("heal", [Heal.TAMPER, Heal.ALL])
def test_what_the_machine_drops_is_left_alone(watched: Watched, heal: Heal) -> None:
    """Replacing can't fix dropped packets, so they are only reported."""
    before = watched.engine.inside(ENVOY).id

    def drop(*siblings: str) -> None:
        resolver = watched.engine.inside(COREDNS)
        resolver.agents_see, resolver.dropped = dict.fromkeys(siblings, ("no answer",)), siblings

    decisions = watched.until(100, (10, partial(drop, ENVOY.removeprefix("clawker-"))), (70, drop), heal=heal)
    assert decisions == ["0 start nothing", "30 interval leave", "60 interval leave", "90 interval nothing"]
    assert watched.engine.inside(ENVOY).id == before


@pytest.mark.parametrize(
    ("heal", "created", "kept_up"),
    [(Heal.NONE, False, False), (Heal.TAMPER, True, False), (Heal.ALL, True, True)],
)
def test_a_stack_that_is_down(heal: Heal, *, created: bool, kept_up: bool) -> None:
    """A stack that is down at the start is created; one that is taken down later only with `--heal all`."""
    watched = Watched()

    def take_down() -> None:
        converge.take_down(watched.engine, "clawker", RunContext(lambda _: None), detach=False)

    take_down()
    watched.until(100, heal=heal)
    assert (watched.engine.container(ENVOY) is not None, watched.absences) == (created, [0] if created else [])
    watched.until(100, (10, take_down), heal=heal)
    assert (watched.engine.container(ENVOY) is not None) is kept_up


def test_a_stack_that_can_t_be_created_at_first(watched: Watched) -> None:
    """The watcher tries again, also if the settings were unreadable at first."""
    converge.take_down(watched.engine, "clawker", RunContext(lambda _: None), detach=False)
    usual, failures = watched.blueprint, iter([SettingsError("settings-changing", "Just changed.")])

    def blueprint() -> Blueprint:
        for error in failures:
            raise error
        return usual()

    watched.blueprint = blueprint
    decisions = watched.until(20)
    assert decisions[0] == "0 start retry"
    assert watched.is_current()


# --- what fails -----------------------------------------------------------------------------------------------


class StartsNone(CountingEngine):
    """An engine that can't start replacements until a test ends that."""

    broken = True

    def start(self, container: str) -> None:
        """Start a container unless it is a replacement."""
        if self.broken and self.inside(container).spec.name.endswith("-next"):
            raise EngineError("container-not-started", "The engine could not start it.")
        super().start(container)


def test_a_heal_that_fails_is_tried_less_and_less_often() -> None:
    """The wait doubles up to five minutes, with up to half of it random; success resets it."""
    engine = StartsNone()
    watched = Watched(engine)
    end = 1100.0
    watched.until(
        end,
        (10, partial(engine.put_files, ENVOY, {"boot/bootstrap.json": public(b"")})),
        (end - 400, lambda: setattr(engine, "broken", False)),
    )
    times = watched.heals()
    waits = [later - earlier for earlier, later in pairwise(times)]
    wanted = [0.75 * min(300, 2**number) for number in range(len(waits))]
    assert all(0 <= wait - least <= SPACING for wait, least in zip(waits, wanted, strict=True))
    assert len(waits) > 9
    outcomes = [decision.outcome for _, decision in watched.decisions if decision.outcome]
    assert outcomes == [*[RunOutcome.FAILED] * (len(outcomes) - 1), RunOutcome.DONE]
    assert watched.is_current()


def test_something_new_is_tried_at_once_although_something_else_has_failed() -> None:
    """A stopped container is started at once, even while heals of the other one fail."""
    engine = StartsNone()
    watched = Watched(engine)
    watched.until(
        200,
        (10, partial(engine.put_files, ENVOY, {"boot/bootstrap.json": public(b"")})),
        (100, partial(engine.stop, COREDNS)),
    )
    assert 100 in watched.heals()
    assert engine.inside(COREDNS).status == "running"


def fall_ill(engine: MemoryEngine) -> None:
    """Make Envoy's network differ, and cause an event."""
    engine.inside(ENVOY).network_differences = ("a route is missing",)
    unhealthy = Event("container", "health_status", (ENVOY,), engine.inside(ENVOY).id, "unhealthy")
    engine._emit(unhealthy)  # noqa: SLF001 - as an engine does


def test_a_sibling_that_does_not_work_is_not_replaced_over_and_over(watched: Watched) -> None:
    """If a replacement fails soon after each heal, the waits grow."""
    illnesses = [(float(moment), partial(fall_ill, watched.engine)) for moment in range(10, 400, 3)]
    watched.until(400, *illnesses)
    waits = [later - earlier for earlier, later in pairwise(watched.heals())]
    assert all(later >= earlier for earlier, later in pairwise(waits))
    assert len(waits) < 12
    assert waits[-1] > 90
    assert {decision.outcome for _, decision in watched.decisions} == {None, RunOutcome.DONE}


def test_tampering_beside_an_illness_is_closed_at_once_again(watched: Watched) -> None:
    """Only failing heals are delayed; tampering is always repaired at once."""
    engine = watched.engine

    def meddle() -> None:
        engine.put_files(COREDNS, {POLICY: public(b"")})

    def both() -> None:
        engine.put_files(COREDNS, {POLICY: public(b"")})
        fall_ill(engine)

    watched.until(60, (10, both), (20, both), (30, meddle), (40, meddle))
    assert {30.0, 40.0} <= set(watched.heals())


def test_what_worked_for_a_while_is_replaced_at_once_again(watched: Watched) -> None:
    """A while without failures resets the backoff."""
    moments = [10.0, 50.0, 60.0 + CALM_SECONDS]
    watched.until(moments[-1] + 10, *((moment, partial(fall_ill, watched.engine)) for moment in moments))
    assert watched.heals() == moments


def crash(engine: MemoryEngine) -> None:
    """Let Envoy crash, and the engine restart it."""
    engine.stop(ENVOY)
    engine.inside(ENVOY).status = "restarting"


def test_a_sibling_that_the_engine_restarts_is_left_to_it(watched: Watched) -> None:
    """A program that recovers by itself is not replaced."""
    before = watched.engine.inside(ENVOY).id
    decisions = watched.until(
        20, (10, partial(crash, watched.engine)), (11.5, partial(watched.engine.start, ENVOY))
    )
    assert decisions == ["0 start nothing", "10 event settle", "11 again settle", "12 event nothing"]
    assert watched.engine.inside(ENVOY).id == before


def test_a_sibling_that_does_not_come_back_is_replaced(watched: Watched) -> None:
    """After a while, a program that does not recover is replaced."""
    watched.until(20, (10, partial(crash, watched.engine)))
    assert watched.heals() == [10 + SETTLE_SECONDS]
    assert watched.is_current()


def test_another_run_has_its_turn(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is done while another run holds the lock; the watcher compares when it is released."""
    engine = watched.engine
    monkeypatch.setattr(lock, "_is_alive", lambda _: True)
    decisions = watched.until(
        60,
        (9, partial(hold, engine, images.lock_image(engine.facts()), process="1 0")),
        (10, partial(engine.stop, ENVOY)),
        (29.5, partial(engine.remove, "clawker-lock")),
    )
    tries = [moment for moment in watched.heals() if moment < 29]
    assert decisions[1] == "10 event heal failed"
    assert watched.decisions[1][1].error is not None
    assert watched.decisions[1][1].error.code == "lock-held"
    assert len(tries) <= 5
    assert "29.5 event heal done" in decisions
    assert watched.is_current()


def test_an_engine_that_goes_away_is_waited_for(watched: Watched) -> None:
    """A missing engine is reported once, and the watcher compares as soon as it answers."""
    connect, absent = watched.connect, EngineError("engine-unreachable", "The engine can't be reached.")

    @contextmanager
    def unreachable() -> Iterator[CountingEngine]:
        if watched.script.now < 60:
            raise absent
        with connect() as engine:
            yield engine

    def go_away() -> None:
        watched.connect = unreachable
        watched.engine.stop(ENVOY)
        watched.engine.go_away()

    decisions = watched.until(80, (10, go_away))
    assert decisions[:2] == ["0 start nothing", "10.075 event retry"]
    moment, after = watched.decisions[2]
    assert 60 <= moment <= 65
    assert (after.answer, after.outcome) == (Reaction.HEAL, RunOutcome.DONE)
    assert watched.is_current()


def test_a_watcher_that_waits_is_alive(watched: Watched) -> None:
    """Every attempt counts as a sign of life, even with a missing engine or a failing comparison."""
    connect = watched.connect

    @contextmanager
    def unreachable() -> Iterator[CountingEngine]:
        if 100 < watched.script.now < 600:
            raise EngineError("engine-unreachable", "The engine can't be reached.")
        with connect() as engine:
            yield engine

    def broken() -> Blueprint:
        raise SettingsError("settings-invalid", "Half a file.")

    good = watched.blueprint
    watched.connect = unreachable
    watched.until(
        1200,
        (101, watched.engine.go_away),
        (700, partial(setattr, watched, "blueprint", broken)),
        (1100, partial(setattr, watched, "blueprint", good)),
    )
    signs = sorted([*(moment for moment, _ in watched.decisions), *watched.signs])
    assert max(after - before for before, after in pairwise(signs)) < 100  # a unit waits for 120 s


def test_events_that_end_at_once_are_followed_again_after_a_pause(watched: Watched) -> None:
    """Pauses before reconnecting grow up to 5 s, and the stack is kept current."""
    connections: list[float] = []
    connect = watched.connect

    @contextmanager
    def ending() -> Iterator[CountingEngine]:
        connections.append(watched.script.now)
        with connect() as engine:
            engine.go_away_soon = watched.script.now < 200
            yield engine

    watched.connect = ending
    watched.until(300, (120, partial(watched.engine.stop, ENVOY)))
    pauses = [round(after - before, 3) for before, after in pairwise(connections)]
    assert pauses == sorted(pauses)
    assert max(pauses) > 3
    assert len(connections) < 70
    assert len(watched.heals()) == 1
    assert watched.heals()[0] - 120 < 6
    assert watched.is_current()


def test_another_release_on_disk_ends_the_watch(watched: Watched) -> None:
    """When its own code is upgraded, the watcher stops and leaves the stack alone."""

    def require() -> None:
        if watched.script.now >= 10:
            raise RefusedError("release-changed", "Another release.")

    watched.script = Script(watched.engine, 50)
    watched.script.at(10, partial(watched.engine.stop, ENVOY))
    place = replace(watched.place(), require_release=require)
    with pytest.raises(RefusedError, match="Another release"):
        Watcher(Orders("clawker", Heal.ALL, INTERVAL), place).watch()
    assert watched.engine.inside(ENVOY).status == "exited"


def test_a_stop_finishes_the_step_in_hand(watched: Watched) -> None:
    """A stop leaves the remaining steps to the next run."""
    watched.script = Script(watched.engine, 50)
    steps = count()

    def alive() -> None:
        watched.script.stopped = next(steps) >= 1

    forget_envoy(watched.engine)
    place = replace(watched.place(), alive=alive)
    Watcher(Orders("clawker", Heal.ALL, INTERVAL), place).watch()
    ((_, decision),) = watched.decisions
    assert decision.outcome is RunOutcome.STOPPED
    assert [watched.engine.container(name) for name in ("clawker-lock", "clawker-envoy-next")] == [None, None]
    assert stacks.converged(watched.engine, watched.wanted).diff.verdict is Verdict.CURRENT


# --- time -----------------------------------------------------------------------------------------------------


def test_intervals_have_jitter() -> None:
    """Jitter keeps many watchers from comparing at the same time."""
    shares = iter([0.0, 0.5, 1.0])
    pace = Schedule(100, lambda: next(shares))
    dues = []
    for _ in range(3):
        pace.compared(0)
        dues.append(pace.due)
    assert dues == pytest.approx([90, 100, 110])
