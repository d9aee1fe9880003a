"""The pipeline: five verbs, joined. Read this module first.

settings, rules ──> desired ──┐
                              ├──> diff ──> plan ──> apply ──> engine
engine ──> observe ───────────┘

`drift` and `status` stop after `diff`, a dry run after `plan`. `converge.py` applies plans under the stack's lock
until nothing differs.
"""

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clawker_fw.agents import judge
from clawker_fw.agents.exposure import engine_ways, exposures
from clawker_fw.agents.judge import Agent
from clawker_fw.agents.trusted_roots import authorities_of
from clawker_fw.background import in_background
from clawker_fw.certificates.credentials import Provided, Provision
from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import FirewallError, RefusedError
from clawker_fw.model.desired import Desired
from clawker_fw.model.differences import Diff, Verdict
from clawker_fw.model.observed import Attempt, Observed
from clawker_fw.model.secrets import SecretDifference
from clawker_fw.model.stacks import Sibling, Slots
from clawker_fw.reconcile import records
from clawker_fw.reconcile.advice import OF_HOST, Advice, advice, left_over, left_over_stacks
from clawker_fw.reconcile.compare.rules import RuleChanges, rule_changes
from clawker_fw.reconcile.desired_state import Blueprint, addressing, prepare, slots
from clawker_fw.reconcile.diff import diff
from clawker_fw.reconcile.lock import Holder, at_work
from clawker_fw.reconcile.observe import Expected, observe
from clawker_fw.reconcile.secrets_given import possible_exposures, require_unreachable, secret_differences
from clawker_fw.stack import collector
from clawker_fw.stack.container import HELPER

if TYPE_CHECKING:  # only differences need plans: a look at a stack that is current starts sooner without
    from clawker_fw.reconcile.steps import ConvergeOptions, Plan
    from clawker_fw.reconcile.summary import Summary


@dataclass(frozen=True)
class Comparison:
    """A comparison of the observed and the desired state. `desired_in` returns the latter for other slots."""

    blueprint: Blueprint
    observed: Observed
    slots: Slots
    provision: Provision
    provided: Provided
    desired_in: Callable[[Slots], Desired]
    desired: Desired
    diff: Diff
    secrets: tuple[SecretDifference, ...]

    @functools.cached_property
    def plan(self) -> "Callable[[ConvergeOptions], Plan]":
        """Returns the plan that closes the difference, cached so that the plan shown is the plan performed."""
        return functools.cache(self._plan)

    def _plan(self, options: "ConvergeOptions") -> "Plan":
        from clawker_fw.reconcile.plan import make_plan

        options = replace(options, drain_seconds=self.blueprint.settings.drain_timeout)
        return make_plan(self.observed, self.slots, self.desired_in, self.diff, options)

    @property
    def failed_attempt(self) -> Attempt | None:
        """The last attempt to close the difference, if it failed and the difference remains."""
        return None if self.diff.verdict.settled else records.last_attempt(self.observed)

    @property
    def busy(self) -> Holder | None:
        """The run that was changing the stack at that moment, so that the observed state may be half done."""
        return at_work(self.observed.lock)

    @property
    def rule_changes(self) -> RuleChanges | None:
        """The rules that the difference adds and removes, if the last committed ones are known."""
        return rule_changes(self.observed, self.blueprint.rules, self.desired)

    @functools.cached_property
    def agents(self) -> tuple[Agent, ...]:
        """The agents, and whether each is confined."""
        return agents_of(self.observed, self.desired.project, self.blueprint.files)

    @property
    def verdict(self) -> Verdict:
        """The verdict on the siblings, but `open` if an agent bypasses the firewall."""
        return judge.verdict(self.diff.verdict, self.agents)

    @property
    def advice(self) -> tuple[Advice, ...]:
        """All warnings."""
        vault = self.blueprint.vault
        problems = tuple(vault.problems.values()) if vault else ()
        proxy = self.blueprint.rules.proxy
        warnings = advice(self.observed, self.desired, self.provision, self.provided, problems, proxy=proxy)
        warnings += tuple(possible_exposures(self.observed, vault))
        origin, groups = self.blueprint.origin, self.blueprint.settings.groups
        if origin is None or origin.group:
            return warnings
        return warnings + left_over(left_over_stacks(self.observed.listing, self.desired.project, groups))

    @property
    def notices(self) -> tuple[Advice, ...]:
        """The warnings for people, without acknowledged ones and those about the host."""
        return tuple(notice for notice in self.first_notices if notice.code not in OF_HOST)

    @property
    def first_notices(self) -> tuple[Advice, ...]:
        """The warnings for people when a host's first stack starts."""
        return tuple(advice for advice in self.advice if advice.code not in self.blueprint.settings.acknowledged)

    @property
    def first_of_host(self) -> bool:
        """Whether no part of any stack exists on the engine."""
        return self.observed.absent and not any(container.project for container in self.observed.listing)


