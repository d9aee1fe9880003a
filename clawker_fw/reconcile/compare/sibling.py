"""What all comparisons of one sibling have in common: the two sides, and the form of a finding. Pure."""

from collections.abc import Mapping

from clawker_fw.model import (
    Action,
    Cause,
    Desired,
    DesiredSibling,
    Finding,
    Layer,
    Observed,
    ObservedSibling,
    Value,
)
from clawker_fw.reconcile.compare.rules import rules_only_by_upgrade
from clawker_fw.stack import labels


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
        """Return the finding for an unreadable record of ours."""
        return self._finding(layer, field, "unreadable", "a record", made=made, action=action)

    @property
    def _answers(self) -> bool:
        """Whether the sibling's program answers."""
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
