"""diff: compare what is with what should be, layer by layer. Pure.

A value that differs is not what we made (`tamper`), or it is, and something else is wanted now: by the settings or
the rules when this very release made it (`settings`), else by another release (`upgrade`). What we made, and which
release did, stands in the container's labels and, for hot files, in the record of the last commit.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from clawker_fw.model import (
    Action,
    Cause,
    Desired,
    DesiredSibling,
    Diff,
    File,
    Files,
    Finding,
    Layer,
    NetworkSpec,
    NetworkView,
    Observed,
    ObservedSibling,
    Role,
    Sibling,
    Value,
    Verdict,
)
from clawker_fw.reconcile.file_values import attributes_told, contents, digests_told, told
from clawker_fw.stack import labels, versions
from clawker_fw.stack.container import (
    ATTEMPT,
    COMMITTED,
    EYE,
    GOOD,
    HELPER,
    HOT,
    KEPT,
    NO_ATTEMPT,
    UNFINISHED,
    container_names,
    program_of,
    read_attempt,
)
from clawker_fw.stack.files import FOLDER, RECORD
from clawker_fw.stack.resources import plain

RESTARTS = "restarts"
"""The field of the state that says a program ends as often as the engine starts it."""

ANSWER = "answer"
"""The field of the live layer that says a running program does not answer: what is live can't be known."""


def diff(observed: Observed, desired: Desired) -> Diff:
    """Return every difference between a stack and what it should be, in the slots that it is in."""
    findings: list[Finding] = []
    for sibling in Sibling:
        findings += _networks(sibling, observed, desired)
        seen = observed.siblings.get(sibling)
        if seen is None:
            findings.append(_absent(sibling, observed))
        else:
            findings += _Comparison(observed, desired, seen).findings()
        findings += [_leftover(each) for each in observed.leftovers if each.sibling is sibling]
        findings += _intruders(sibling, observed, desired)
    order = {layer: position for position, layer in enumerate(Layer)}
    findings.sort(key=lambda finding: order[finding.layer])
    return Diff(
        tuple(finding for sibling in Sibling for finding in findings if finding.sibling is sibling),
        {sibling: _verdict([each for each in findings if each.sibling is sibling]) for sibling in Sibling},
    )


def _verdict(findings: list[Finding]) -> Verdict:
    if not findings:
        return Verdict.CURRENT
    unread = all(finding.layer is Layer.LIVE and finding.field == ANSWER for finding in findings)
    return Verdict.UNKNOWN if unread else Verdict.DRIFTED


def _leftover(seen: ObservedSibling) -> Finding:
    """Return the finding that a run which did not end has left a container behind."""
    field = f"leftover.{seen.container.name}"
    return Finding(seen.sibling, Layer.STATE, field, seen.container.status, None, Cause.UPGRADE, Action.REMOVE)


def _intruders(sibling: Sibling, observed: Observed, desired: Desired) -> Iterator[Finding]:
    """Find whoever else has an address of ours, by the engine's word: nobody but the engine can give one out.

    An agent that is taken for the resolver or the proxy can tell other agents anything.
    """
    for role, places in observed.attached.items():
        if _OWNER[role] is sibling:
            for name, place in places.items():
                if place.address in desired.reserved[role]:
                    field = f"address.{place.address}"
                    yield Finding(sibling, Layer.STATE, field, name, None, Cause.TAMPER, Action.DETACH)


def _absent(sibling: Sibling, observed: Observed) -> Finding:
    cause = Cause.UPGRADE if observed.absent else Cause.TAMPER
    return Finding(sibling, Layer.STATE, "container", "missing", "running", cause, Action.CREATE)


# --- networks: the agents' is part of CoreDNS's state, the way out part of Envoy's ----------------------------

_OWNER = {Role.AGENTS: Sibling.COREDNS, Role.EGRESS: Sibling.ENVOY}


