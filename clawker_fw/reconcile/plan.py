"""plan: choose the steps that close the difference, their order, and their rollback. Pure.

The order is a security property: after any prefix of a plan, only traffic that the old or the new rules allow can
pass. Images come first, rules reach Envoy before CoreDNS, a replacement is verified before it serves, and the old
container is removed last.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from ipaddress import IPv4Address

from clawker_fw.errors import RefusedError
from clawker_fw.model.containers import ContainerSpec, ContainerSummary
from clawker_fw.model.desired import Desired, DesiredSibling
from clawker_fw.model.differences import Action, Cause, Diff, Finding, Layer
from clawker_fw.model.files import Files
from clawker_fw.model.networks import NetworkSpec, NetworkView
from clawker_fw.model.observed import Observed, ObservedRelay, ObservedSibling
from clawker_fw.model.stacks import Role, Sibling, Slots
from clawker_fw.reconcile import steps
from clawker_fw.reconcile.compare.relays import RelayChanges, RelayComparison
from clawker_fw.reconcile.steps import ConvergeOptions, InTurn, Plan, Stage, Step
from clawker_fw.reconcile.unused import old_trust, unused_images
from clawker_fw.stack import labels, name_list
from clawker_fw.stack.container import (
    BOOT,
    COMMITTED,
    HELPER,
    PROBER,
    STAGE,
    commit_record,
    container_names,
    examination,
    trial_name,
    trust_name,
)
from clawker_fw.stack.envoy.sibling import ADMIN_SOCKET
from clawker_fw.stack.resources import declared
from clawker_fw.stack.topology import lower_half

ANNOUNCE_SECONDS = 1.25
"""How long a new CoreDNS announces the service address: a neighbour entry can be locked against change for 1 s."""

_TTL_SLACK = 0.25
"""Added to the TTL for agents that connect a moment after the lookup."""

_LIVE_VERBS = frozenset({"claim", "commit-in-place", "release", "secrets", "see"})
"""Helper commands used while the program goes on serving."""


def make_plan(
    observed: Observed, slots: Slots, desired_in: Callable[[Slots], Desired], diff: Diff, options: ConvergeOptions
) -> Plan:
    """Return the plan that closes the difference, or the part that the options select.

    `slots` are the serving ones. A replacement gets the other slot and what is desired there (`desired_in`).

    Raises:
        RefusedError: if a network would have to be recreated while agents are attached.
    """
    diff = options.within(diff)
    if not diff.findings and not options.everything:
        return Plan(())
    if any(finding.action is Action.RECREATE_NETWORKS for finding in diff.findings):
        return _rebuild(observed, slots, desired_in, diff)
    return _Planner(observed, slots, desired_in, diff, options).plan()


class _Planner:
    def __init__(
        self,
        observed: Observed,
        slots: Slots,
        desired_in: Callable[[Slots], Desired],
        diff: Diff,
        options: ConvergeOptions,
    ) -> None:
        self._observed = observed
        self._options = options
        self._causes: Mapping[Sibling, tuple[Finding, ...]] = {sibling: diff.of(sibling) for sibling in Sibling}
        self._desired_now = desired_in(slots)
        self._made = tuple(sibling for sibling in Sibling if self._must_be_made(sibling))
        new = Slots(self._new_slot(Sibling.ENVOY, slots.envoy), self._new_slot(Sibling.COREDNS, slots.coredns))
        self._address_changes = new.envoy != slots.envoy
        self._desired = desired_in(new)
        self._names = {sibling: self._new_name(sibling) for sibling in self._made}

    def _must_be_made(self, sibling: Sibling) -> bool:
        if sibling not in self._observed.siblings or self._options.replace_all:
            return True
        closing = {finding.action for finding in self._causes[sibling]}
        redirected = sibling is Sibling.COREDNS and self._must_be_made(Sibling.ENVOY)
        if (closing or redirected) and not _converses(self._observed.siblings[sibling]):
            return True
        if Action.COMMIT in closing and (self._options.replace_uncommitted or not self._understands(sibling)):
            return True
        if Action.REPLACE in closing:
            return True
        # A starting program loads its files, so files that were tampered with must go first.
        begins = not closing.isdisjoint({Action.START, Action.REATTACH})
        return begins and any(
            cause.layer is Layer.HOT and cause.cause is Cause.TAMPER for cause in self._causes[sibling]
        )

    def _new_slot(self, sibling: Sibling, slot: int) -> int:
        replaced = sibling in self._made and sibling in self._observed.siblings
        return 1 - slot if replaced else slot

    def _new_name(self, sibling: Sibling) -> str:
        """Return the sibling's other name. It is free once leftovers are removed and siblings renamed."""
        proper, next_ = container_names(self._desired.project, sibling)
        old = self._observed.siblings.get(sibling)
        return next_ if old and old.container.name == proper else proper

    def plan(self) -> Plan:
        made = self._names.items()
        before: list[Sequence[Step | InTurn]] = [
            self._images(),
            self._examination(),
            self._detaches(),
            *self._leftovers(),
            self._displaced(),
            self._networks(),
            self._woken(),
            [
                steps.Create(sibling, creation(self._desired.siblings[sibling], name), self._causes[sibling])
                for sibling, name in made
            ],
            [self._verify(sibling) for sibling, _ in made],
            self._give(),
        ]
        commits = [*self._commit(Sibling.ENVOY), *self._commit(Sibling.COREDNS)]
        after: list[Sequence[Step | InTurn]] = [
            [_in_turn(commits)] if commits else [],
            *self._takeover(),
            *self._relays(),
            self._renames(),
            self._unused(),
        ]
        stages = [tuple(stage) for stage in before if stage]
        return Plan(
            stages=(*stages, *(tuple(stage) for stage in after if stage)),
            rollback=(*(steps.Remove(name, name) for name in self._names.values()), *self._networks_undone()),
            point_of_no_return=len(stages),
            before=tuple((sibling, old.container.id) for sibling, old in self._observed.siblings.items()),
        )

    def _leftovers(self) -> list[list[Step]]:
        """Remove what an interrupted run left behind, beginning with a service address that both may hold.

        The address is announced once nobody else answers ARP for it. Before that, an agent could renew its
        neighbour entry with the old CoreDNS and ignore announcements for a second (see `ANNOUNCE_SECONDS`).
        """
        left = self._observed.leftovers
        claimants = [sibling for sibling in left if sibling.probe and sibling.probe.claimed]
        hold: list[Step] = []
        announce: list[Step] = []
        serving = self._observed.siblings.get(Sibling.COREDNS)
        if serving and _converses(serving):  # else it is replaced as well
            if claimants:
                hold = [steps.ClaimAddress(serving.container.id, 0, ())]
            if claimants or self._is_relieving(serving):
                announce = [steps.ClaimAddress(serving.container.id, ANNOUNCE_SECONDS, ())]
        return [
            hold,
            [steps.ReleaseAddress(claimant.container.id) for claimant in claimants if _converses(claimant)],
            announce,
            [self._drain(sibling) for sibling in left if self._can_drain(sibling)],
            [
                _remove(
                    sibling, heir.container.name if (heir := self._observed.siblings.get(sibling.sibling)) else ""
                )
                for sibling in left
            ],
        ]

    def _is_relieving(self, serving: ObservedSibling) -> bool:
        """Whether a run was interrupted while CoreDNS announced the address that it took."""
        proper, _ = container_names(self._desired.project, Sibling.COREDNS)
        return serving.container.name != proper and any(
            leftover.sibling is Sibling.COREDNS and leftover.container.running
            for leftover in self._observed.leftovers
        )

    def _images(self) -> list[Step]:
        planned: list[Step] = []
        for sibling in Sibling:
            image = self._desired.siblings[sibling].image
            present = self._observed.images.get(image.reference)
            usable = present is not None and (not image.ids or present.id in image.ids)
            lost = any(cause.action in {Action.LOAD, Action.PULL} for cause in self._causes[sibling])
            if lost or (sibling in self._made and not usable):
                planned.append(steps.ProvideImage(sibling, image.reference, image.bundled))
        return planned

    def _examination(self) -> list[Step]:
        """Examine the kernel, unless another Envoy of this release runs on it, so that it has what one needs."""
        build = self._desired.siblings[Sibling.ENVOY].labels[labels.STACK_BUILD_SHA]
        has_neighbour = any(
            container.project
            and container.status == "running"
            and container.labels.get(labels.SIBLING) == Sibling.ENVOY.value
            and container.labels.get(labels.STACK_BUILD_SHA) == build
            for container in self._observed.listing
        )
        if self._observed.siblings or has_neighbour:
            return []
        return [steps.Examine(self._desired.project, examiner(self._desired))]

    def _detaches(self) -> list[Step]:
        by_place: dict[tuple[Role, str], Step] = {}
        for sibling in Sibling:
            for finding in self._causes[sibling]:
                for role, places in self._observed.attached.items() if finding.action is Action.DETACH else ():
                    if finding.running in places:
                        network, name = self._observed.networks[role], str(finding.running)
                        by_place[role, name] = steps.Detach(network.id, network.name, name)
        return list(by_place.values())

    def _displaced(self) -> list[Step]:
        """Rename a sibling that has the other sibling's name. Its label says which sibling it is."""
        names = {sibling: container_names(self._desired.project, sibling) for sibling in Sibling}
        return [
            steps.Rename(sibling, old.container.id, f"{names[sibling][0]}-{old.container.id[:12]}")
            for sibling, old in self._observed.siblings.items()
            for other in Sibling
            if other is not sibling and old.container.name in names[other]
        ]

    def _networks(self) -> list[steps.CreateNetwork]:
        return [
            steps.CreateNetwork(spec)
            for role, spec in self._desired.networks.items()
            if role not in self._observed.networks
        ]

    def _networks_undone(self) -> list[steps.RemoveNetwork]:
        """Remove the networks of a failed first run. A partial stack would look like tampering."""
        if self._observed.siblings:
            return []
        return [steps.RemoveNetwork(step.spec.name, step.spec.name) for step in self._networks()]

    def _woken(self) -> list[Step]:
        planned: list[Step] = []
        for sibling, old in self._observed.siblings.items():
            if sibling in self._made:
                continue
            lost = {cause.field for cause in self._causes[sibling] if cause.action is Action.REATTACH}
            if lost:
                desired = self._desired.siblings[sibling].shape.networks.items()
                networks = tuple((name, address) for name, address in desired if f"networks.{name}" in lost)
                planned.append(steps.Reattach(sibling, old.container.id, networks))
                continue
            for finding in self._causes[sibling]:
                if finding.action is Action.START:
                    planned.append(steps.Start(sibling, old.container.id))
                elif finding.action is Action.UNPAUSE:
                    planned.append(steps.Unpause(sibling, old.container.id))
        return planned

    def _give(self) -> list[Step]:
        """Send secrets before the first use, and remove others after the last one."""
        causes = tuple(cause for cause in self._causes[Sibling.ENVOY] if cause.action is Action.GIVE)
        secrets = self._desired.secrets
        if Sibling.ENVOY in self._made:
            return [steps.GiveSecrets(self._names[Sibling.ENVOY], secrets, causes)] if secrets else []
        old = self._observed.siblings.get(Sibling.ENVOY)
        woken = {Action.START, Action.REATTACH} & {cause.action for cause in self._causes[Sibling.ENVOY]}
        if old is None or not (causes or (secrets and woken)):
            return []
        return [steps.GiveSecrets(old.container.id, secrets, causes)]

    def _verify(self, sibling: Sibling) -> steps.Verify:
        desired, prober, place = self._desired.siblings[sibling], "", ""
        if sibling is Sibling.ENVOY:
            prober = self._names.get(Sibling.COREDNS) or self._old_prober
            place = self._desired.siblings[Sibling.COREDNS].hot[PROBER].content.decode()
        return steps.Verify(sibling, self._names[sibling], desired.live, desired.later, prober, place)

    @property
    def _old_prober(self) -> str:
        """The CoreDNS that stays, if it can test how agents see a new Envoy before the replacement."""
        old = self._observed.siblings.get(Sibling.COREDNS)
        return old.container.id if old and old.container.running and self._can_redirect(old) else ""

    def _commit(self, sibling: Sibling) -> list[Step]:
        """Commit dynamic files, even to a CoreDNS to be replaced: it sends agents to the new Envoy at once."""
        old = self._observed.siblings.get(sibling)
        if old is None:
            return []
        causes = tuple(cause for cause in self._causes[sibling] if cause.action is Action.COMMIT)
        if sibling in self._made:
            if sibling is Sibling.ENVOY or not self._address_moves or not self._can_redirect(old):
                return []
        elif not causes and not (sibling is Sibling.COREDNS and self._address_changes):
            return []
        return [steps.Commit(sibling, old.container.id, staged(self._desired.siblings[sibling]), causes)]

    def _trusted(self, old: ObservedSibling) -> bool:
        """Whether a container to be replaced still answers, with untouched startup files."""
        tampered = any(
            cause.layer is Layer.BOOT and cause.cause is Cause.TAMPER for cause in self._causes[old.sibling]
        )
        return old.answers and not tampered and _converses(old)

    def _understands(self, sibling: Sibling) -> bool:
        """Whether a container reads the same dynamic files as this release. One of an older release may not."""
        old = self._observed.siblings[sibling]
        return declared(old.files) == declared(self._desired_now.siblings[sibling].boot)

    def _can_redirect(self, old: ObservedSibling) -> bool:
        """Whether a CoreDNS to be replaced can still send agents to another Envoy."""
        return self._trusted(old) and self._understands(old.sibling)

    @property
    def _address_moves(self) -> bool:
        """Whether agents move to a new Envoy while the old one still serves."""
        old = self._observed.siblings.get(Sibling.ENVOY)
        return Sibling.ENVOY in self._made and old is not None and serves(old, self._desired)

    def _can_drain(self, old: ObservedSibling) -> bool:
        return old.sibling is Sibling.ENVOY and old.answers and serves(old, self._desired)

    def _takeover(self) -> list[list[Step | InTurn]]:
        """Move the service address, then retire both old siblings, in parallel where possible."""
        lanes = [_in_turn(lane) for lane in (self._retire_coredns(), self._retire_envoy()) if lane]
        old, causes = self._observed.siblings.get(Sibling.COREDNS), self._causes[Sibling.COREDNS]
        if Sibling.COREDNS not in self._made:
            lost = tuple(cause for cause in causes if self._asks_for_claim(cause))
            claim = [steps.ClaimAddress(old.container.id, ANNOUNCE_SECONDS, lost)] if old and lost else []
            return [[*claim, *lanes]]
        # If the old CoreDNS can't send agents to the new Envoy, the old one serves until the old CoreDNS is gone:
        # its health check announces the service address until it has released it, so agents come back to it.
        redirected = old is not None and self._can_redirect(old)
        misleads = old is not None and old.container.running and not redirected
        retirement = [[lane] for lane in lanes] if misleads else [lanes]
        new = Role.AGENTS not in self._observed.networks  # no agent there with a stale neighbour entry
        seconds = 0 if redirected or new else ANNOUNCE_SECONDS
        return [[steps.ClaimAddress(self._names[Sibling.COREDNS], seconds, causes)], *retirement]

    def _retire_coredns(self) -> list[Step]:
        """Retire the old CoreDNS after the new one's claim, which may fail, and announce the address again."""
        old = self._observed.siblings.get(Sibling.COREDNS)
        if old is None or Sibling.COREDNS not in self._made:
            return []
        announce = steps.ClaimAddress(self._names[Sibling.COREDNS], ANNOUNCE_SECONDS, ())
        remove = _remove(old, self._names[Sibling.COREDNS])
        if self._trusted(old):
            return [steps.ReleaseAddress(old.container.id), announce, remove]
        return [remove, *([announce] if old.container.running else [])]

    def _retire_envoy(self) -> list[Step]:
        old = self._observed.siblings.get(Sibling.ENVOY)
        if old is None or Sibling.ENVOY not in self._made:
            return []
        wait = [steps.AwaitTtl(name_list.TTL + _TTL_SLACK)] if self._address_moves else []
        drain = [self._drain(old)] if self._can_drain(old) else []
        return [*wait, *drain, _remove(old, self._names[Sibling.ENVOY])]

    def _asks_for_claim(self, finding: Finding) -> bool:
        """Whether the service address must be announced again, for example because another container held it."""
        mine = finding.field == f"address.{self._desired.service_address}"
        return finding.action is Action.CLAIM or (finding.action is Action.DETACH and mine)

    def _drain(self, old: ObservedSibling) -> steps.Drain:
        helper = self._desired.siblings[Sibling.ENVOY].boot[HELPER]
        bootstrap = old.files.get(f"{BOOT}bootstrap.json")
        usable = bootstrap is not None and ADMIN_SOCKET.encode() in bootstrap.content
        other = helper if usable and old.files.get(HELPER) != helper else None
        return steps.Drain(old.container.id, old.container.name, self._options.drain_seconds, other)

    def _unused(self) -> list[Step]:
        if not self._options.everything:
            return []
        retired = {leftover.container.id for leftover in self._observed.leftovers}
        retired |= {old.container.id for sibling in self._made if (old := self._observed.siblings.get(sibling))}
        retired |= {relay.container.id for relay in self._relay_changes.removed}
        images = unused_images(self._observed, self._desired, retired)
        volumes = (*self._observed.orphans, *old_trust(self._observed, self._desired))
        return [
            *(steps.RemoveImage(reference) for image in images for reference in image.references),
            *(steps.RemoveVolume(volume) for volume in volumes),
        ]

    @cached_property
    def _relay_changes(self) -> RelayChanges:
        return RelayComparison(self._observed, self._desired_now).selected(self._causes[Sibling.COREDNS])

    def _relays(self) -> list[list[Step]]:
        """Create or replace relays as the agents want them. They need both networks, but no sibling."""
        changes = self._relay_changes
        old, new = changes.network_removed, changes.network_made
        return [
            [_remove(relay) for relay in changes.removed],
            [steps.RemoveNetwork(old.id, old.name)] if old else [],
            [steps.CreateNetwork(new)] if new else [],
            [steps.Publish(spec) for spec in changes.made],
        ]

    def _renames(self) -> list[Step]:
        planned: list[Step] = []
        for sibling in Sibling:
            proper, _ = container_names(self._desired.project, sibling)
            old = self._observed.siblings.get(sibling)
            if sibling in self._made:
                if self._names[sibling] != proper:
                    planned.append(steps.Rename(sibling, self._names[sibling], proper))
            elif old and old.container.name != proper:
                planned.append(steps.Rename(sibling, old.container.id, proper))
        return planned


