"""After a failed or killed run, the old containers keep serving, and the next run finishes the work."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from clawker_fw.errors import (
    ConflictError,
    EngineError,
    NotProvenError,
    RefusedError,
    StoppedError,
)
from clawker_fw.model.containers import ContainerSpec
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import converge, pipeline
from clawker_fw.reconcile.apply import Progress, RunContext
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.lock import Lock, holder
from clawker_fw.reconcile.plan import ANNOUNCE_SECONDS
from clawker_fw.reconcile.steps import ClaimAddress, ConvergeOptions, ReleaseAddress, describe
from clawker_fw.report.documents.run import DriftDocument
from clawker_fw.stack import images, labels
from devkit import stacks
from devkit.memory.engine import MemoryEngine


def brought_up(engine: MemoryEngine) -> Blueprint:
    """Bring a stack up, and return its blueprint."""
    wanted = stacks.blueprint(engine.facts(), "a.test")
    stacks.converged(engine, wanted)
    return wanted


class NeverReady(MemoryEngine):
    """An engine on which containers created while it is broken never answer or become healthy."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.only_unhealthy = False
        self._silenced: set[str] = set()

    def create_container(self, spec: ContainerSpec) -> str:
        """Create a container, which never answers if the engine is broken."""
        identity = super().create_container(spec)
        if self.broken and labels.SIBLING in spec.labels:
            self._silenced.add(identity)
        return identity

    def start(self, container: str) -> None:
        """Start a container, which logs something before it falls silent."""
        super().start(container)
        inside = self.inside(container)
        if inside.id in self._silenced and self.only_unhealthy:
            inside.unhealthy = "it looks up no name"
        elif inside.id in self._silenced:
            inside.silent = "connection refused"
            inside.log.append("the program's last words")


@pytest.mark.usefixtures("up")
def test_another_run_is_respected_on_a_full_disk(memory: MemoryEngine) -> None:
    """On a full disk, the lock of a run on another machine is still respected."""
    image = images.lock_image(memory.facts())
    with Lock(memory, "clawker", image):
        memory.disk_full = True
        with pytest.raises(RefusedError) as caught:
            stacks.converged(memory, stacks.blueprint(memory.facts()))
    assert caught.value.code == "lock-held"


def test_a_failed_attempt_is_remembered_until_one_succeeds() -> None:
    """The next comparison shows the failed attempt and its reason, until the stack is current."""
    engine = NeverReady()
    brought_up(engine)
    engine.broken = True
    wanted = stacks.blueprint(engine.facts(), "a.test", "b.test", otel={"infra_port": 1})
    assert pipeline.compare(engine, wanted).failed_attempt is None
    with pytest.raises(NotProvenError):
        stacks.converged(engine, wanted)
    failed = pipeline.compare(engine, wanted).failed_attempt
    assert failed
    assert (failed.code, failed.context[-1]) == ("replacement-not-ready", "log: the program's last words")
    seen = pipeline.compare(engine, wanted)
    shown = DriftDocument.of(seen, None, seen.verdict, ()).failed_attempt
    assert shown
    assert shown.code == "replacement-not-ready"

    engine.broken = False
    assert stacks.converged(engine, wanted).failed_attempt is None
    for name in ("clawker-envoy", "clawker-coredns"):
        bare = labels.sibling_labels("clawker", Sibling(name.removeprefix("clawker-")), 0)
        engine.inside(name).spec = replace(engine.inside(name).spec, labels=bare)
    assert pipeline.compare(engine, wanted).failed_attempt is None


def test_a_coredns_that_stopped_is_named_for_the_envoy_it_tests() -> None:
    """The CoreDNS that tests a new Envoy has stopped: the error says so, with its log."""

    class Stopping(MemoryEngine):
        def start(self, container: str) -> None:
            super().start(container)
            inside = self.inside(container)
            if Sibling.COREDNS in inside.spec.name:
                inside.status, inside.exit_code = "exited", 1
                inside.log.append("exec /coredns: exec format error")

    engine = Stopping()
    error = _not_ready(engine, stacks.blueprint(engine.facts(), "a.test"))
    stopped, *log = error.context[-2:]
    assert stopped == "agents' view: The engine could not run fwctl see in clawker-coredns: it is exited."
    assert log == ["log: exec /coredns: exec format error"]


