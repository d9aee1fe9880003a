"""The meaning of a plan in words: first the effects on agents, then a line for each reason.

This module does not use `rich`, because answers for programs contain these lines too.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence

from clawker_fw.errors import FirewallError
from clawker_fw.model.differences import LEFTOVER, RELAYING, Action, Cause, Finding, Layer, Value
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.compare.live import ANSWER, SECRETS, SIGNER
from clawker_fw.reconcile.compare.relays import FIELD as RELAYS
from clawker_fw.reconcile.compare.rules import RuleChanges
from clawker_fw.reconcile.compare.state import RESTARTS
from clawker_fw.reconcile.summary import Build, Effect, Summary, is_follow_up
from clawker_fw.report.facts import changed_settings
from clawker_fw.report.spans import counted
from clawker_fw.report.terminal import visible
from clawker_fw.stack import capacity, labels, versions
from clawker_fw.stack.envoy.sibling import DRAIN_SECONDS

ADDED, REMOVED = "  + ", "  - "
"""The prefixes of added and removed rules."""

PREFIX = "dev.clawker.firewall."
"""The prefix of our labels, which people don't see."""

_MOST_RULES = 20
_MOST_NAMES = 4
_LONGEST_VALUE = 30

_PROGRAMS = {Sibling.ENVOY: "Envoy", Sibling.COREDNS: "CoreDNS"}

_STATES = {"exited": "stopped", "created": "not started"}


def lines(summary: Summary | None) -> list[str]:
    """Return the lines, of which the first says what happens. None without a plan."""
    if summary is None:
        return []
    if summary.refused:
        return refusal_lines(summary.refused)
    if summary.absent:
        return [
            visible(f"{summary.project} is not up yet: it will be created, with {counted(summary.count, 'rule')}.")
        ]
    why = list(_reasons(summary))
    details = [*why, *_rules(summary.changes)]
    only_rules = summary.changes and not why and set(summary.effects) == {Effect.UPDATED}
    effects = "The rules will change" if only_rules else _effects(summary)
    if not effects and summary.reasons[Cause.MACHINE]:
        return ["Nothing will be replaced, because that would not mend it:", *map(visible, details)]
    if not effects:
        return []
    head = f"{effects}, {', '.join(_interruption(summary))}{':' if details else '.'}"
    return [head, *map(visible, details)]


def refusal_lines(error: FirewallError) -> list[str]:
    """Return why a change is refused, and what to do."""
    details = [*error.context, *([error.hint] if error.hint else [])]
    return [visible(f"Refused for now: {error.message}"), *(visible(f"  {line}") for line in details)]


def _effects(summary: Summary) -> str:
    done = [
        (_joined(_PROGRAMS[sibling] for sibling in those), effect) for effect, those in summary.effects.items()
    ]
    if not done and summary.relays:
        return "Published ports will change"
    if not done:
        return "What is no longer used will be removed" if summary.housekeeping else ""
    (first, effect), *others = done
    return " and ".join([f"{first} will be {effect}", *(f"{who} {what}" for who, what in others)])


def _interruption(summary: Summary) -> Iterator[str]:
    """Yield the effects on agents. That connections may end in peace is only said if nothing is worse."""
    noticed = summary.interruption
    if noticed.outage:
        yield "nothing is served meanwhile"
        return
    if Sibling.ENVOY in noticed.unserved:
        yield "agents reach nothing until then"
    elif noticed.unserved:
        yield "no name resolves until then"
    elif noticed.lookups:
        yield "a lookup may be delayed"
    if noticed.drained == 0:
        yield "open connections are cut"
    elif noticed.drained and not (noticed.unserved or noticed.lookups):
        yield f"open connections are closed in a pause, or after {noticed.drained:g} s"
    if noticed.cut:
        of_rules = f"connections of affected rules are cut within {DRAIN_SECONDS} s"
        yield of_rules if summary.changes else "connections may be cut"
    if summary.relays_cut:
        yield "connections to some published ports are cut"
    elif not noticed:
        yield "no request is cut"


def _rules(changes: RuleChanges | None) -> Iterator[str]:
    if changes:
        yield from (f"{ADDED}{rule}" for rule in _first(changes.added, _MOST_RULES))
        yield from (f"{REMOVED}{rule}" for rule in _first(changes.removed, _MOST_RULES))


