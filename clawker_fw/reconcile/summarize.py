"""summarize: derive from findings and their plan what the plan means for people. Pure."""

from collections.abc import Mapping

from clawker_fw.errors import FirewallError
from clawker_fw.model.desired import Desired
from clawker_fw.model.differences import Cause, Diff
from clawker_fw.model.files import Files
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile import steps
from clawker_fw.reconcile.compare.rules import RuleChanges
from clawker_fw.reconcile.plan import serves
from clawker_fw.reconcile.steps import Plan, SiblingStep, Step
from clawker_fw.reconcile.summary import Build, Effect, Interruption, Summary, release_version
from clawker_fw.stack import labels
from clawker_fw.stack.envoy import chains, tls_interception
from clawker_fw.stack.envoy.sibling import CLUSTERS, LISTENERS
from clawker_fw.stack.files import read_record

_EFFECTS: Mapping[type[Step], Effect] = {
    steps.Create: Effect.CREATED,
    steps.Reattach: Effect.REATTACHED,
    steps.Start: Effect.STARTED,
    steps.Unpause: Effect.UNPAUSED,
    steps.Commit: Effect.UPDATED,
    steps.ClaimAddress: Effect.ADDRESSED,
    steps.GiveSecrets: Effect.ENTRUSTED,
    steps.Rename: Effect.RENAMED,
    steps.ProvideImage: Effect.PROVIDED,
}

_SELECTING = frozenset({"filter_chains", "filter_chain_matcher"})
"""The listener fields that Envoy changes in place: new connections then match other chains."""


def summarize(
    observed: Observed,
    desired: Desired,
    diff: Diff,
    planned: Plan | FirewallError,
    *,
    version: str,
    changes: RuleChanges | None,
) -> Summary:
    """Return what it means to close the differences. `planned` is the plan, or the error that prevents one."""
    plan = planned if isinstance(planned, Plan) else Plan(())
    effects = _effects(observed, plan)
    relays = tuple(sorted(step.spec.name for step in plan.steps if isinstance(step, steps.Publish)))
    return Summary(
        project=desired.project,
        absent=observed.absent,
        count=desired.rules.count,
        effects=effects,
        interruption=_interruption(observed, desired, plan, effects),
        changes=changes,
        builds=_builds(observed, version, diff),
        reasons={cause: tuple(finding for finding in diff.findings if finding.cause is cause) for cause in Cause},
        asked=any(isinstance(step, steps.Create) and not step.causes for step in plan.steps),
        housekeeping=not effects and not plan.empty,
        relays=relays,
        relays_cut=any(relay.container.name in relays and relay.container.running for relay in observed.relays),
        refused=planned if isinstance(planned, FirewallError) else None,
    )


def _effects(observed: Observed, plan: Plan) -> Mapping[Effect, tuple[Sibling, ...]]:
    moved = any(isinstance(step, steps.RemoveNetwork) for step in plan.steps)
    by_sibling: dict[Sibling, list[Effect]] = {sibling: [] for sibling in Sibling}
    for step in plan.steps:
        if isinstance(step, SiblingStep) and (effect := _effect(step, observed, moved=moved)):
            by_sibling[step.sibling].append(effect)
    most = {sibling: min(effects, key=[*Effect].index) for sibling, effects in by_sibling.items() if effects}
    return {
        effect: those
        for effect in Effect
        if (those := tuple(sibling for sibling, worst in most.items() if worst is effect))
    }


def _effect(step: Step, observed: Observed, *, moved: bool) -> Effect | None:
    """Return the effect of a step on its sibling. `moved` is whether the networks are recreated."""
    if isinstance(step, steps.Create) and step.sibling in observed.siblings:
        return Effect.RECREATED if moved else Effect.REPLACED
    # Without causes, the step only serves another step.
    if isinstance(step, steps.Commit | steps.GiveSecrets | steps.ClaimAddress) and not step.causes:
        return None
    return _EFFECTS.get(type(step))


def _interruption(
    observed: Observed, desired: Desired, plan: Plan, effects: Mapping[Effect, tuple[Sibling, ...]]
) -> Interruption:
    affected = {sibling for those in effects.values() for sibling in those}
    serving = {name for name, sibling in observed.siblings.items() if serves(sibling, desired)}
    replaced = {*effects.get(Effect.REPLACED, ()), *effects.get(Effect.RECREATED, ())}
    envoy, coredns = observed.siblings.get(Sibling.ENVOY), observed.siblings.get(Sibling.COREDNS)
    released = {step.container for step in plan.steps if isinstance(step, steps.ReleaseAddress)}
    drained = None
    if envoy and Sibling.ENVOY in replaced & serving:
        drains = [step for step in plan.steps if isinstance(step, steps.Drain)]
        drained = next((step.seconds for step in drains if step.container == envoy.container.id), 0.0)
    stays = Sibling.ENVOY in serving.intersection(effects.get(Effect.UPDATED, ()))
    return Interruption(
        unserved=tuple(sibling for sibling in Sibling if sibling in affected - serving),
        drained=drained,
        cut=bool(envoy and stays and ends_connections(envoy.files, desired.siblings[Sibling.ENVOY].hot)),
        lookups=coredns is not None
        and Sibling.COREDNS in replaced & serving
        and coredns.container.id not in released,
        outage=Effect.RECREATED in effects,
    )


def ends_connections(running: Files, desired: Files) -> bool:
    """Return whether Envoy may end connections or UDP sessions when it reads the desired files.

    It ends only those of a filter chain, listener or UDP cluster that is removed or changed, as measured
    (docs/how-it-works.md).
    """
    try:
        return not _connection_holders(running).items() <= _connection_holders(desired).items()
    except (AttributeError, KeyError, TypeError, ValueError):
        return True


def _connection_holders(files: Files) -> dict[tuple[str, ...], object]:
    """Return UDP clusters, chains, and listeners without the fields that Envoy changes in place, by name."""
    listeners, clusters = (read_record(files[name].content)["resources"] for name in (LISTENERS, CLUSTERS))
    holders: dict[tuple[str, ...], object] = {}
    for cluster in clusters:
        if cluster["name"].startswith("udp ") and ":" in cluster["name"]:
            holders[cluster["name"],] = cluster
    for listener in listeners:
        if listener["name"] == tls_interception.NAME:  # nothing leads to it
            continue
        holders[listener["name"],] = {field: listener[field] for field in listener.keys() - _SELECTING}
        for chain in listener.get("filter_chains", ()):
            if chain["name"] not in {chains.DENIED, chains.REFUSED}:
                holders[listener["name"], chain["name"]] = chain
    return holders


def _builds(observed: Observed, version: str, diff: Diff) -> Mapping[Sibling, tuple[Build, Build]]:
    return {
        finding.sibling: (
            Build(release_version(observed), finding.running if isinstance(finding.running, str) else None),
            Build(version, str(finding.desired)),
        )
        for finding in diff.findings
        if finding.field == labels.STACK_BUILD_SHA and finding.cause is Cause.UPGRADE
    }
