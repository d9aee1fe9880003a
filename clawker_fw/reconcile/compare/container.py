"""diff: compare a container with what it should be. Pure.

Image and shape are compared alike for siblings and relays; of a sibling, its state and labels as well. Its other
aspects have comparisons of their own, which share the two sides, and the form of a finding.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from clawker_fw.model import (
    Action,
    Cause,
    ContainerView,
    Desired,
    DesiredSibling,
    Finding,
    Image,
    Layer,
    Observed,
    ObservedSibling,
    Shape,
    Sibling,
    Value,
)
from clawker_fw.reconcile.compare.rules import rules_only_by_upgrade
from clawker_fw.stack import labels, versions
from clawker_fw.stack.container import container_names
from clawker_fw.stack.image_tar import version_in
from clawker_fw.stack.resources import SIBLING

RESTARTS = "restarts"
"""The field of the state layer that reports a program which ends every time the engine starts it."""


class Difference(NamedTuple):
    """A field with its running and its desired value, and whether we made the running one."""

    field: str
    running: Value
    desired: Value
    made: bool


def known_ids(observed: Observed, image: Image) -> tuple[str, ...]:
    """Return the ids that a desired image can have. There are none for a reference that was not pulled yet."""
    view = observed.images.get(image.reference)
    return image.ids or ((view.id,) if view else ())


def image_difference(observed: Observed, container: ContainerView, image: Image) -> Difference | None:
    """Return the difference of a container's image. For a reference that was not pulled yet, the name decides."""
    applied, known = labels.read_applied(container.labels), known_ids(observed, image)
    made_from_it = applied is not None and applied.image == image.reference
    if container.image in known or (not known and made_from_it):
        return None
    made = applied is not None and (
        container.image in applied.image_ids if applied.image_ids else not made_from_it
    )
    return Difference("id", container.image, known[0] if known else image.reference, made)


def shape_differences(
    observed: Observed, container: ContainerView, shape: Shape, *, unrecorded: bool
) -> Iterator[Difference]:
    """Yield the fields of a container's shape that differ.

    `unrecorded` is whether we made a value that the container's record does not name.
    """
    applied = labels.read_applied(container.labels)
    running = {**labels.shape_fields(container.shape), "environment": _environment(observed, container, shape)}
    for field, value in labels.shape_fields(shape).items():
        if running[field] == value:
            continue
        recorded = applied.shape.get(field) if applied else None
        made = unrecorded if recorded is None else running[field] == recorded
        yield Difference(field, _value(running[field]), _value(value), made)


def _environment(observed: Observed, container: ContainerView, shape: Shape) -> list[str]:
    view = observed.images.get(container.image)
    inherited = set(view.environment if view else ()) - set(shape.environment)
    return sorted(set(container.shape.environment) - inherited)


def _value(value: str | int | bool | list[str]) -> Value:  # noqa: FBT001 - a value, not a switch
    return tuple(value) if isinstance(value, list) else value