def _networks(sibling: Sibling, observed: Observed, desired: Desired) -> Iterator[Finding]:
    for role, spec in desired.networks.items():
        network = observed.networks.get(role)
        if _OWNER[role] is not sibling:
            continue
        if network is None:
            cause = Cause.UPGRADE if observed.absent else Cause.TAMPER
            yield Finding(
                sibling,
                Layer.STATE,
                f"networks.{spec.name}",
                "missing",
                str(spec.subnet),
                cause,
                Action.CREATE,
            )
            continue
        for field, (running, wanted) in _network_fields(network, spec).items():
            if running != wanted:
                # A subnet is only wanted otherwise when the setting has changed; what does not follow never is.
                follows = field in {"subnet", "gateway", "ip_range"} and network.subnets != (spec.subnet,)
                cause = Cause.SETTINGS if follows else Cause.TAMPER
                yield Finding(
                    sibling,
                    Layer.SHAPE,
                    f"networks.{spec.name}.{field}",
                    running,
                    wanted,
                    cause,
                    Action.RECREATE_NETWORKS,
                )


def _network_fields(network: NetworkView, spec: NetworkSpec) -> dict[str, tuple[Value, Value]]:
    options = {key: network.options.get(key) for key in spec.options}
    return {
        "driver": (network.driver, "bridge"),
        "gateway": (network.gateway, str(spec.gateway)),
        "internal": (network.internal, spec.internal),
        "ipv6": (network.ipv6, False),
        "ip_range": (str(network.ip_range), str(spec.ip_range)),
        "options": (_pairs(options), _pairs(spec.options)),
        "subnet": (", ".join(map(str, network.subnets)), str(spec.subnet)),
    }


def _pairs(values: Mapping[str, str | None]) -> tuple[str, ...]:
    return tuple(f"{key}={values[key]}" for key in sorted(values) if values[key] is not None)


# --- one sibling ----------------------------------------------------------------------------------------------


