"""diff: compare a sibling, and the image and shape of any container of ours, with what it should be. Pure."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from clawker_fw.model.containers import ContainerView, Shape
from clawker_fw.model.desired import Desired, DesiredSibling
from clawker_fw.model.differences import Action, Cause, Finding, Layer, Value
from clawker_fw.model.files import File, Files
from clawker_fw.model.images import Image
from clawker_fw.model.observed import Observed, ObservedSibling
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.compare.rules import rules_only_by_upgrade
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
    RECORDS,
    SECRETS_AT_REST,
    container_names,
    program_of,
    read_attempt,
)
from clawker_fw.stack.envoy import signing
from clawker_fw.stack.files import AT_REST, FOLDER, RECORD
from clawker_fw.stack.image_tar import version_in
from clawker_fw.stack.resources import SIBLING, plain

RESTARTS = "restarts"
"""The field of the state layer that reports a program which ends every time the engine starts it."""

_HIDDEN = ("another content", "this content")
"""A finding has nothing of a secret's content, not even a digest, which would confirm a guess."""

ANSWER = "answer"
"""The field of the live layer that reports a running program which does not answer: what is live is unknown."""

SIGNER = "signer"
"""The field of the live layer that reports a signer which does not answer: new names get no certificate."""

SECRETS = "secrets"
"""The fields of the live layer that report secrets for requests begin with it."""

