"""diff: what a sibling's program has loaded, and what its helper reports. Pure."""

from collections.abc import Iterator

from clawker_fw.model.differences import Action, Cause, Finding, Layer
from clawker_fw.model.probes import Probe
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.compare.hot import last_commit
from clawker_fw.reconcile.compare.pair import SiblingPair
from clawker_fw.stack.container import PROBER, program_of
from clawker_fw.stack.envoy import signing

ANSWER = "answer"
"""The field for a running program that does not answer. Its live resources are unknown."""

SIGNER = "signer"
"""The field for a signer that does not answer. New names get no certificate."""

SECRETS = "secrets"
"""The prefix of fields about secrets for requests."""

AGENTS_SEE = "agents_see"
"""The field for what agents see of a sibling, and should not."""


def findings(pair: SiblingPair) -> Iterator[Finding]:
    """Yield the differences between the files that a program should have loaded and those that it has."""
    probe = pair.probe
    if probe is None and not pair.container.running:
        return
    if probe is None or probe.error:
        silence = probe.error if probe else "it was not checked"
        yield pair.finding(Layer.LIVE, ANSWER, silence, "an answer", made=False, action=Action.REPLACE)
        if probe and probe.network:  # this may be why the program can't be reached
            yield _surroundings(pair, "network", probe.network, ())
        return
    if probe.signer:
        yield pair.finding(Layer.LIVE, SIGNER, probe.signer, "an answer", made=False, action=Action.REPLACE)
    yield from _secrets(pair)
    yield from _resources(pair, probe)
    for field, running, desired in (
        ("network", probe.network, ()),
        ("engine_files", probe.engine_files, ()),
        ("processes", probe.processes, ()),
        ("program", probe.program, program_of(pair.container.shape)),
    ):
        if running != desired:
            yield _surroundings(pair, field, running, desired)


def as_agents_see(pair: SiblingPair) -> Iterator[Finding]:
    """Yield what agents see of a sibling that is otherwise correct.

    CoreDNS looks on their behalf. If its network or addresses differ, its result says nothing about Envoy. If the
    Docker host drops agents' packets, another Envoy would not get them either.
    """
    resolver = pair.observed.siblings.get(Sibling.COREDNS)
    desired = pair.desired.siblings[Sibling.COREDNS].hot.get(PROBER)
    if (
        resolver is None
        or resolver.probe is None
        or resolver.probe.network
        or resolver.files.get(PROBER) != desired
    ):
        return
    name = pair.desired_sibling.sibling.value
    problems, dropped = resolver.probe.agents_see.get(name), name in resolver.probe.dropped
    if problems:
        action, cause = (Action.NONE, Cause.MACHINE) if dropped else (Action.REPLACE, None)
        yield pair.finding(
            Layer.LIVE, AGENTS_SEE, problems, (), made=cause is not None, cause=cause, action=action
        )


def _secrets(pair: SiblingPair) -> Iterator[Finding]:
    for secret in pair.secrets:
        yield pair.finding(
            Layer.LIVE,
            f"{SECRETS}.{secret.identity}",
            secret.running,
            secret.desired,
            made=True,
            cause=Cause.SETTINGS,
            action=Action.GIVE if secret.loaded else Action.REPLACE,
        )


def _resources(pair: SiblingPair, probe: Probe) -> Iterator[Finding]:
    committed = last_commit(pair.files).live
    unknown = signing.SIGNED if probe.signer else ()
    for resource, desired in pair.desired_sibling.live.items():
        digest = probe.live.get(resource)
        if digest != desired and resource not in unknown:
            yield pair.finding(
                Layer.LIVE,
                resource,
                digest and f"sha256:{digest}",
                f"sha256:{desired}",
                made=pair.made(digest, committed.get(resource)),
                action=Action.COMMIT,
            )


def _surroundings(pair: SiblingPair, field: str, running: tuple[str, ...], desired: tuple[str, ...]) -> Finding:
    lost = field == "network" and pair.taken_off
    action = Action.REATTACH if lost else Action.REPLACE
    return pair.finding(Layer.LIVE, field, running, desired, made=False, action=action)