def agents_of(
    observed: Observed,
    project: str,
    files: Iterable[Path] = (),
    resolves: Callable[[str], bool] | None = None,
) -> tuple[Agent, ...]:
    """Return a stack's agents, and whether each is confined. Unreadable settings don't matter.

    `files` decide about the rules. `resolves` is whether the rules allow a name, by default the live rules.
    """
    ways, written = engine_ways(observed.engine), exposures(observed, files)
    return judge.judge(observed, project, ways, written, resolves or judge.resolving(observed, time.time()))


def compare(reader: EngineReader, blueprint: Blueprint, own_lock: str = "") -> Comparison:
    """Observe a stack and compare it with its desired state. `own_lock` is the id of this run's lock."""
    images = in_background(lambda: [image.reference for image in blueprint.images.values()])
    needs_secrets = blueprint.vault is not None
    expected = Expected({HELPER: blueprint.helper}, images.result, needs_secrets, own_lock)
    observing = in_background(observe, reader, blueprint.project, expected)
    images.result()
    prepare(blueprint)
    observed = observing.result()
    if blueprint.vault and not blueprint.last_good:
        require_unreachable(observed, blueprint.vault)
    secrets = secret_differences(observed.secrets, blueprint.wanted, blueprint.vault)
    addresses = addressing(blueprint, observed)
    provision, provided = _provision(blueprint, observed), blueprint.authorities_for(authorities_of(observed))
    desired_in = functools.partial(
        blueprint.desired_in,
        addresses,
        observed.machine,
        credentials=provision.credentials,
        authorities=provided,
    )
    now = slots(observed, addresses)
    desired = desired_in(now)
    differences = diff(observed, desired, secrets)
    return Comparison(blueprint, observed, now, provision, provided, desired_in, desired, differences, secrets)


def _provision(blueprint: Blueprint, observed: Observed) -> Provision:
    """Return the credentials for telemetry: the newest of those stored here and the live ones."""
    if blueprint.certificates is None:
        return Provision()
    files = {kind: sibling.files for kind, sibling in observed.siblings.items()}
    coredns = observed.siblings.get(Sibling.COREDNS)
    shown = coredns.probe.collector if coredns and coredns.probe else None
    return blueprint.certificates.provide(replace(collector.running(files), collector=shown))


def summary_of(comparison: Comparison, steps: "Plan | FirewallError | None" = None) -> "Summary":
    """Return what performing a plan means. The default is the plan of the next `run`."""
    from clawker_fw.reconcile.steps import ConvergeOptions
    from clawker_fw.reconcile.summarize import summarize

    if steps is None:
        try:
            steps = comparison.plan(ConvergeOptions())
        except RefusedError as refusal:
            steps = refusal
    version, changes = comparison.blueprint.release.version, comparison.rule_changes
    observed, desired = comparison.observed, comparison.desired
    return summarize(observed, desired, comparison.diff, steps, version=version, changes=changes)