class SiblingComparison:
    """One sibling's container and what it should be. Subclasses compare one aspect each."""

    def __init__(self, observed: Observed, desired: Desired, seen: ObservedSibling) -> None:
        """Compare the observed container `seen` with what `desired` says of its sibling."""
        self._observed = observed
        self._desired = desired
        self._seen = seen
        self._container = seen.container
        self._wanted: DesiredSibling = desired.siblings[seen.sibling]
        self._applied = labels.read_applied(seen.container.labels)
        made_by = seen.container.labels.get(labels.STACK_BUILD_SHA)
        same_release = made_by == self._wanted.labels[labels.STACK_BUILD_SHA]
        at_start = Cause.SETTINGS if same_release else Cause.UPGRADE
        self._reason = Cause.UPGRADE if rules_only_by_upgrade(observed, desired) else at_start
        self._by_another_release = self._applied is not None and bool(made_by) and not same_release
        had = self._applied.machine if self._applied else {}
        has = self._wanted.from_machine
        resized = any(had[value] != has[value] for value in {*had} & {*has})
        self._reason_at_start = Cause.MACHINE if same_release and resized else at_start

    def _finding(
        self,
        layer: Layer,
        field: str,
        running: Value,
        desired: Value,
        *,
        made: bool,
        action: Action,
        contents: tuple[bytes, bytes] | None = None,
        reason: Cause | None = None,
        versions: tuple[str | None, str | None] | None = None,
    ) -> Finding:
        """Return a finding.

        `made` says whether we made the running value. If so, `reason` is the cause; by default it follows from the
        release that made the container, and for what is decided at its start, from the engine's machine.
        """
        usual = self._reason_at_start if layer in {Layer.SHAPE, Layer.BOOT} else self._reason
        cause = (reason or usual) if made else Cause.TAMPER
        return Finding(self._wanted.sibling, layer, field, running, desired, cause, action, contents, versions)

    def _made(self, running: object, recorded: object | None) -> bool:
        """Whether we made a running value: it is as recorded, or another release's record does not speak of it.

        `recorded` is None for a value that the record does not name. A record of this release names everything.
        """
        return self._by_another_release if recorded is None else running == recorded

    def _unreadable(self, layer: Layer, field: str, action: Action, *, made: bool = False) -> Finding:
        return self._finding(layer, field, "unreadable", "a record", made=made, action=action)

    @property
    def _answers(self) -> bool:
        probe = self._seen.probe
        return probe is not None and not probe.error

    @property
    def _kept_networks(self) -> Mapping[str, str]:
        """The container's address on each network that it is on, or will be on when it starts."""
        container = self._container
        networks = {network.name: network.id for network in self._observed.networks.values()}
        stopped = container.status in {"exited", "created"}
        return {
            name: address
            for name, address in container.shape.networks.items()
            if not stopped or container.remembered.get(name, "") in {"", networks.get(name, "")}
        }

    @property
    def _taken_off(self) -> bool:
        """Whether the container has lost a network to which it can be reconnected at its recorded address."""
        wanted = self._wanted.shape.networks
        lost = set(wanted) - set(self._kept_networks)
        recorded = self._applied.shape.get("networks") if self._applied else None
        made = recorded if isinstance(recorded, list) else ()
        able = self._container.status in {"running", "exited", "created"}
        return able and bool(lost) and all(f"{name}={wanted[name]}" in made for name in lost)