def test_what_serves_after_a_failure_is_looked_at() -> None:
    """The hint says what serves after a failure: nothing on a first run, otherwise the former containers."""
    engine = NeverReady()
    engine.broken = True
    wanted = stacks.blueprint(engine.facts(), "a.test")
    assert _not_ready(engine, wanted).hint == "What was created has been removed. Nothing serves now."
    engine.broken = False
    stacks.converged(engine, wanted)
    engine.broken = True
    engine.inside("clawker-coredns").silent = "timeout"
    served = _not_ready(engine, wanted, ConvergeOptions(replace_all=True))
    assert served.hint == (
        "What was created has been removed. "
        "The former coredns does not answer: agents may reach nothing. Run it again."
    )


def test_an_unfinished_first_run_is_no_tampering() -> None:
    """Leftovers of a failed or killed first run do not count as tampering."""
    engine = NeverReady()
    engine.broken = True
    wanted = stacks.blueprint(engine.facts(), "a.test")
    _not_ready(engine, wanted)
    assert engine.networks() == ()
    for spec in pipeline.compare(engine, wanted).desired.networks.values():
        engine.create_network(spec)
    assert "tamper" in {cause for _, _, _, cause, _ in stacks.found(engine, wanted)}
    image = images.lock_image(engine.facts()).reference
    killed = {**labels.ownership_labels("clawker"), **holder(), labels.LOCK_PROCESS: "1 0"}
    engine.create_container(stacks.never_started("clawker-lock", image, killed))
    assert {cause for _, _, _, cause, _ in stacks.found(engine, wanted)} == {"upgrade"}


def test_an_unhealthy_sibling_proves_nothing() -> None:
    """A failing own health check stops a replacement, a live update and a run without changes."""
    engine = NeverReady()
    wanted = brought_up(engine)
    engine.broken = engine.only_unhealthy = True
    caught = _not_ready(engine, wanted, ConvergeOptions(replace_all=True))
    assert caught.context[0] == "unhealthy: it looks up no name"
    engine.inside("clawker-envoy").unhealthy = "it looks up no name"
    for names in (["a.test", "b.test"], ["a.test", "b.test"]):
        with pytest.raises(NotProvenError) as found:
            stacks.converged(engine, stacks.blueprint(engine.facts(), *names))
        assert (found.value.code, found.value.context) == ("not-proven", ("envoy: it looks up no name",))


_PLAIN = ConvergeOptions()


def _not_ready(engine: MemoryEngine, wanted: Blueprint, options: ConvergeOptions = _PLAIN) -> NotProvenError:
    with pytest.raises(NotProvenError) as caught:
        stacks.converged(engine, wanted, options)
    assert caught.value.code == "replacement-not-ready"
    return caught.value


