"""The watcher: compare after an event or the interval, decide, heal as `run` would, and report.

An event is only a reason to compare. `schedule.py` has timing and retries, `decision.py` the decisions.
"""

import dataclasses
import random
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from clawker_fw.agents.judge import Agent
from clawker_fw.engine.port import EngineWriter
from clawker_fw.errors import EngineError, FirewallError, RefusedError, SettingsError, StoppedError
from clawker_fw.model.differences import CLOSING, Action, Cause, Finding
from clawker_fw.model.engines import EngineFacts, Event
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import converge, pipeline, records
from clawker_fw.reconcile.apply import RunContext
from clawker_fw.reconcile.desired_state import Blueprint
from clawker_fw.reconcile.observe import observe
from clawker_fw.reconcile.steps import ConvergeOptions
from clawker_fw.watch.agents import Admission, Admitted, Guard, OpenAgent, Presence, Register
from clawker_fw.watch.decision import (
    WITHOUT_SETTINGS,
    Decision,
    Programs,
    Reaction,
    RunOutcome,
    Trigger,
    is_arrival,
    is_lock_free,
    is_unwell,
    matters,
    may_pass,
    ours,
)
from clawker_fw.watch.follow import Inbox, News, followed
from clawker_fw.watch.reactions import Heal, OnOpen
from clawker_fw.watch.schedule import SPACING, Backoff, Random, Schedule
from clawker_fw.watch.trusted_settings import Memory, Trust

SETTLE_SECONDS = 3.0
"""How long a starting sibling is left alone."""

CALM_SECONDS = 600.0
"""How long a broken sibling's replacement must work before the backoff is reset."""

_HEAL_AGAIN = (1.0, 300.0)
_COMPARE_AGAIN = (1.0, 60.0)
_CONNECT_AGAIN = (0.1, 5.0)
_LOCK_AGAIN = (1.0, 15.0)
"""First and longest wait after failures, in seconds. Reconnects are quick, to notice a returning engine."""

_ENDED_SECONDS = 3.0
"""How long after an expiry the stack is compared. The siblings apply the expiry themselves."""

CLOSED = {
    Heal.TAMPER: frozenset({Cause.TAMPER, Cause.AGENT}),
    Heal.ALL: frozenset(Cause),
    Heal.NONE: frozenset[Cause](),
}

_LASTING_SECONDS = 20.0
"""How long events must have been followed so that their end does not continue a series of failures."""


@dataclass(frozen=True, slots=True)
class Orders:
    """The user's options. `interval` is in seconds, `admits` the network with containers to attach, or empty."""

    project: str
    heal: Heal
    interval: float
    on_open: OnOpen = OnOpen.WARN
    admits: str = ""


@dataclass(frozen=True)
class WatcherContext:
    """A watcher's dependencies: engine, settings, reporting, and clock.

    `blueprint` reads the settings again. `require_release` raises if another release has been installed.
    `report_absent` is called before a missing stack is created, and `report_open`, `report_presence` and
    `report_admitted` for each agent concerned. `alive` is called after each step of a heal, and after an
    unreported attempt. `memory` saves the last good settings for the next watcher.
    """

    connect: Callable[[], AbstractContextManager[EngineWriter]]
    blueprint: Callable[[EngineFacts], Blueprint]
    report: Callable[[Decision], None]
    inbox: Inbox
    require_release: Callable[[], None] = lambda: None
    report_absent: Callable[[], None] = lambda: None
    report_open: Callable[[OpenAgent], None] = lambda _: None
    report_presence: Callable[[Presence], None] = lambda _: None
    report_admitted: Callable[[Admitted], None] = lambda _: None
    alive: Callable[[], None] = lambda: None
    memory: Memory | None = None
    stopping: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    random: Random = random.random