class ContainerComparison(SiblingComparison):
    """The container as the engine describes it."""

    def findings(self) -> Iterator[Finding]:
        """Yield the differences, layer by layer."""
        yield from self._state()
        yield from self._labels()
        yield from self._image()
        yield from self._shape()

    def _state(self) -> Iterator[Finding]:
        container, wanted = self._container, self._wanted
        name, *others = container_names(self._desired.project, wanted.sibling)
        if container.name != name:
            yield self._finding(
                Layer.STATE,
                "name",
                container.name,
                name,
                made=container.name in others,
                action=Action.RENAME,
                reason=Cause.UPGRADE,
            )
        if container.status != "running":
            action = {"paused": Action.UNPAUSE, "exited": Action.START, "created": Action.START}.get(
                container.status, Action.REPLACE
            )
            yield self._finding(Layer.STATE, "status", container.status, "running", made=False, action=action)
        # The engine resets its count only when somebody starts the container by hand. A program that runs and
        # answers has recovered, whatever the count is.
        if container.restarts and (container.status == "restarting" or (container.running and not self._answers)):
            code = "" if container.running else f", exit code {container.exit_code}"
            running = f"{container.restarts}{code}"
            yield self._finding(Layer.STATE, RESTARTS, running, None, made=False, action=Action.REPLACE)
        yield from self._networks_held()
        if wanted.sibling is Sibling.COREDNS and (probe := self._seen.probe) and not probe.error:
            yield from self._service_address()

    def _networks_held(self) -> Iterator[Finding]:
        running, wanted = dict(self._kept_networks), self._wanted.shape.networks
        if self._container.running:
            for name, address in self._container.connected.items():
                running[name] = running.get(name) or address
        made = self._applied.shape.get("networks") if self._applied else None
        for name in sorted({*running, *wanted}):
            if running.get(name) != wanted.get(name):
                yield self._finding(
                    Layer.STATE,
                    f"networks.{name}",
                    running.get(name),
                    wanted.get(name),
                    made=f"{name}={running.get(name)}" in (made if isinstance(made, list) else ()),
                    action=Action.REATTACH if self._taken_off and name not in running else Action.REPLACE,
                )

    def _service_address(self) -> Iterator[Finding]:
        address, probe = str(self._desired.service_address), self._seen.probe
        if probe and not (probe.claimed and address in probe.addresses):
            made = self._made_service_address
            kept = probe.claimed and made != address and made in probe.addresses
            action = Action.REATTACH if self._taken_off else Action.CLAIM
            yield self._finding(
                Layer.STATE, "service_address", made if kept else "not held", address, made=kept, action=action
            )

    @property
    def _made_service_address(self) -> str | None:
        """The service address that the container was made with, or None if its file is not as it was made."""
        file, made = self._seen.files.get(SIBLING), self._applied.boot if self._applied else {}
        if file is None or labels.digest(file.content) != made.get(SIBLING):
            return None
        with suppress(KeyError, TypeError, ValueError, RecursionError):
            return str(json.loads(file.content)["service"]["address"])
        return None

    def _labels(self) -> Iterator[Finding]:
        applied = self._applied
        for label in labels.DRIFT_LABELS:
            running = self._container.labels.get(label)
            if running != self._wanted.labels[label]:
                is_new = self._by_another_release and applied is not None and label not in applied.labels
                yield self._finding(
                    Layer.LABELS,
                    label,
                    running,
                    self._wanted.labels[label],
                    made=running is not None or is_new,
                    action=Action.REPLACE,
                )
        if applied is None:
            yield self._unreadable(Layer.LABELS, labels.APPLIED, Action.REPLACE)

    def _image(self) -> Iterator[Finding]:
        """Compare the image's id with the desired one, and check that the engine has the desired reference.

        A reference can be removed or moved while a container runs. It is then loaded or pulled again. For a
        reference by digest, the ids can only be compared after that.
        """
        wanted = self._wanted.image
        if other := image_difference(self._observed, self._container, wanted):
            both_bundled = wanted.bundled and self._applied is not None and bool(self._applied.image_ids)
            field, running, desired, made = other
            yield self._finding(
                Layer.IMAGE,
                field,
                running,
                desired,
                made=made,
                action=Action.REPLACE,
                reason=Cause.UPGRADE if both_bundled else Cause.SETTINGS,
                versions=self._versions(),
            )
            return
        known, view = known_ids(self._observed, wanted), self._observed.images.get(wanted.reference)
        if view is None or (known and view.id not in known):
            action = Action.LOAD if wanted.bundled else Action.PULL
            desired = known[0] if known else wanted.reference
            there = view.id if view else None
            yield self._finding(Layer.IMAGE, "reference", there, desired, made=False, action=action)

    def _versions(self) -> tuple[str | None, str | None]:
        """Return the versions of the running and the desired program.

        For our CoreDNS this is the release that built it, because two builds of one CoreDNS may differ in plugins.
        """
        wanted, applied, probe = self._wanted.image, self._applied, self._seen.probe
        ours = applied is not None and self._container.image in applied.image_ids
        reported = versions.of_build(probe.build) if probe else None
        name = applied.image if applied and (ours or not applied.image_ids) else ""
        recorded = version_in(name) or versions.of_reference(name)
        if wanted.sibling is Sibling.COREDNS and wanted.bundled:
            return (recorded, wanted.version) if ours else (reported, None)
        return reported or recorded, wanted.version

    def _shape(self) -> Iterator[Finding]:
        for field, running, desired, made in shape_differences(
            self._observed, self._container, self._wanted.shape, unrecorded=self._by_another_release
        ):
            if field != "networks":  # which are compared as a part of the state
                yield self._finding(Layer.SHAPE, field, running, desired, made=made, action=Action.REPLACE)