def serves(sibling: ObservedSibling, desired: Desired) -> bool:
    """Whether agents can use a sibling: it runs, and is on its networks."""
    networks = desired.siblings[sibling.sibling].shape.networks
    return sibling.container.running and networks.keys() <= sibling.container.connected.keys()


def _converses(sibling: ObservedSibling) -> bool:
    """Whether a container's helper knows this release's verbs for a serving program."""
    verbs = sibling.probe.verbs if sibling.probe else None
    return verbs is None or verbs >= _LIVE_VERBS


def _in_turn(lane: list[Step]) -> Step | InTurn:
    return lane[0] if len(lane) == 1 else InTurn(tuple(lane))


def _remove(old: ObservedSibling | ObservedRelay, heir: str = "") -> steps.Remove:
    return steps.Remove(old.container.id, old.container.name, heir=heir)


def _rebuild(observed: Observed, slots: Slots, desired_in: Callable[[Slots], Desired], diff: Diff) -> Plan:
    """Recreate both networks, and replace both siblings. Refused while agents are attached.

    Networks can't be renamed and can't overlap, so the old ones go first. The old siblings are only stopped until
    the new ones are verified. If that fails, they get their networks back.
    """
    agents = sorted({name for names in observed.attached.values() for name in names})
    if agents:
        fields = [finding.field for finding in diff.findings if finding.action is Action.RECREATE_NETWORKS]
        raise RefusedError(
            "network-in-use",
            "A network has to be recreated, which would cut off the containers attached to it.",
            context=[f"differs: {', '.join(fields)}", f"attached: {', '.join(agents)}"],
            hint="Stop these containers, then repeat the command.",
        )
    siblings = {sibling: _stopped(old) for sibling, old in observed.siblings.items()}
    stopped = replace(observed, networks={}, siblings=siblings, leftovers=(), trial=None, relays=(), publishers=())
    build = _Planner(stopped, slots, desired_in, diff, ConvergeOptions(replace_all=True)).plan()
    first = [stage for stage in build.stages if isinstance(stage[0], steps.ProvideImage | steps.Examine)]
    stages: tuple[Stage, ...] = (
        _removed(observed.leftovers, observed),
        tuple(
            steps.Stop(sibling.sibling, sibling.container.id, sibling.container.name)
            for sibling in observed.siblings.values()
        ),
        tuple(steps.RemoveNetwork(network.id, network.name) for network in observed.networks.values()),
    )
    room = tuple(stage for stage in stages if stage)
    old_networks = {network.name: _as_it_was(network) for network in observed.networks.values() if network.subnets}
    return replace(
        build,
        stages=(*first, *room, *build.stages[len(first) :]),
        rollback=(
            *build.rollback,
            *(steps.RemoveNetwork(spec.name, spec.name) for spec in desired_in(slots).networks.values()),
            *(steps.CreateNetwork(spec) for spec in old_networks.values()),
            *(_put_back(old, old_networks) for old in observed.siblings.values()),
        ),
        point_of_no_return=build.point_of_no_return + len(room),
    )


