"""diff: a sibling's name, status, networks and service address. Pure."""

from collections.abc import Iterator
from contextlib import suppress

from clawker_fw.model.differences import Action, Cause, Finding, Layer
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.compare.pair import SiblingPair
from clawker_fw.stack.container import container_names
from clawker_fw.stack.files import read_record
from clawker_fw.stack.resources import SIBLING

RESTARTS = "restarts"
"""The field for a program that exits each time the engine starts it."""

_TO_RUN = {"paused": Action.UNPAUSE, "exited": Action.START, "created": Action.START}
"""The action that makes a container run again, by its status. Other containers are replaced."""


def findings(pair: SiblingPair) -> Iterator[Finding]:
    """Yield the differences of a sibling's state."""
    yield from _name(pair)
    yield from _status(pair)
    yield from _networks(pair)
    if pair.desired_sibling.sibling is Sibling.COREDNS:
        yield from _service_address(pair)


def health(pair: SiblingPair) -> Iterator[Finding]:
    """Yield the failed health check of an otherwise correct sibling."""
    problem = pair.probe.unhealthy if pair.probe else ""
    # After an unpause, the engine's status is outdated, so the sibling itself must report a problem as well.
    healthy = pair.answers and not problem
    if pair.container.running and pair.container.health == "unhealthy" and not healthy:
        running = f"unhealthy: {problem}" if problem else "unhealthy"
        yield pair.finding(Layer.STATE, "health", running, "healthy", made=False, action=Action.REPLACE)


def _name(pair: SiblingPair) -> Iterator[Finding]:
    name, *others = container_names(pair.desired.project, pair.desired_sibling.sibling)
    if (running := pair.container.name) != name:
        yield pair.finding(
            Layer.STATE,
            "name",
            running,
            name,
            made=running in others,
            action=Action.RENAME,
            cause=Cause.UPGRADE,
        )


def _status(pair: SiblingPair) -> Iterator[Finding]:
    container = pair.container
    if container.status != "running":
        action = _TO_RUN.get(container.status, Action.REPLACE)
        yield pair.finding(Layer.STATE, "status", container.status, "running", made=False, action=action)
    # The engine resets its count only after a start by hand. A program that runs and answers has recovered,
    # whatever the count.
    if container.restarts and (container.status == "restarting" or (container.running and not pair.answers)):
        code = "" if container.running else f", exit code {container.exit_code}"
        running = f"{container.restarts}{code}"
        yield pair.finding(Layer.STATE, RESTARTS, running, None, made=False, action=Action.REPLACE)


def _networks(pair: SiblingPair) -> Iterator[Finding]:
    running, desired = dict(pair.kept_networks), pair.desired_sibling.shape.networks
    if pair.container.running:
        for name, address in pair.container.connected.items():
            running[name] = running.get(name) or address
    for name in sorted({*running, *desired}):
        if running.get(name) != desired.get(name):
            yield pair.finding(
                Layer.STATE,
                f"networks.{name}",
                running.get(name),
                desired.get(name),
                made=f"{name}={running.get(name)}" in pair.recorded_networks,
                action=Action.REATTACH if pair.taken_off and name not in running else Action.REPLACE,
            )


def _service_address(pair: SiblingPair) -> Iterator[Finding]:
    address, probe = str(pair.desired.service_address), pair.probe
    if probe is None or probe.error or (probe.claimed and address in probe.addresses):
        return
    made = _made_service_address(pair)
    kept = probe.claimed and made != address and made in probe.addresses
    action = Action.REATTACH if pair.taken_off else Action.CLAIM
    running = made if kept else "not held"
    yield pair.finding(Layer.STATE, "service_address", running, address, made=kept, action=action)


def _made_service_address(pair: SiblingPair) -> str | None:
    """Return the service address from the container's creation, or None if its file has changed."""
    file, made = pair.files.get(SIBLING), pair.applied.boot if pair.applied else {}
    if file is None or file.digest != made.get(SIBLING):
        return None
    with suppress(KeyError, TypeError, ValueError):
        return str(read_record(file.content)["service"]["address"])
    return None