AGENTS_SEE = "agents_see"
"""The field of the live layer that reports what agents see of a sibling, and should not."""


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
    """One sibling's container and what it should be."""

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

    def findings(self) -> Iterator[Finding]:
        """Yield the differences, layer by layer."""
        found = [
            *self._state(),
            *self._labels(),
            *self._image(),
            *self._shape(),
            *self._boot(),
            *self._hot(),
            *self._live(),
        ]
        yield from found or self._unexplained()

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

    def _boot(self) -> Iterator[Finding]:
        """Compare every file that is only read at start. Any further file in the volume is a difference."""
        running = {
            path: file
            for path, file in self._seen.files.items()
            if path not in KEPT and not path.startswith((HOT, GOOD))
        }
        folders = {path: FOLDER for path in running if path.startswith("/")}
        made = self._applied.boot if self._applied else {}
        yield from self._files(Layer.BOOT, running, {**self._wanted.boot, **folders}, made, Action.REPLACE)
        for path in sorted(KEPT - {COMMITTED}):
            like = AT_REST if path == SECRETS_AT_REST else RECORD
            yield from self._attributes(Layer.BOOT, path, like, Action.REPLACE)
        try:
            read_attempt(self._seen.files.get(ATTEMPT, NO_ATTEMPT).content)
        except ValueError:
            yield self._unreadable(Layer.BOOT, ATTEMPT, Action.REPLACE, made=self._by_another_release)

    def _hot(self) -> Iterator[Finding]:
        """Compare the hot files (without the version of their commit), their record and their copies."""
        running = {
            path: file.saying(plain(file.content))
            for path, file in self._seen.files.items()
            if path.startswith(HOT)
        }
        commit = last_commit(self._seen.files)
        found = list(self._files(Layer.HOT, running, self._wanted.hot, commit.files, Action.COMMIT))
        yield from found
        desired = CommitDigests(
            {path: labels.digest(file.content) for path, file in self._wanted.hot.items()}, self._wanted.live
        )
        if not found and commit != desired:
            # Another release may have recorded fewer resources, or other digests of what it made live.
            same_files = self._by_another_release and commit.files == desired.files
            yield self._finding(
                Layer.HOT, COMMITTED, "another set", "this set", made=same_files, action=Action.COMMIT
            )
        yield from self._attributes(Layer.HOT, COMMITTED, RECORD, Action.COMMIT)
        if commit.files:
            yield from self._good(commit.files)

    def _good(self, committed: Mapping[str, str]) -> Iterator[Finding]:
        for path, file in self._seen.files.items():
            if not path.startswith(f"{GOOD}{HOT}"):
                continue
            hot = path.removeprefix(GOOD)
            wanted, kept = self._wanted.hot.get(hot), committed.get(hot)
            digest = labels.digest(plain(file.content))
            if kept != digest:
                hidden = file.secret or (wanted is not None and wanted.secret)
                values = _HIDDEN if hidden else (digest, kept)
                yield self._finding(Layer.HOT, path, *values, made=False, action=Action.COMMIT)
            elif wanted is not None:
                yield from self._attributes(Layer.HOT, path, wanted, Action.COMMIT)

    def _files(
        self, layer: Layer, running: Files, wanted: Files, made: Mapping[str, str], action: Action
    ) -> Iterator[Finding]:
        for path in sorted({*running, *wanted}):
            before, after = running.get(path), wanted.get(path)
            if before == after:
                continue
            yield self._finding(
                layer,
                path,
                *value_pair(before, after),
                made=self._made_file(path, before, after, made.get(path)),
                action=action,
                contents=None if path == HELPER else contents(before, after),
            )

    def _made_file(self, path: str, running: File | None, wanted: File | None, recorded: str | None) -> bool:
        """Whether we made a file as it is now, or its absence. Of a secret's content there is no record."""
        if running is None:
            return recorded is None
        if wanted is not None and attribute_pairs(running, wanted) and not self._made_attributes(path, running):
            return False
        if wanted is not None and running.content == wanted.content:
            return True
        if wanted is None and recorded is None and path.startswith(RECORDS):
            return self._by_another_release  # its `fwctl` keeps a record that this release does not know
        return (
            self._by_another_release if recorded == labels.SECRET else labels.digest(running.content) == recorded
        )

    def _made_attributes(self, path: str, file: File) -> bool:
        recorded = self._applied.attributes_of(path) if self._applied else None
        return self._made(labels.attributes(file), recorded)

    def _attributes(self, layer: Layer, path: str, wanted: File, action: Action) -> Iterator[Finding]:
        file = self._seen.files.get(path)
        if file is not None and attribute_pairs(file, wanted):
            yield self._finding(
                layer,
                path,
                *value_pair(file, wanted.saying(file.content)),
                made=self._made_attributes(path.removeprefix(GOOD), file),
                action=action,
            )

    def _live(self) -> Iterator[Finding]:
        probe = self._seen.probe
        if probe is None and not self._container.running:
            return
        if probe is None or probe.error:
            silence = probe.error if probe else "it was not checked"
            yield self._finding(Layer.LIVE, ANSWER, silence, "an answer", made=False, action=Action.REPLACE)
            if probe and probe.network:  # this may be why the program can't be reached
                yield self._surroundings("network", probe.network, ())
            return
        if probe.signer:
            yield self._finding(Layer.LIVE, SIGNER, probe.signer, "an answer", made=False, action=Action.REPLACE)
        for each in self._seen.secrets:
            yield self._finding(
                Layer.LIVE,
                f"{SECRETS}.{each.identity}",
                each.running,
                each.desired,
                made=True,
                reason=Cause.SETTINGS,
                action=Action.GIVE if each.loaded else Action.REPLACE,
            )
        committed = last_commit(self._seen.files).live
        unknown = signing.SIGNED if probe.signer else ()
        for resource, wanted_digest in self._wanted.live.items():
            digest = probe.live.get(resource)
            if digest != wanted_digest and resource not in unknown:
                yield self._finding(
                    Layer.LIVE,
                    resource,
                    digest and f"sha256:{digest}",
                    f"sha256:{wanted_digest}",
                    made=self._made(digest, committed.get(resource)),
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

    def _unexplained(self) -> Iterator[Finding]:
        """Yield what is wrong with a sibling that has no other finding."""
        problem = self._seen.probe.unhealthy if self._seen.probe else ""
        # The engine's status is outdated after an unpause, so the sibling itself has to report a problem as well.
        healthy = self._answers and not problem
        if self._container.running and self._container.health == "unhealthy" and not healthy:
            seen = f"unhealthy: {problem}" if problem else "unhealthy"
            yield self._finding(Layer.STATE, "health", seen, "healthy", made=False, action=Action.REPLACE)
        yield from self._as_agents_see()

    def _as_agents_see(self) -> Iterator[Finding]:
        """Report what agents see of a sibling that is right in every other way.

        CoreDNS looks on their behalf. If its network differs, or it was told other addresses, the result says
        nothing about Envoy. What drops their packets on the engine's machine would drop those to another Envoy.
        """
        eye = self._observed.siblings.get(Sibling.COREDNS)
        wanted = self._desired.siblings[Sibling.COREDNS].hot.get(EYE)
        if eye is None or eye.probe is None or eye.probe.network or eye.files.get(EYE) != wanted:
            return
        name = self._wanted.sibling.value
        seen, dropped = eye.probe.agents_see.get(name), name in eye.probe.dropped
        if seen:
            action, reason = (Action.NONE, Cause.MACHINE) if dropped else (Action.REPLACE, None)
            yield self._finding(
                Layer.LIVE, AGENTS_SEE, seen, (), made=reason is not None, reason=reason, action=action
            )


@dataclass(frozen=True, slots=True)
class CommitDigests:
    """The digest of each hot file, and of each resource that is live with these files."""

    files: Mapping[str, str]
    live: Mapping[str, str]


def last_commit(files: Files) -> CommitDigests:
    """Return the last commit according to the container's own record, or an empty one if it is unreadable."""
    try:
        record = json.loads(files[COMMITTED].content)
        digests = {HOT + str(file["path"]): f"sha256:{file['sha256']}" for file in record["files"]}
        return CommitDigests(digests, {str(name): str(digest) for name, digest in record["live"].items()})
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return CommitDigests({}, {})


def value_pair(running: File | None, desired: File | None) -> tuple[str | None, str | None]:
    """Return the running and the desired value of a finding about a file; None for a missing file."""
    if running is None or desired is None:
        return _named(running), _named(desired)
    words = attribute_pairs(running, desired)
    if running.content != desired.content:
        digests = labels.digest(running.content), labels.digest(desired.content)
        words = [_HIDDEN if running.secret or desired.secret else digests, *words]
    return ", ".join(one for one, _ in words), ", ".join(other for _, other in words)


def attribute_pairs(running: File, desired: File) -> list[tuple[str, str]]:
    """Return the modes and owners in which two files differ, as pairs of running and desired value."""
    pairs = ((f"mode {file.mode:04o}", "owner {}:{}".format(*file.owner)) for file in (running, desired))
    return [(one, other) for one, other in zip(*pairs, strict=True) if one != other]


def contents(running: File | None, desired: File | None) -> tuple[bytes, bytes] | None:
    """Return both contents for a diff, or None if they are equal or one is a secret."""
    there = [file for file in (running, desired) if file is not None]
    one, other = (file.content if file is not None else b"" for file in (running, desired))
    return None if one == other or any(file.secret for file in there) else (one, other)


def _named(file: File | None) -> str | None:
    if file is None:
        return None
    return "a secret" if file.secret else labels.digest(file.content)