def _stopped(old: ObservedSibling) -> ObservedSibling:
    return replace(old, container=replace(old.container, status="exited", connected={}), probe=None)


def _as_it_was(network: NetworkView) -> NetworkSpec:
    subnet = network.subnets[0]
    return NetworkSpec(
        name=network.name,
        subnet=subnet,
        gateway=IPv4Address(network.gateway) if network.gateway else subnet[1],
        ip_range=network.ip_range or lower_half(subnet),
        internal=network.internal,
        options=network.options,
        labels=network.labels,
    )


def _put_back(old: ObservedSibling, networks: Collection[str]) -> steps.Reattach:
    """Return the step that reconnects a sibling to its original ones among these networks."""
    places = old.container.shape.networks.items()
    return steps.Reattach(old.sibling, old.container.id, tuple(place for place in places if place[0] in networks))


def examiner(desired: Desired) -> ContainerSpec:
    """Return the container that asks the kernel for what the siblings need. It has no network."""
    resolver = desired.siblings[Sibling.COREDNS]
    return ContainerSpec(
        name=trial_name(desired.project),
        image=resolver.image.reference,
        labels=labels.ownership_labels(desired.project),
        shape=examination(desired.siblings[Sibling.ENVOY].shape.ulimits),
        files={HELPER: resolver.boot[HELPER]},
    )