@pytest.mark.parametrize("failing", ["create_network", "remove_network", "create_container", "stop"])
def test_an_engine_that_fails_while_networks_are_changed(
    failing: str, monkeypatch: pytest.MonkeyPatch, memory: MemoryEngine, up: Blueprint
) -> None:
    """Whichever call fails, the old stack serves as before, and the next run completes the change."""
    moved = stacks.blueprint(memory.facts(), "a.test", network={"subnet": "10.99.0.0/20"})
    call, times = getattr(memory, failing), iter(range(100))

    def fail(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - passed on
        lock = getattr(arguments[0], "name", "") == "clawker-lock"
        if not lock and next(times) == 1:
            raise EngineError("engine-error", "The engine could not do it.")
        return call(*arguments, **named)

    monkeypatch.setattr(memory, failing, fail)
    with pytest.raises(EngineError) as caught:
        stacks.converged(memory, moved)
    assert caught.value.message == "The engine could not do it."
    assert caught.value.hint == "What was created has been removed. The former envoy and coredns still serve."
    assert stacks.found(memory, up) == set()
    assert stacks.serving(memory)
    stacks.converged(memory, moved)
    assert stacks.found(memory, moved) == set()


@pytest.mark.usefixtures("up")
def test_a_commit_without_an_answer_claims_nothing(monkeypatch: pytest.MonkeyPatch, memory: MemoryEngine) -> None:
    """Without an answer, the error claims neither that new files are in effect nor that old ones were restored."""
    monkeypatch.setattr(memory, "run_helper", lambda *_, **__: None)
    with pytest.raises(NotProvenError) as caught:
        stacks.converged(memory, stacks.blueprint(memory.facts(), "b.test"))
    assert caught.value.code == "commit-unanswered"


class Committing(MemoryEngine):
    """An engine in which applying files to Envoy goes wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.names_committed = threading.Event()

    def run_helper(
        self,
        container: str,
        arguments: Sequence[str],
        on_line: Callable[[Any], None],
        silence: float,
        *,
        sent: bytes = b"",
    ) -> None:
        """Run other verbs as usual."""
        if arguments[0] == "commit-in-place" and self.inside(container).spec.name == "clawker-envoy":
            self.commit_to_envoy(container, on_line)
            return
        super().run_helper(container, arguments, on_line, silence, sent=sent)
        if arguments[0] == "commit-in-place":
            self.names_committed.set()

    def commit_to_envoy(self, container: str, on_line: Callable[[Any], None]) -> None:
        """Hang after reading the files until a restart, then restore the old ones."""
        self.inside(container).silent = "no answer"
        answer = {"committed": False, "rejected": [], "missing": ["listeners"], "reason": "silent"}
        on_line({**answer, "hung": True})

    def start(self, container: str) -> None:
        super().start(container)
        self.inside(container).silent = ""


class Ending(Committing):
    """An engine in which applying files ends Envoy and the helper, and both restart."""

    def commit_to_envoy(self, container: str, on_line: Callable[[Any], None]) -> None:
        """End the program, and restart it."""
        del on_line
        self.stop(container)
        self.start(container)
        raise EngineError("helper-failed", "fwctl commit-in-place failed: it ended with 137.")


def test_a_hung_program_that_can_not_be_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error, exit code 5, says first what the files did, then that the program does not serve."""
    engine = Committing()
    brought_up(engine)

    def fail(container: str) -> None:
        raise EngineError("engine-error", f"The engine could not start {container}.")

    wanted = stacks.blueprint(engine.facts(), "b.test")
    monkeypatch.setattr(engine, "start", fail)
    with pytest.raises(NotProvenError) as caught:
        stacks.converged(engine, wanted)
    assert (caught.value.code, caught.value.exit_code) == ("commit-ended-program", 5)
    assert "restarted" not in caught.value.message
    assert "its restart failed as well: The engine could not start" in caught.value.context[-1]
    assert caught.value.hint.startswith("envoy does not serve")


@pytest.mark.parametrize("kind", [Committing, Ending])
def test_a_file_that_stops_a_program_is_no_outage(kind: type[Committing]) -> None:
    """A hanging program is restarted, a crashed one restarts itself, and both then use the last verified files."""
    engine = kind()
    first = brought_up(engine)
    before = engine.inside("clawker-envoy")
    identity, started = before.id, before.started
    changed = stacks.blueprint(engine.facts(), "b.test")
    with pytest.raises(NotProvenError) as caught:
        stacks.converged(engine, changed)
    assert caught.value.code == "commit-ended-program"
    after = engine.inside("clawker-envoy")
    assert (after.id, after.status, after.silent) == (identity, "running", "")
    assert after.started != started
    assert {layer for _, layer, *_ in stacks.found(engine, first)} <= {"hot"}


class Disproving(Committing):
    """An engine whose Envoy accepts files, but serves others once CoreDNS has its own."""

    def commit_to_envoy(self, container: str, on_line: Callable[[Any], None]) -> None:
        """Report that the files are applied, but restore the old ones."""
        del container
        on_line({"taken": True})
        assert self.names_committed.wait(10)
        answer = {"committed": False, "rejected": [], "missing": ["listeners"], "reason": "", "hung": False}
        on_line(answer)


def test_what_is_taken_and_not_proven_is_an_error() -> None:
    """Names resolve once Envoy serves the new rules. If the final check fails, that is reported."""
    engine = Disproving()
    brought_up(engine)
    changed = stacks.blueprint(engine.facts(), "b.test")
    with pytest.raises(NotProvenError) as caught:
        stacks.converged(engine, changed)
    assert caught.value.code == "commit-rejected"
    assert {finding[0] for finding in stacks.found(engine, changed)} == {Sibling.ENVOY}


def test_a_stranger_with_the_name_of_a_replacement_is_left_alone(memory: MemoryEngine, up: Blueprint) -> None:
    """A foreign container that appears after the comparison fails the run, which removes only its own."""
    progress_seen: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if not progress_seen:
            memory.create_container(stacks.bare_container("clawker-envoy-next", up))
        progress_seen.append(progress)

    with pytest.raises(ConflictError):
        converge.converge(memory, lambda: up, ConvergeOptions(replace_all=True), RunContext(on_progress))
    assert [each.name for each in memory.listing()] == ["clawker-coredns", "clawker-envoy", "clawker-envoy-next"]


@pytest.mark.parametrize("point", range(1, 8))
def test_stopping_finishes_the_step_in_hand(point: int, memory: MemoryEngine, up: Blueprint) -> None:
    """Before agents notice anything, new containers are removed. What remains is listed."""
    options = ConvergeOptions(replace_all=True)
    planned = set(map(describe, pipeline.compare(memory, up).plan(options).steps))
    progress_seen: list[Progress] = []
    run_context = RunContext(progress_seen.append, lambda: len(progress_seen) >= point)
    with pytest.raises(StoppedError) as caught:
        converge.converge(memory, lambda: up, options, run_context)
    assert caught.value.exit_code == 130
    lines = [line for line in caught.value.context if line.startswith("left: ")]
    left = {step for line in lines for step in line.removeprefix("left: ").split(", then ")}
    assert left == planned - {describe(progress.step) for progress in progress_seen if progress.share == 1}
    assert stacks.serving(memory)
    stacks.converged(memory, up)
    assert stacks.found(memory, up) == set()


@pytest.mark.parametrize("step", [ClaimAddress, ReleaseAddress])
def test_the_address_is_announced_once_only_one_holds_it(step: type, memory: MemoryEngine, up: Blueprint) -> None:
    """After a run that ended in a takeover, the old CoreDNS is removed once all agents know the new one."""
    ended: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if isinstance(progress.step, step) and progress.share == 1:
            ended.append(progress)

    options = ConvergeOptions(replace_all=True)
    with pytest.raises(StoppedError):
        converge.converge(memory, lambda: up, options, RunContext(on_progress, lambda: bool(ended)))
    steps = pipeline.compare(memory, up).plan(ConvergeOptions()).steps
    named = [f"{type(each).__name__} {getattr(each, 'seconds', '')}".strip() for each in steps]
    both = ["ClaimAddress 0", "ReleaseAddress"] if step is ClaimAddress else []
    assert named[: len(both) + 1] == [*both, f"ClaimAddress {ANNOUNCE_SECONDS}"]
    assert named[len(both) + 1] in {"Drain 30.0", "Remove"}


@pytest.mark.parametrize("content", [b'{"names":Infinity}', b'{"next":1e999}', b"[" * 100_000, b"\xff", b"null"])
@pytest.mark.parametrize(
    "path", ["state/committed.json", "boot/sibling.json", "hot/numbers/numbers.json", "hot/policy/names.json"]
)
def test_a_file_that_can_not_be_read_is_a_difference(
    path: str, content: bytes, memory: MemoryEngine, up: Blueprint
) -> None:
    """Endless numbers or deep nesting in a file are a difference and fail no reader."""
    coredns = memory.inside("clawker-coredns")
    coredns.files[path] = replace(coredns.files[path], content=content)
    assert stacks.found(memory, up)