def _reasons(summary: Summary) -> Iterator[str]:
    for cause, words in _BY_CAUSE.items():
        if findings := summary.reasons[cause]:
            yield from (f"  {line}" for line in words(summary, findings))
    for preset in summary.changes.presets if summary.changes else ():
        what = versions.change(str(preset.before), str(preset.after))
        yield f"  {what} of the preset {preset.preset}, version {preset.before} → {preset.after}"
    if summary.asked:
        yield "  requested with --force-recreate"


def _settings(summary: Summary, findings: Sequence[Finding]) -> Iterator[str]:
    yield from _secrets(findings)
    shown = (finding for finding in findings if finding.layer in _SHOWN_LAYERS)
    values = dict.fromkeys(
        _change(finding) for finding in shown if not (is_follow_up(finding) or _follows(finding))
    )
    boot = [change for finding in findings if finding.layer is Layer.BOOT for change in changed_settings(finding)]
    values |= dict.fromkeys(f"{change.path} {change.before} → {change.after}" for change in boot)
    files = {Layer.BOOT} if summary.changes else {Layer.BOOT, Layer.HOT}
    if values:
        yield f"changed settings: {_joined(_first(list(values), _MOST_NAMES))}"
    elif names := list(dict.fromkeys(finding.field for finding in findings if finding.layer in files)):
        yield f"changed settings, to be seen in {_joined(_first(names, _MOST_NAMES))}"


def _secrets(findings: Sequence[Finding]) -> Iterator[str]:
    secrets = [
        finding for finding in findings if finding.layer is Layer.LIVE and finding.field.startswith(f"{SECRETS}.")
    ]
    named = dict.fromkeys(
        f"{finding.field.partition('.')[2].partition('#')[0]} "
        f"({'not needed' if finding.desired is None else finding.running or 'missing'})"
        for finding in secrets
    )
    if named:
        yield f"secrets in Envoy: {_joined(_first(list(named), _MOST_NAMES))}"


_SHOWN_LAYERS = frozenset({Layer.LABELS, Layer.IMAGE, Layer.SHAPE})
"""The layers whose values are settings, not derived from them."""


_SET = frozenset({labels.INFRA_CERTS_READY, labels.OTEL_INFRA_PORT})
"""The labels with settings' values. An upgrade may also change a setting."""


def _follows(finding: Finding) -> bool:
    """Whether a network's value follows from its subnet."""
    return finding.field.startswith("networks.") and not finding.field.endswith(".subnet")


def _change(finding: Finding) -> str:
    if finding.layer is Layer.IMAGE:
        return _version_change(finding) or f"the image of {_PROGRAMS[finding.sibling]}"
    name = finding.field.removeprefix(PREFIX)
    if finding.layer is Layer.SHAPE and not name.startswith("networks."):
        name = f"{_PROGRAMS[finding.sibling]}'s {name}"
    values = [_value(finding, value) for value in (finding.running, finding.desired)]
    return f"{name} {' → '.join(values)}" if max(map(len, values)) <= _LONGEST_VALUE else name


def _value(finding: Finding, value: Value) -> str:
    if finding.field == "memory" and isinstance(value, int):
        return capacity.written(value)
    return (shlex.join(value) if isinstance(value, tuple) else str("" if value is None else value)) or "nothing"


def _machine(_: Summary, findings: Sequence[Finding]) -> Iterator[str]:
    if cut_off := [_PROGRAMS[finding.sibling] for finding in findings if finding.action is Action.NONE]:
        yield f"the Docker host drops what agents send to {_joined(cut_off)}"
    if resized := [finding for finding in findings if finding.action is not Action.NONE]:
        yield f"the Docker host was resized: {_fields(resized)}"