class _Comparison:
    """One sibling's container against what it should be."""

    def __init__(self, observed: Observed, desired: Desired, seen: ObservedSibling) -> None:
        self._observed = observed
        self._desired = desired
        self._seen = seen
        self._container = seen.container
        self._wanted: DesiredSibling = desired.siblings[seen.sibling]
        self._applied = labels.read_applied(seen.container.labels)
        made_by = seen.container.labels.get(labels.STACK_BUILD_SHA)
        same_release = made_by == self._wanted.labels[labels.STACK_BUILD_SHA]
        self._reason = Cause.SETTINGS if same_release else Cause.UPGRADE

    def findings(self) -> Iterator[Finding]:
        found = [
            *self._state(),
            *self._labels(),
            *self._image(),
            *self._shape(),
            *self._boot(),
            *self._hot(),
            *self._live(),
        ]
        yield from found or (*self._health(), *self._as_agents_see())

    def _health(self) -> Iterator[Finding]:
        """Tell of a health check that fails for no reason that is seen: it asks less than this comparison does."""
        if self._container.running and self._container.health == "unhealthy" and not self._healthy_by_now:
            yield self._finding(Layer.STATE, "health", "unhealthy", "healthy", made=False, action=Action.REPLACE)

    def _as_agents_see(self) -> Iterator[Finding]:
        """Tell what agents see of a sibling that is right in every other way.

        CoreDNS sees it for them. What it sees from a network that differs, or elsewhere, says nothing of Envoy.
        """
        eye = self._observed.siblings.get(Sibling.COREDNS)
        wanted = self._desired.siblings[Sibling.COREDNS].hot.get(EYE)
        if eye is None or eye.probe is None or eye.probe.network or eye.files.get(EYE) != wanted:
            return
        if seen := eye.probe.agents_see.get(self._wanted.sibling.value):
            yield self._finding(Layer.LIVE, "agents_see", seen, (), made=False, action=Action.REPLACE)

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

        `made` is whether the running value is what we made, and `reason` why something else is wanted now; without
        one, that follows from which release made the container.
        """
        cause = (reason or self._reason) if made else Cause.TAMPER
        return Finding(self._wanted.sibling, layer, field, running, desired, cause, action, contents, versions)

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
        # An engine counts for as long as somebody has not started it by hand: what has recovered is no loop.
        if container.restarts and (container.status == "restarting" or (container.running and not self._answers)):
            code = "" if container.running else f", exit code {container.exit_code}"
            running = f"{container.restarts}{code}"
            yield self._finding(Layer.STATE, RESTARTS, running, None, made=False, action=Action.REPLACE)
        yield from self._networks_held()
        if wanted.sibling is Sibling.COREDNS and (probe := self._seen.probe) and not probe.error:
            yield from self._service_address()

    @property
    def _answers(self) -> bool:
        """Whether the sibling's program answers."""
        probe = self._seen.probe
        return probe is not None and not probe.error

    @property
    def _healthy_by_now(self) -> bool:
        """Whether the sibling itself says so: an engine calls a paused one unhealthy until its next check."""
        probe = self._seen.probe
        return probe is not None and self._answers and not probe.unhealthy

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

    @property
    def _kept_networks(self) -> Mapping[str, str]:
        """The networks that the container is on, or will be when it starts, with its addresses there."""
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
        """Whether the container has lost a network, and can be put back on it, where it was made to be."""
        wanted = self._wanted.shape.networks
        lost = set(wanted) - set(self._kept_networks)
        recorded = self._applied.shape.get("networks") if self._applied else None
        made = recorded if isinstance(recorded, list) else ()
        able = self._container.status in {"running", "exited", "created"}
        return able and bool(lost) and all(f"{name}={wanted[name]}" in made for name in lost)

    def _service_address(self) -> Iterator[Finding]:
        address, probe = str(self._desired.service_address), self._seen.probe
        if probe and not (probe.claimed and address in probe.addresses):
            action = Action.REATTACH if self._taken_off else Action.CLAIM
            yield self._finding(Layer.STATE, "service_address", "not held", address, made=False, action=action)

    def _labels(self) -> Iterator[Finding]:
        for label in labels.DRIFT_LABELS:
            running = self._container.labels.get(label)
            if running != self._wanted.labels[label]:
                yield self._finding(
                    Layer.LABELS,
                    label,
                    running,
                    self._wanted.labels[label],
                    made=running is not None,
                    action=Action.REPLACE,
                )
        if self._applied is None:
            yield self._unreadable(Layer.LABELS, labels.APPLIED, Action.REPLACE)

    def _unreadable(self, layer: Layer, field: str, action: Action) -> Finding:
        """Return the finding that a record which we have made can't be read."""
        return self._finding(layer, field, "unreadable", "a record", made=False, action=action)

    def _image(self) -> Iterator[Finding]:
        """Compare the image's id with the wanted one, and what the engine has under the wanted reference.

        The latter can be lost or moved under a running container. It is provided again: for a reference by digest,
        only then can the id be compared.
        """
        wanted, running = self._wanted.image, self._container.image
        view = self._observed.images.get(wanted.reference)
        known = wanted.ids or ((view.id,) if view else ())
        applied = self._applied
        made_from_it = applied is not None and applied.image == wanted.reference
        if running in known or (not known and made_from_it):
            there = view.id if view else None
            if there is None or (known and there not in known):
                action = Action.LOAD if wanted.bundled else Action.PULL
                desired = known[0] if known else wanted.reference
                yield self._finding(Layer.IMAGE, "reference", there, desired, made=False, action=action)
            return
        made = applied is not None and (
            running in applied.image_ids if applied.image_ids else applied.image != wanted.reference
        )
        yield self._finding(
            Layer.IMAGE,
            "id",
            running,
            known[0] if known else wanted.reference,
            made=made,
            action=Action.REPLACE,
            reason=self._why_image(),
            versions=self._versions(),
        )

    def _why_image(self) -> Cause:
        """Return why another image is wanted: what a release bundles is its own, everything else a setting."""
        bundled = self._wanted.image.bundled and self._applied is not None and bool(self._applied.image_ids)
        return Cause.UPGRADE if bundled else Cause.SETTINGS

    def _versions(self) -> tuple[str | None, str | None]:
        """Return the versions of the running and the wanted program.

        Our CoreDNS is told by the release that built it: with the same CoreDNS, its plugins may be others.
        """
        wanted, applied, probe = self._wanted.image, self._applied, self._seen.probe
        ours = applied is not None and self._container.image in applied.image_ids
        told = versions.of_build(probe.build) if probe else None
        recorded = versions.of_reference(applied.image) if applied and (ours or not applied.image_ids) else None
        if wanted.sibling is Sibling.COREDNS and wanted.bundled:
            return (recorded, wanted.version) if ours else (told, None)
        return told or recorded, wanted.version

    def _shape(self) -> Iterator[Finding]:
        running = labels.shape_fields(self._container.shape)
        wanted = labels.shape_fields(self._wanted.shape)
        applied = self._applied.shape if self._applied else {}
        view = self._observed.images.get(self._container.image)
        inherited = set(view.environment if view else ()) - set(self._wanted.shape.environment)
        running["environment"] = sorted(set(self._container.shape.environment) - inherited)
        for field, value in wanted.items():
            if field != "networks" and running[field] != value:
                yield self._finding(
                    Layer.SHAPE,
                    field,
                    _value(running[field]),
                    _value(value),
                    made=field in applied and running[field] == applied[field],
                    action=Action.REPLACE,
                )

    def _boot(self) -> Iterator[Finding]:
        """Compare everything in the volume that is not re-read while running: nothing else belongs there."""
        running = {path: file for path, file in self._seen.files.items() if _is_boot(path)}
        folders = {path: FOLDER for path in running if path.startswith("/")}
        made = self._applied.boot if self._applied else {}
        yield from self._files(Layer.BOOT, running, {**self._wanted.boot, **folders}, made, Action.REPLACE)
        for path in sorted(KEPT - {COMMITTED}):
            yield from self._attributes(Layer.BOOT, path, RECORD, Action.REPLACE)
        try:
            read_attempt(self._seen.files.get(ATTEMPT, NO_ATTEMPT).content)
        except ValueError:
            yield self._unreadable(Layer.BOOT, ATTEMPT, Action.REPLACE)

    def _hot(self) -> Iterator[Finding]:
        """Compare the hot files, but for the version that each commit gives them, and what is kept of them."""
        raw = {path: file for path, file in self._seen.files.items() if path.startswith(HOT)}
        running = {path: file.saying(plain(file.content)) for path, file in raw.items()}
        committed = self._committed.files
        # An earlier release recorded the digest of the whole file.
        made = {
            path: labels.digest(running[path].content) if labels.digest(raw[path].content) == digest else digest
            for path, digest in committed.items()
            if path in raw
        }
        found = list(self._files(Layer.HOT, running, self._wanted.hot, {**committed, **made}, Action.COMMIT))
        yield from found
        if not found and self._committed != self._wanted_commit:
            yield self._finding(Layer.HOT, COMMITTED, "another set", "this set", made=False, action=Action.COMMIT)
        yield from self._attributes(Layer.HOT, COMMITTED, RECORD, Action.COMMIT)
        if committed:
            yield from self._good(committed)
        for folder in UNFINISHED:
            if any(path.startswith(f"{folder}/") for path in self._seen.files):
                yield self._finding(
                    Layer.HOT, folder, "left behind", None, made=True, action=Action.COMMIT, reason=Cause.UPGRADE
                )

    def _good(self, committed: Mapping[str, str]) -> Iterator[Finding]:
        """Compare the copies that are kept of the hot files with the record of them."""
        for path, file in self._seen.files.items():
            if not path.startswith(f"{GOOD}{HOT}"):
                continue
            hot = path.removeprefix(GOOD)
            wanted, kept = self._wanted.hot.get(hot), committed.get(hot)
            digest = labels.digest(plain(file.content))
            if digest != kept:
                yield self._finding(
                    Layer.HOT,
                    path,
                    *digests_told(file, wanted, digest, kept),
                    made=False,
                    action=Action.COMMIT,
                )
            elif wanted is not None:
                yield from self._attributes(Layer.HOT, path, wanted, Action.COMMIT)

    def _files(
        self, layer: Layer, running: Files, wanted: Files, made: Mapping[str, str], action: Action
    ) -> Iterator[Finding]:
        for path in sorted({*running, *wanted}):
            before, after = running.get(path), wanted.get(path)
            if before == after:
                continue
            digest = labels.digest(before.content) if before is not None else None
            altered = before is not None and after is not None and bool(attributes_told(before, after))
            yield self._finding(
                layer,
                path,
                *told(before, after),
                made=digest == made.get(path) and not altered,
                action=action,
                contents=None if path == HELPER else contents(before, after),
            )

    def _attributes(self, layer: Layer, path: str, wanted: File, action: Action) -> Iterator[Finding]:
        """Compare the mode and owner of a file whose content is nothing to compare."""
        file = self._seen.files.get(path)
        if file is not None and attributes_told(file, wanted):
            yield self._finding(layer, path, *told(file, wanted.saying(file.content)), made=False, action=action)

    def _live(self) -> Iterator[Finding]:
        probe = self._seen.probe
        if probe is None and not self._container.running:
            return
        if probe is None or probe.error:
            silence = probe.error if probe else "it was not asked"
            yield self._finding(Layer.LIVE, ANSWER, silence, "an answer", made=False, action=Action.REPLACE)
            if probe and probe.network:  # by which the program may not be reached
                yield self._surroundings("network", probe.network, ())
            return
        committed = self._committed.live
        for resource, wanted_digest in self._wanted.live.items():
            digest = probe.live.get(resource)
            if digest != wanted_digest:
                yield self._finding(
                    Layer.LIVE,
                    resource,
                    digest and f"sha256:{digest}",
                    f"sha256:{wanted_digest}",
                    made=digest == committed.get(resource),
                    action=Action.COMMIT,
                )
        for field, running, wanted in (
            ("network", probe.network, ()),
            ("engine_files", probe.engine_files, ()),
            ("processes", probe.processes, ()),
            ("program", probe.program, program_of(self._container.shape)),
        ):
            if running != wanted:
                yield self._surroundings(field, running, wanted)

    def _surroundings(self, field: str, running: tuple[str, ...], wanted: tuple[str, ...]) -> Finding:
        lost = field == "network" and self._taken_off
        action = Action.REATTACH if lost else Action.REPLACE
        return self._finding(Layer.LIVE, field, running, wanted, made=False, action=action)

    @property
    def _committed(self) -> "_Commit":
        """What was last committed, by the container's own record; nothing when that can't be read."""
        try:
            record = json.loads(self._seen.files[COMMITTED].content)
            files = {HOT + str(file["path"]): f"sha256:{file['sha256']}" for file in record["files"]}
            live = record.get("live", {})  # an earlier release had none
            return _Commit(files, {str(name): str(digest) for name, digest in live.items()})
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return _Commit({}, {})

    @property
    def _wanted_commit(self) -> "_Commit":
        return _Commit(
            {path: labels.digest(file.content) for path, file in self._wanted.hot.items()}, self._wanted.live
        )


@dataclass(frozen=True, slots=True)
class _Commit:
    """A set of hot files by their digests, and the digest of each resource that is live with them."""

    files: Mapping[str, str]
    live: Mapping[str, str]


def _is_boot(path: str) -> bool:
    folder, slash, _ = path.partition("/")
    return path not in KEPT and not (slash and (folder in UNFINISHED or f"{folder}/" in {HOT, GOOD}))


def _value(value: str | int | bool | list[str]) -> Value:  # noqa: FBT001 - a value, not a switch
    return tuple(value) if isinstance(value, list) else value