class Watcher:
    """Keeps one stack current."""

    def __init__(self, orders: Orders, place: WatcherContext) -> None:
        self._orders = orders
        self._place = place
        self._own = ours(orders.project, admits=orders.admits)
        self._schedule = Schedule(orders.interval, place.random)
        self._connecting, self._comparing, self._healing, self._run_context = (
            Backoff(*limits, place.random) for limits in (_CONNECT_AGAIN, _COMPARE_AGAIN, _HEAL_AGAIN, _LOCK_AGAIN)
        )
        self._next = Trigger.START
        self._newcomer_at = float("-inf")
        """When the newest arrival is visible at the earliest: the engine announces it before its start."""
        self._tried: frozenset[tuple[Sibling, str, str]] = frozenset()
        self._settling_since: float | None = None
        self._unwell_at: float | None = None
        self._unreachable = ""
        self._trust = Trust(place.memory)
        self._guard = Guard(orders.on_open, place.alive)
        self._admission = Admission(orders.admits)
        self._present = Register()
        self._programs = Programs()
        self._starting = True
        """Whether the stack has been down since the watcher started. A stack taken down later stays down."""

    def watch(self) -> None:
        """Keep the stack current until asked to stop. Raise RefusedError if another release has been installed."""
        while not self._place.stopping():
            began = self._place.clock()
            try:
                with self._place.connect() as engine, followed(engine, self._place.inbox):
                    self._schedule.by(began)
                    wait = self._attend(engine, began)
                self._pause(wait)
            except EngineError as error:
                self._stay_away(error, began)

    def _take(self, seconds: float) -> set[News]:
        arrived = self._place.inbox.take(seconds)
        items = (self._news_of(item) if isinstance(item, Event) else item for item in arrived)
        return {news for news in items if news}

    def _news_of(self, event: Event) -> News | None:
        """Return the kind of news that an event is, judged by the last comparison, or None."""
        if is_lock_free(event, self._own):
            return News.LOCK_FREE
        if self._programs.ended(event, self._own) or matters(event, self._own):
            return News.EVENT
        return News.ARRIVAL if is_arrival(event, self._own) else None

    def _stay_away(self, error: EngineError, began: float) -> None:
        """Wait before the next attempt to reach the engine. An unchanged error is reported once."""
        wait = self._connecting.failed(self._place.clock())
        if error.message != self._unreachable:
            self._unreachable = error.message
            seconds = self._place.clock() - began
            self._place.report(Decision(self._next, Reaction.RETRY, seconds, error=error, wait=wait))
        else:
            self._place.alive()
        self._pause(wait)

    def _follow_again(self, began: float) -> float:
        """Return the wait before following events again, longer if they keep ending soon."""
        now = self._place.clock()
        if now - began >= _LASTING_SECONDS:
            self._connecting.succeeded()
        return self._connecting.failed(now)

    def _pause(self, seconds: float) -> None:
        end = self._place.clock() + seconds
        while not self._place.stopping() and (left := end - self._place.clock()) > 0:
            self._take(left)

    def _attend(self, engine: EngineWriter, began: float) -> float:
        """Compare when due, until the engine or the watcher stops. Returns the wait before reconnecting."""
        while not self._place.stopping():
            while (left := self._schedule.due - self._place.clock()) > 0:
                news = self._take(left)
                if News.STOP in news or News.GONE in news:
                    self._next = Trigger.EVENT
                    return 0.0 if News.STOP in news else self._follow_again(began)
                if News.LOCK_FREE in news:
                    self._run_context.succeeded()
                if news:
                    now = self._place.clock()
                    if News.ARRIVAL in news:
                        self._newcomer_at = now + SPACING
                    self._schedule.by(self._newcomer_at if news == {News.ARRIVAL} else now)
                    self._next = Trigger.EVENT
            decision = self._look(engine)
            self._place.report(decision)
            if decision.error and decision.error.code == "engine-unreachable":
                return decision.wait or 0.0
        return 0.0

    def _again(self, seconds: float) -> None:
        self._schedule.by(self._place.clock() + seconds)
        self._next = Trigger.RETRY

    def _look(self, engine: EngineWriter) -> Decision:
        began, wall, trigger = self._place.clock(), self._place.wall(), self._next
        self._schedule.compared(began)
        self._next = Trigger.INTERVAL
        if self._newcomer_at > began:
            self._schedule.by(self._newcomer_at)
            self._next = Trigger.EVENT
        self._place.require_release()
        try:
            work = self._take_in(engine)
        except _NothingGoodError as nothing:
            agents = self._see_to_agents_alone(engine)
            decision = dataclasses.replace(self._retry(nothing.error), agents=agents)
        except FirewallError as error:
            decision = self._retry(error)
        else:
            decision = self._looked(engine, work, began, wall)
        return dataclasses.replace(decision, trigger=trigger, seconds=self._place.clock() - began)

    def _looked(self, engine: EngineWriter, work: "_Work", began: float, wall: float) -> Decision:
        self._unreachable = ""
        if ending := work.comparison.blueprint.rules.ending(self._place.wall()):
            self._schedule.by(began + ending[0][1] + _ENDED_SECONDS)
        renewed = (work.comparison.provision.renewed_at, work.comparison.provided.renewed_at)
        due = [moment - wall for moment in renewed if moment is not None]
        if (vault := work.comparison.blueprint.vault) and (asking := vault.due) is not None:
            due.append(asking - vault.clock() + self._place.clock() - began)
        for seconds in due:
            if seconds > 0:  # what was due before could not be done: the next look in order tries it again
                self._schedule.by(began + seconds)
        self._own = ours(self._orders.project, work.comparison.observed, self._orders.admits)
        decision = self._act_on(engine, work)
        self._see_to_agents(engine, work.comparison.observed, work.comparison.agents)
        warnings = tuple(notice.message for notice in work.comparison.notices)
        return dataclasses.replace(decision, warnings=warnings, agents=work.comparison.agents)

    def _see_to_agents(self, engine: EngineWriter, observed: Observed, agents: tuple[Agent, ...]) -> None:
        """Report agents that come and go, act on open ones, attach services, and compare after a change."""
        for change in self._present.changes(agents):
            self._place.report_presence(change)
        errors = []
        for open_agent in self._guard.act(engine, observed, agents):
            self._place.report_open(open_agent)
            if open_agent.action is not OnOpen.WARN:
                errors.append(open_agent.error)
        for container in self._admission.act(engine, observed):
            self._place.report_admitted(container)
            errors.append(container.error)
        if not all(errors):
            self._again(SPACING)

    def _see_to_agents_alone(self, engine: EngineWriter) -> tuple[Agent, ...]:
        """Do so without a desired state, and return the agents, or none if the stack is unreadable."""
        try:
            observed = observe(engine, self._orders.project)
        except (EngineError, RefusedError):
            return ()
        self._own = ours(self._orders.project, observed, self._orders.admits)
        agents = pipeline.agents_of(observed, self._orders.project)
        self._see_to_agents(engine, observed, agents)
        return agents

    def _retry(self, error: FirewallError) -> Decision:
        wait = self._comparing.failed(self._place.clock())
        self._again(wait)
        return Decision(self._next, Reaction.RETRY, 0, error=error, wait=wait)

    def _blueprint(self, facts: EngineFacts) -> Blueprint:
        """Read the settings. Any failure is a FirewallError: a bug of ours must not end the watcher."""
        try:
            return self._place.blueprint(facts)
        except FirewallError:
            raise
        except Exception as error:
            raise _unusable(error) from error

    def _take_in(self, engine: EngineWriter) -> "_Work":
        """Read the settings and compare. If they are unusable, compare with the last good ones.

        Settings are also unusable if the engine lacks room for them or the stack was made from others.
        """
        facts = engine.facts()
        try:
            fresh = self._blueprint(facts)
        except FirewallError as error:
            return self._by_what_was_good(engine, facts, error)
        try:
            comparison = pipeline.compare(engine, fresh)
            records.require_same_origin(comparison.observed, fresh.origin)
            self._trust.accept(fresh, comparison.observed)
        except EngineError:
            raise  # the last good ones are compared with the same engine
        except FirewallError as error:
            return self._by_what_was_good(engine, facts, error)
        except Exception as error:  # noqa: BLE001 - see `_blueprint`
            return self._by_what_was_good(engine, facts, _unusable(error))
        return _Work(comparison)

    def _by_what_was_good(self, engine: EngineWriter, facts: EngineFacts, error: FirewallError) -> "_Work":
        """Compare with the last good settings, because of an error of the current ones.

        While a person writes new settings, the earlier ones create nothing. But an agent that breaks the settings
        must not reduce healing.
        """
        good = self._trust.good(facts)
        if good is None:
            raise _NothingGoodError(error)
        comparison = pipeline.compare(engine, good)
        if not self._trust.holds(comparison.observed):
            raise _NothingGoodError(error)
        self._trust.notice(comparison.observed, good)
        being_written = self._is_being_written(error)
        try:
            self._trust.require_latest(comparison.observed)
        except SettingsError:
            being_written = True
        return _Work(comparison, error, WITHOUT_SETTINGS if being_written else CLOSING)

    def _is_being_written(self, error: FirewallError) -> bool:
        """Whether a person may be writing other settings, judged by the current ones' error."""
        return isinstance(error, SettingsError) and not self._trust.open

    def _act_on(self, engine: EngineWriter, work: "_Work") -> Decision:
        decision = self._decide(engine, work, ConvergeOptions(causes=self._causes(work), actions=work.actions))
        if not work.unread:
            self._comparing.succeeded()
            return dataclasses.replace(decision, unused=work.unused)
        # The settings are unreadable, so there is no verdict. A completed heal is still reported.
        if decision.answer is Reaction.HEAL:
            self._again(SPACING)
            return dataclasses.replace(decision, verdicts=None, unused=work.unused)
        return self._retry(work.unread)

    def _causes(self, work: "_Work") -> frozenset[Cause]:
        """Return the causes of the differences to close.

        Differences from applied settings are expired rules, which need no `reload`. A stack that is down when the
        watcher starts is created, but not by earlier settings.
        """
        comparison = work.comparison
        causes, now = CLOSED[self._orders.heal], comparison.blueprint.origin
        self._starting = self._starting and comparison.observed.absent
        if causes and self._starting and not work.unused:
            return frozenset(Cause)
        applied = {origin.digest for origin in records.recorded_origins(comparison.observed)}
        return causes | {Cause.SETTINGS} if causes and now and applied == {now.digest} else causes

    def _decide(self, engine: EngineWriter, work: "_Work", options: ConvergeOptions) -> Decision:
        diff = work.comparison.diff
        answer, wait = self._answer(diff.findings, options.within(diff).findings)
        if answer is Reaction.HEAL:
            return self._heal(engine, options, work)
        if wait is not None:
            self._again(wait)
        return Decision(self._next, answer, 0, diff.verdicts, diff.findings, left=diff.findings, wait=wait)

    def _answer(
        self, findings: tuple[Finding, ...], closing: tuple[Finding, ...]
    ) -> tuple[Reaction, float | None]:
        """Return the reaction to the findings, and how long to wait if it is to wait."""
        now = self._place.clock()
        if self._unwell_at is not None and now - self._unwell_at > CALM_SECONDS:
            self._unwell_at = None
            self._forget_failures()
        if not may_pass(closing):
            self._settling_since = None
        if not findings:
            return Reaction.NOTHING, None
        if not closing:
            return Reaction.LEAVE, None
        if may_pass(closing):
            self._settling_since = now if self._settling_since is None else self._settling_since
            if now - self._settling_since < SETTLE_SECONDS:
                return Reaction.SETTLE, SPACING
        wait = self._run_context.left(now)
        if _keys(closing) <= self._tried:  # a new finding is tried at once, even during a backoff
            wait = max(wait, self._healing.left(now))
        return (Reaction.HOLD, wait) if wait else (Reaction.HEAL, None)

    def _settings_of(self, engine: EngineWriter, work: "_Work") -> Blueprint:
        """Return the blueprint to apply under the lock. Raise FirewallError if a person may be writing another."""
        if work.unused:
            return work.comparison.blueprint
        facts = engine.facts()
        try:
            fresh = self._blueprint(facts)
            self._trust.accept(fresh, work.comparison.observed)
        except FirewallError as error:
            if self._is_being_written(error):
                raise
            return dataclasses.replace(work.comparison.blueprint, last_good=True)
        return fresh

    def _heal(self, engine: EngineWriter, options: ConvergeOptions, work: "_Work") -> Decision:
        """Close the findings as `run` would, under its lock. With the last good settings, compare again first."""
        comparison = work.comparison
        closing = options.within(comparison.diff).findings
        applying = comparison.blueprint

        def read() -> Blueprint:
            nonlocal applying
            applying = self._settings_of(engine, work)
            return applying

        def require(observed: Observed) -> None:
            if applying.last_good and not work.unread:
                self._trust.require_latest(observed)

        run_context = RunContext(
            lambda _: self._place.alive(), self._place.stopping, require=require, wall=self._place.wall
        )
        failure: FirewallError | None = None
        wait: float | None = None
        before = None if work.unused else comparison
        if comparison.observed.absent:
            self._place.report_absent()
        try:
            after = converge.converge(engine, read, options, run_context, before)
        except StoppedError as error:
            after, outcome, failure = comparison, RunOutcome.STOPPED, error
        except FirewallError as error:
            after, outcome, failure = comparison, RunOutcome.FAILED, error
            wait = self._failed(error, closing)
            self._again(wait)
        else:
            outcome = RunOutcome.DONE
            self._own = ours(self._orders.project, after.observed, self._orders.admits)
            self._healed(closing)
        return Decision(
            self._next,
            Reaction.HEAL,
            0,
            after.diff.verdicts,
            findings=comparison.diff.findings,
            healed=closing,
            left=after.diff.findings,
            outcome=outcome,
            error=failure,
            wait=wait,
        )

    def _failed(self, error: FirewallError, closing: tuple[Finding, ...]) -> float:
        """Record a failed heal, and return how long to wait. Another run at work is not a failure."""
        now = self._place.clock()
        if error.code in {"lock-held", "settings-superseded"}:
            return self._run_context.failed(now)
        self._tried |= _keys(closing)
        return self._healing.failed(now)

    def _healed(self, closing: tuple[Finding, ...]) -> None:
        """Record a successful heal. After a broken sibling's replacement, the backoff stays for a while."""
        self._run_context.succeeded()
        now = self._place.clock()
        unwell = {sibling for sibling in Sibling if is_unwell(closing, sibling)}
        if unwell:
            self._unwell_at = now
            replaced = (finding for finding in closing if finding.action is Action.REPLACE)
            self._tried |= _keys(finding for finding in replaced if finding.sibling in unwell)
            self._healing.failed(now)
        elif self._unwell_at is None:
            self._forget_failures()

    def _forget_failures(self) -> None:
        self._healing.succeeded()
        self._tried = frozenset()


@dataclass(frozen=True, slots=True)
class _Work:
    """A comparison, and the actions allowed on it. `unused` is why the current settings were not used."""

    comparison: pipeline.Comparison
    unused: FirewallError | None = None
    actions: frozenset[Action] = CLOSING

    @property
    def unread(self) -> FirewallError | None:
        """Why the current settings can't be read, or None."""
        return self.unused if self.actions == WITHOUT_SETTINGS else None


class _NothingGoodError(Exception):
    def __init__(self, error: FirewallError) -> None:
        super().__init__(error.message)
        self.error = error


def _unusable(error: Exception) -> FirewallError:
    return FirewallError(
        "settings-unusable",
        "Can't determine the desired state.",
        context=[f"{type(error).__name__}: {error}"],
        hint="The last good settings stay in force. `clawker-fw --debug drift` may show more.",
    )


def _keys(findings: Iterable[Finding]) -> frozenset[tuple[Sibling, str, str]]:
    return frozenset((finding.sibling, finding.layer.value, finding.field) for finding in findings)