def _upgrade(summary: Summary, findings: Sequence[Finding]) -> Iterator[str]:
    programs = [
        _version_change(finding) or f"another build of {_PROGRAMS[finding.sibling]}'s image"
        for finding in findings
        if finding.layer is Layer.IMAGE and not (summary.builds and finding.sibling is Sibling.COREDNS)
    ]
    if summary.builds:
        programs = [program for program in programs if "→" in program]
        builds = list(dict.fromkeys(summary.builds.values()))
        yield ", ".join([*(_release(*build) for build in builds), *programs])
    elif programs:
        kinds = {versions.change(*finding.versions) for finding in findings if finding.versions}
        yield f"{kinds.pop() if len(kinds) == 1 else 'change'}: {', '.join(programs)}"
    if values := dict.fromkeys(
        _change(finding) for finding in findings if finding.layer is Layer.LABELS and finding.field in _SET
    ):
        yield f"changed settings: {_joined(values)}"
    left = [finding.field.removeprefix(LEFTOVER) for finding in findings if finding.field.startswith(LEFTOVER)]
    if left:
        yield f"an unfinished run left {_joined(_first(left, _MOST_NAMES))} behind, to be removed"
    elif any(finding.action is Action.RENAME for finding in findings):
        yield "an unfinished run will be completed"


def _release(running: Build, desired: Build) -> str:
    return f"{versions.change(running.version, desired.version)} from {running} to {desired}"


def _version_change(finding: Finding) -> str:
    running, desired = finding.versions or (None, None)
    differs = running is not None and desired is not None and running != desired
    return f"{_PROGRAMS[finding.sibling]} {running} → {desired}" if differs else ""


def _agents(_: Summary, findings: Sequence[Finding]) -> Iterator[str]:
    for words, action in (
        ("to be published by", Action.PUBLISH),
        ("no more agent for", Action.UNPUBLISH),
        ("name or subnet taken for", Action.NONE),
    ):
        names = dict.fromkeys(
            finding.field.removeprefix(RELAYS).partition(".")[0]
            for finding in findings
            if finding.action is action
        )
        if names:
            yield f"{words} {_joined(_first(list(names), _MOST_NAMES))}"


def _tampering(_: Summary, findings: Sequence[Finding]) -> Iterator[str]:
    yield from dict.fromkeys(words for finding in findings if (words := _trouble(finding)))
    if changed := [finding for finding in findings if not _trouble(finding)]:
        yield f"changed by hand: {_fields(changed)}"


def _trouble(finding: Finding) -> str:
    who = _PROGRAMS[finding.sibling]
    if finding.layer is Layer.STATE:
        return _trouble_of_state(finding, who)
    silent = {
        ANSWER: f"{who} does not answer",
        SIGNER: f"the signer beside {who} does not answer",
        "agents_see": f"agents can't use {who}",
    }
    return silent.get(finding.field, "") if finding.layer is Layer.LIVE else ""


def _trouble_of_state(finding: Finding, who: str) -> str:
    name, network = finding.field, finding.field.removeprefix("networks.")
    if finding.action in RELAYING:
        return f"{name.removeprefix(RELAYS).partition('.')[0]} differs from what published ports need"
    if name.startswith("address."):
        return f"{finding.running} has {name.removeprefix('address.')}, an address of the firewall"
    if network != name and finding.action is Action.CREATE:
        return f"the network {network} is missing"
    if network != name and finding.running is None:
        return f"{who} is not on the network {network}"
    of_container = {
        "container": f"{who} is missing",
        "status": f"{who} is {_STATES.get(str(finding.running), finding.running)}",
        "health": f"{who} is unhealthy",
        RESTARTS: f"{who} ends whenever it is started",
        "service_address": f"{who} does not hold the service address",
    }
    return of_container.get(name, "")


def _fields(findings: Sequence[Finding]) -> str:
    named = []
    for sibling, who in _PROGRAMS.items():
        fields = [finding.field.removeprefix(PREFIX) for finding in findings if finding.sibling is sibling]
        if fields:
            named.append(f"{who}'s {_joined(_first(list(dict.fromkeys(fields)), _MOST_NAMES))}")
    return ", ".join(named)


_BY_CAUSE = {
    Cause.TAMPER: _tampering,
    Cause.UPGRADE: _upgrade,
    Cause.AGENT: _agents,
    Cause.MACHINE: _machine,
    Cause.SETTINGS: _settings,
}


def _first(names: Sequence[str], most: int) -> list[str]:
    more = len(names) - most
    return [*names[:most], f"{more:,} more"] if more > 0 else list(names)


def _joined(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
