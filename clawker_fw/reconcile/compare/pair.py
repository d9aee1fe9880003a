"""diff: an observed sibling, the desired one, and the cause of each difference. Pure."""

from collections.abc import Mapping
from functools import cached_property

from clawker_fw.model.desired import Desired
from clawker_fw.model.differences import Action, Cause, Finding, Layer, Value
from clawker_fw.model.observed import Observed, ObservedSibling
from clawker_fw.model.secrets import SecretDifference
from clawker_fw.reconcile.compare.rules import rules_only_by_upgrade
from clawker_fw.stack import labels


class SiblingPair:
    """An observed sibling and its desired state."""

    def __init__(
        self,
        observed: Observed,
        desired: Desired,
        sibling: ObservedSibling,
        secrets: tuple[SecretDifference, ...],
    ) -> None:
        self.observed = observed
        self.desired = desired
        self.container = sibling.container
        self.files = sibling.files
        self.probe = sibling.probe
        self.answers = sibling.answers
        self.secrets = secrets
        self.desired_sibling = desired.siblings[sibling.sibling]
        self.applied = labels.read_applied(sibling.container.labels)
        made_by = sibling.container.labels.get(labels.STACK_BUILD_SHA)
        self._same_release = made_by == self.desired_sibling.labels[labels.STACK_BUILD_SHA]
        self.by_another_release = self.applied is not None and bool(made_by) and not self._same_release

    @cached_property
    def _cause(self) -> Cause:
        by_upgrade = not self._same_release or rules_only_by_upgrade(self.observed, self.desired)
        return Cause.UPGRADE if by_upgrade else Cause.SETTINGS

    @cached_property
    def _cause_at_start(self) -> Cause:
        """Why a value that is decided at the container's start differs: perhaps because of the Docker host."""
        if not self._same_release:
            return Cause.UPGRADE
        before, now = self.applied.machine if self.applied else {}, self.desired_sibling.from_machine
        resized = any(before[value] != now[value] for value in before.keys() & now.keys())
        return Cause.MACHINE if resized else Cause.SETTINGS

    def finding(
        self,
        layer: Layer,
        field: str,
        running: Value,
        desired: Value,
        *,
        made: bool,
        action: Action,
        contents: tuple[bytes, bytes] | None = None,
        cause: Cause | None = None,
        versions: tuple[str | None, str | None] | None = None,
    ) -> Finding:
        """Return a finding.

        `made` says whether we made the running value. Then `cause` applies; by default it follows from the release
        that made the container, and for values decided at start, from the Docker host.
        """
        usual = self._cause_at_start if layer in {Layer.SHAPE, Layer.BOOT} else self._cause
        decided = (cause or usual) if made else Cause.TAMPER
        return Finding(
            self.desired_sibling.sibling, layer, field, running, desired, decided, action, contents, versions
        )

    def made(self, running: object, recorded: object | None) -> bool:
        """Whether the running value is as recorded, or another release's record does not name it (None)."""
        return self.by_another_release if recorded is None else running == recorded

    def unreadable(self, layer: Layer, field: str, action: Action, *, made: bool = False) -> Finding:
        """Return the finding of a record that can't be read."""
        return self.finding(layer, field, "unreadable", "a record", made=made, action=action)

    @property
    def kept_networks(self) -> Mapping[str, str]:
        """The container's address on each network that it has, or will have once it starts."""
        container = self.container
        networks = {network.name: network.id for network in self.observed.networks.values()}
        stopped = container.status in {"exited", "created"}
        return {
            name: address
            for name, address in container.shape.networks.items()
            if not stopped or container.remembered.get(name, "") in {"", networks.get(name, "")}
        }

    @property
    def recorded_networks(self) -> tuple[str, ...]:
        """The networks that the container was created with, as `NAME=ADDRESS`."""
        recorded = self.applied.shape.get("networks") if self.applied else None
        return tuple(recorded) if isinstance(recorded, list) else ()

    @property
    def taken_off(self) -> bool:
        """Whether the container has lost a network to which it can be reconnected at its recorded address."""
        networks = self.desired_sibling.shape.networks
        lost = networks.keys() - self.kept_networks.keys()
        able = self.container.status in {"running", "exited", "created"}
        return able and bool(lost) and all(f"{name}={networks[name]}" in self.recorded_networks for name in lost)
