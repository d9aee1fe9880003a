"""Facts from an observation that several reports show."""

import dataclasses
from collections.abc import Iterable

from clawker_fw.model.desired import Desired, Rules, version_of
from clawker_fw.model.differences import Finding
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.lock import abandoned
from clawker_fw.reconcile.unused import old_trust, unused_images
from clawker_fw.report.filediff import Change, changes, unified
from clawker_fw.stack import resources
from clawker_fw.stack.container import recorded_rules


@dataclasses.dataclass(frozen=True, slots=True)
class Leftovers:
    """The names of what earlier runs and releases have left behind and `run` would remove."""

    containers: tuple[str, ...]
    images: tuple[str, ...]
    volumes: tuple[str, ...]


def leftovers(observed: Observed, desired: Desired | None) -> Leftovers:
    """Return the leftovers. Unused images are only known with a desired state."""
    containers = [leftover.container.name for leftover in observed.leftovers]
    if observed.trial and abandoned(observed.trial):
        containers.append(observed.trial.name)
    unused = unused_images(observed, desired, frozenset()) if desired else ()
    images = sorted(reference for image in unused for reference in image.references)
    volumes = (*observed.orphans, *(old_trust(observed, desired) if desired else ()))
    return Leftovers(tuple(containers), tuple(images), volumes)


def live_version(observed: Observed, sibling: Sibling) -> str | None:
    """Return a sibling's live version, or None if its process has not reported every resource."""
    state = observed.siblings.get(sibling)
    if state is None or state.probe is None or state.probe.error or not state.probe.live:
        return None
    return version_of(state.probe.live)


def live_rules(observed: Observed) -> Rules | None:
    """Return the rules that the siblings serve, or None if a sibling is silent or its rules are unknown.

    They are in the record of Envoy's last commit, if Envoy still serves it, except with earlier releases.
    """
    if None in {live_version(observed, sibling) for sibling in Sibling}:
        return None
    envoy = observed.siblings[Sibling.ENVOY]
    return recorded_rules(envoy.files, envoy.probe.live if envoy.probe else {})


def changed_values(finding: Finding) -> list[Change]:
    """Return the values that differ in a finding's files, with settings under their names."""
    changed = changes(*(finding.contents or (b"", b"")))
    if finding.field != resources.SIBLING:
        return changed
    names = {"limits.all_connections": f"resources.{finding.sibling}.connections"}
    if finding.sibling is Sibling.COREDNS:
        names["limits.connections"] = "limits.resolver_connections"
    return [dataclasses.replace(change, path=names.get(change.path, change.path)) for change in changed]


def changed_settings(finding: Finding) -> list[Change]:
    """Return the settings whose values differ in a finding's files."""
    settings = ("limits.", f"resources.{finding.sibling}.")
    return [change for change in changed_values(finding) if change.path.startswith(settings)]


def unified_diff(finding: Finding) -> Iterable[str]:
    """Return a unified diff of a finding's files."""
    old = f"running {finding.field}" if finding.running is not None else "/dev/null"
    new = f"desired {finding.field}" if finding.desired is not None else "/dev/null"
    return unified(*(finding.contents or (b"", b"")), old, new)