def creation(sibling: DesiredSibling, name: str) -> ContainerSpec:
    """Return the container to create: everything it starts with, and the record of that."""
    record = commit_record(sibling.live, sibling.hot, sibling.rules)
    return ContainerSpec(
        name=name,
        image=sibling.image.reference,
        labels=sibling.labels,
        shape=sibling.shape,
        files={**sibling.boot, **sibling.hot, **sibling.kept, COMMITTED: record},
    )


def staged(sibling: DesiredSibling) -> Files:
    """Return the files of a commit, which also removes files that are not desired."""
    record = commit_record(sibling.live, sibling.hot, sibling.rules)
    return {**{f"{STAGE}{path}": file for path, file in sibling.hot.items()}, f"{STAGE}commit.json": record}


def teardown(observed: Observed, project: str, *, detach: bool) -> Plan:
    """Return the plan that removes a project's stack. With `detach`, it disconnects agents first.

    Raises:
        RefusedError: if agents are attached and `detach` is false.
    """
    attached = [
        steps.Detach(observed.networks[role].id, observed.networks[role].name, name)
        for role, places in observed.attached.items()
        for name in places
    ]
    if attached and not detach:
        raise RefusedError(
            "network-in-use",
            "Containers are still attached to this stack.",
            context=[f"{detach.container} on {detach.name}" for detach in attached],
            hint="Stop them, or disconnect them with `clawker-fw down --force`.",
        )
    networks = [*observed.networks.values(), *((observed.publishing,) if observed.publishing else ())]
    ours = (container for container in observed.listing if container.project == project)
    fillers = [container for container in ours if container.name.startswith(trust_name(project))]
    trust = (volume.name for volume in observed.spare_trust)
    volumes = (*observed.orphans, *trust, *(filler.name for filler in fillers))
    stages: tuple[tuple[Step, ...], ...] = (
        tuple(attached),
        _removed((*observed.siblings.values(), *observed.leftovers), observed, fillers),
        tuple(steps.RemoveNetwork(network.id, network.name) for network in networks),
        tuple(steps.RemoveVolume(volume) for volume in volumes),
    )
    return Plan(tuple(stage for stage in stages if stage))


def _removed(
    siblings: Iterable[ObservedSibling], observed: Observed, fillers: Sequence[ContainerSummary] = ()
) -> tuple[steps.Remove, ...]:
    """Remove siblings, the one-shot container, those that fill trust volumes, and relays."""
    one_shot = (observed.trial,) if observed.trial else ()
    return (
        *(_remove(sibling) for sibling in siblings),
        *(steps.Remove(container.id, container.name) for container in (*one_shot, *fillers)),
        *(_remove(relay) for relay in observed.relays),
    )
