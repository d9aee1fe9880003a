"""The checks of `doctor`: one function per possible problem, with its fix.

Nothing here changes a stack. A check is `skipped` if it needs something that is missing, which an earlier check
reports.
"""

import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from clawker_fw.certificates.credentials import address_of
from clawker_fw.diagnose.trial import attempt
from clawker_fw.engine import host_network
from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.engine.translate import bridge_of
from clawker_fw.errors import FirewallError
from clawker_fw.fwctl import HelperReader
from clawker_fw.model.desired import Desired
from clawker_fw.model.engines import EngineFacts
from clawker_fw.model.observed import Observed, ObservedSibling
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.reconcile.one_shot import lacking
from clawker_fw.reconcile.pipeline import Comparison
from clawker_fw.reconcile.plan import examiner
from clawker_fw.rules.rule import HOST, Protocol, Rule
from clawker_fw.rules.ruleset import RuleSet
from clawker_fw.rules.target import Target
from clawker_fw.stack.collector import certificates, destination, is_live
from clawker_fw.stack.container import REFUSED_NAME
from clawker_fw.stack.labels import INFRA_CERTS_READY

_CLOCKS_APART = 2.0
"""The accepted difference between two clocks in seconds, besides the request's time."""

_BRIDGED = "bridged-frames"

_TRACKED = "tracked-connections"
_REMEMBERED = 2 * (120 + 2)
"""Seconds' worth of one agent's new connections in the table.

All agents together begin twice as many, with a burst of 2 s, and the kernel remembers each for 120 s.
"""

_LOOKED_UP = 3


class CheckHealth(StrEnum):
    """The result of a check. A warning is not a failure."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, the result, and what was seen."""

    name: str
    health: CheckHealth
    seen: str
    advice: str | None = None
    """What to do about it."""


def _ok(name: str, seen: str) -> Check:
    return Check(name, CheckHealth.OK, seen)


def _warning(name: str, seen: str, advice: str | None = None) -> Check:
    return Check(name, CheckHealth.WARNING, seen, advice)


def _failure(name: str, seen: str, advice: str | None) -> Check:
    return Check(name, CheckHealth.FAILED, seen, advice)


def _skipped(name: str, why: str) -> Check:
    return Check(name, CheckHealth.SKIPPED, why)


def container(facts: EngineFacts, settings: Path | None, state: Path) -> Iterator[Check]:
    """Yield a check of the engine's container in which this program runs, if any."""
    inside = facts.inside
    if inside is None:
        return
    of_settings = "come from the environment"
    if settings:
        place = inside.on_host(str(settings.resolve()))
        of_settings = f"are {place} on its machine" if place else f"are {settings.absolute()}, in here alone"
    network = "the machine's" if inside.host_network else "its own"
    sentence = f"Container {inside.container[:12]} of the engine on {inside.host}: settings {of_settings}"
    if inside.on_host(str(state)) is None:
        yield _warning(
            "container",
            f"{sentence}, its network is {network}, and state is kept in here alone.",
            f"Certificates and CAs are lost with the container, unless a volume is mounted at {state}.",
        )
    else:
        yield _ok("container", f"{sentence}, its network is {network}, and its state is kept.")


def failed(name: str, error: FirewallError) -> Check:
    """Return a failed check for an error."""
    return _failure(name, error.in_one_line, error.hint or None)


def permissions(files: Sequence[Path]) -> Check:
    """Whether only the owner can write the settings, or replace them through a folder on their path."""
    for file in files:
        owner = file.stat().st_uid
        for path in dict.fromkeys((file, *file.absolute().parents, *file.resolve().parents)):
            status = path.stat()
            # In a sticky folder, others can't rename or remove the owner's files.
            protected = path is not file and status.st_mode & stat.S_ISVTX
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not protected:
                return _warning(
                    "permissions",
                    f"{path} can be written by others (mode {stat.S_IMODE(status.st_mode):04o}).",
                    f"Others can change the rules. Run `chmod go-w {path}`, unless they should.",
                )
            if status.st_uid not in {0, owner}:
                return _warning(
                    "permissions",
                    f"{path} belongs to user {status.st_uid}, and {file} to user {owner}.",
                    "The owner of a folder can replace the files in it. Move the settings, unless it should.",
                )
    return _ok("permissions", "Only their owner can write the settings.")


def engine(reader: EngineReader) -> Check:
    """Report the engine. Connecting to it has already checked that it is usable, with its kernel."""
    facts = reader.facts()
    kernel = f", Linux {facts.kernel}" if facts.kernel else ""
    return _ok("engine", f"Engine {facts.version} on {facts.architecture}{kernel}, at {facts.endpoint}.")


def clocks(reader: EngineReader) -> Check:
    """Whether the engine's clock and ours agree: expiries and records rely on them."""
    began = time.time()
    apart = reader.clock() - (began + time.time()) / 2
    took = time.time() - began
    if abs(apart) > _CLOCKS_APART + took:
        return _warning(
            "clocks",
            f"The engine's clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's.",
            "Synchronise both, for example with systemd-timesyncd: rules with `until` end by them.",
        )
    return _ok("clocks", f"The engine's clock and ours agree within {abs(apart) + took:.1f} s.")


def stack(comparison: Comparison) -> Iterator[Check]:
    """Yield whether the stack is up and current, and any advice as warnings."""
    project = comparison.desired.project
    if comparison.observed.absent:
        yield _failure("stack", f"{project} is not up.", "Start it with `clawker-fw run`.")
        return
    if comparison.diff.verdict.settled:
        yield _ok("stack", f"{project} is current.")
    else:
        number = len(comparison.diff.findings)
        yield _failure(
            "stack",
            f"{project} is {comparison.diff.verdict}: {number} difference{'s' if number > 1 else ''}.",
            "`clawker-fw drift` shows the differences, and `clawker-fw run` closes them.",
        )
    for advice in comparison.advice:
        yield Check(advice.code, CheckHealth.WARNING, advice.message)


def kernel(writer: EngineWriter, comparison: Comparison) -> Check:
    """Whether the Docker host's kernel has what Envoy and CoreDNS need: they run, or a helper asks it."""
    if not comparison.observed.absent:
        return _ok("kernel", "Envoy and CoreDNS run on the Docker host's kernel.")
    asked = examiner(comparison.desired)
    if writer.image(asked.image) is None:
        return _skipped("kernel", "The first `clawker-fw run` checks the kernel, before it creates anything.")
    if missing := lacking(writer, comparison.desired.project, asked):
        advice = "Each sentence says what is needed on the Docker host."
        return _failure("kernel", f"It lacks what the firewall needs: {'; '.join(missing)}.", advice)
    return _ok("kernel", "The Docker host's kernel has what the firewall needs.")


def tracking(reader: EngineReader, comparison: Comparison) -> Check:
    """Whether one agent can fill the kernel's connection table, which blocks new connections for everybody."""
    bridged = host_network.tracks_bridged()
    if bridged is None or not reader.facts().shares_network:
        return _skipped(_BRIDGED, "Only known on the Docker host; in a container, only with `--network host`.")
    if not bridged:
        return _ok(_BRIDGED, "The kernel does not track what passes between containers.")
    network = comparison.observed.networks.get(Role.AGENTS)
    return _warning(
        _BRIDGED,
        "The kernel tracks what passes between containers (br_netfilter): one agent can fill its table of "
        "connections within seconds, and then new ones fail on the whole machine.",
        "Run `sysctl -w net.bridge.bridge-nf-call-iptables=0`, unless Kubernetes or a network with "
        "`enable_icc=false` needs it there."
        + (f" Else run `{untracked(bridge_of(network))}` after each start of the machine." if network else ""),
    )


def connection_table(reader: EngineReader, comparison: Comparison) -> Check:
    """Whether the connections that agents may begin with hosts fit into the kernel's table."""
    most = host_network.most_tracked()
    if most is None or not reader.facts().shares_network:
        return _skipped(_TRACKED, "Only known on the Docker host, if its kernel tracks connections.")
    needed = _REMEMBERED * comparison.blueprint.settings.limits.connections_per_second
    if needed < most:
        return _ok(_TRACKED, f"Agents can take {needed:,} of {most:,} entries in the kernel's connection table.")
    return _warning(
        _TRACKED,
        f"Agents can fill the kernel's connection table: it has {most:,} entries, and they can take {needed:,}.",
        f"Run `sysctl -w net.netfilter.nf_conntrack_max={2 * needed}`, or lower `limits.connections_per_second`.",
    )


def untracked(bridge: str) -> str:
    """Return the command that stops connection tracking for a bridge, where nothing needs it."""
    return f"iptables -t raw -I PREROUTING -i {bridge} -j CT --notrack"


def agents(comparison: Comparison) -> Check:
    """Whether every agent is confined."""
    if opened := [agent for agent in comparison.agents if agent.openings]:
        ways_around = (f"{agent.name} ({'; '.join(way.phrase for way in agent.openings)})" for agent in opened)
        advice = "Start them again with `clawker-fw agent run`, and without these options."
        return _failure("agents", f"With a way around the firewall: {', '.join(ways_around)}.", advice)
    if weak := [agent.name for agent in comparison.agents if agent.weaknesses]:
        advice = "`clawker-fw status` says why. What `clawker-fw agent run` starts has no weakness."
        return _warning("agents", f"Weakly confined: {', '.join(weak)}.", advice)
    if not comparison.agents:
        return _ok("agents", "No agent is attached.")
    return _ok("agents", f"Attached agents, all of them fenced: {len(comparison.agents):,}.")


def arrivals(comparison: Comparison) -> Iterator[Check]:
    """Yield whether telemetry reaches the collector. Certificates do not prove that."""
    endpoint = comparison.blueprint.settings.otel.endpoint
    if endpoint is None:
        return
    probes = {
        sibling: observed_sibling.probe
        for sibling, observed_sibling in comparison.observed.siblings.items()
        if observed_sibling.probe
    }
    lost = {sibling: probe.records for sibling, probe in probes.items() if probe.records.lost}
    if silent := [sibling.value for sibling, records in lost.items() if not records.sent]:
        number = sum(records.lost for records in lost.values() if not records.sent)
        yield _failure(
            "telemetry",
            f"Nothing of {' and '.join(silent)} has arrived at {endpoint}: {number:,} records are lost.",
            "Check that the collector runs, that the Docker host reaches it, and that it accepts the "
            "certificates: `clawker-fw certs show`, `docker logs`.",
        )
    elif lost:
        number = sum(records.lost for records in lost.values())
        yield _warning(
            "telemetry",
            f"{number:,} records have not arrived at {endpoint} since Envoy and CoreDNS started.",
            "The collector was away, or could not keep up.",
        )
    elif sent := sum(probe.records.sent for probe in probes.values()):
        yield _ok("telemetry", f"{sent:,} records have arrived at {endpoint}.")
    else:
        yield _ok("telemetry", f"There was nothing to send to {endpoint} so far.")


def upstream(reader: EngineReader, comparison: Comparison) -> Check:
    """Whether Envoy can resolve the rules' names with its container's resolvers."""
    rules, proxy = comparison.blueprint.rules, comparison.blueprint.rules.proxy
    names = [rule.host or rule.destination.name for rule in _plain(rules) if not rule.proxied]
    if proxy and proxy.host != HOST and address_of(proxy.host) is None:
        names.insert(0, proxy.host)
    names = list(dict.fromkeys(names))
    envoy = _running(comparison, Sibling.ENVOY)
    if not envoy or not names:
        why = "Envoy does not run." if not envoy else "No rule is for a single name, so there is none to look up."
        return _skipped("upstream-dns", why)
    asked = names[:_LOOKED_UP]
    answers = {name: HelperReader(reader, envoy).lookup(name) for name in asked}
    unknown = {name: answer.error or "no address" for name, answer in answers.items() if not answer.addresses}
    if len(unknown) == len(asked):
        name, error = next(iter(unknown.items()))
        return _failure(
            "upstream-dns",
            f"Envoy can resolve none of {', '.join(asked)} ({name}: {error}).",
            "Check the name servers of the Docker host (/etc/resolv.conf), and its way to them.",
        )
    if unknown:
        advice = (
            "Check how these names are written; if they are right, the hosts are gone or their zone is broken."
        )
        return _warning("upstream-dns", f"Envoy can't resolve {', '.join(unknown)}.", advice)
    return _ok("upstream-dns", f"Envoy resolves {', '.join(asked)}.")


def ways(reader: EngineReader, comparison: Comparison) -> Iterator[Check]:
    """Yield whether a name with a rule is reachable from the agent network, and one without a rule is not."""
    resolver = _running(comparison, Sibling.COREDNS)
    if not resolver:
        yield _skipped("way-out", "CoreDNS does not run.")
        return
    refused = HelperReader(reader, resolver).trial(REFUSED_NAME, "https", 443).steps[-1]
    if refused.name == "resolve" and not refused.ok:
        yield _ok("refusal", "A name without a rule does not resolve.")
    else:
        yield _failure(
            "refusal",
            f"A name without a rule gets an answer ({refused.name}: {refused.outcome}).",
            "`clawker-fw drift` shows what was changed, and `clawker-fw run` repairs it.",
        )
    plain = _plain(comparison.blueprint.rules)
    rule = next((rule for rule in plain if _request_for(rule) is not None), plain[0] if plain else None)
    if rule is None or rule.port is None:
        yield _skipped("way-out", "No rule is for a single name, so there is none to try.")
        return
    protocol = Protocol.HTTP if rule.protocol is Protocol.HTTP else Protocol.HTTPS
    target = Target(rule.destination.name, protocol, rule.port)
    place, request = f"{target.name}:{target.port}", _request_for(rule)
    tried = attempt(reader, comparison.observed, target, *(request or ()))
    last = tried.trial.steps[-1]
    if tried.passed and request is None:
        yield _warning(
            "way-out",
            f"Not proven that an agent reaches {place}: no request is known that its rule allows.",
            "`clawker-fw explain URL --live` tries one that you know.",
        )
    elif tried.passed:
        yield _ok("way-out", f"An agent reaches {place} ({last.outcome}).")
    else:
        yield _failure(
            "way-out",
            f"An agent does not reach {place}: {last.name}, {tried.reason or last.outcome}.",
            f"`clawker-fw explain {target.protocol}://{place} --live` says at which step, and why. "
            + _may_keep_in(comparison),
        )


def _plain(rules: RuleSet) -> list[Rule]:
    return [
        rule
        for rule in rules.rules
        if not rule.denies
        and not rule.destination.subtree
        and rule.protocol in {Protocol.HTTPS, Protocol.HTTP}
        and not rule.opaque
    ]


def _request_for(rule: Rule) -> tuple[str, ...] | None:
    """Return the method and path to try: empty without TLS inspection, None if no allowed request is known."""
    return rule.paths.allowed_request() if rule.paths else ()


def _may_keep_in(comparison: Comparison) -> str:
    """Return the likeliest causes of a failed connection. A known problem hides all others."""
    if not _running(comparison, Sibling.ENVOY):
        return "Envoy does not run, so agents reach nothing: `clawker-fw run` starts it."
    if not comparison.observed.machine.forwards:
        return "The Docker host forwards no packets: `sysctl -w net.ipv4.ip_forward=1` there."
    way_out = comparison.observed.networks.get(Role.EGRESS)
    ours = comparison.desired.networks[Role.EGRESS].options
    added = [f"{name}={text}" for name, text in way_out.options.items() if name not in ours] if way_out else []
    by_engine = f" Its `default-network-opts` add {', '.join(sorted(added))}." if added else ""
    return (
        "If the Docker host itself gets there, look for `iptables: false`, `ip-masq: false` and `ip-forward: "
        "false` in its daemon.json, and for rules that drop: `iptables -S DOCKER-USER`, `iptables -S FORWARD`."
        f"{by_engine} On a VPN, compare the MTU of its interface (`ip link`), often 1,400, with Docker's 1,500: "
        "larger packets are lost, and `iptables -t mangle -I FORWARD -p tcp --syn -j TCPMSS --clamp-mss-to-pmtu` "
        "avoids them."
    )


def guarded(name: str, work: Callable[[], Check | Iterator[Check]]) -> list[Check]:
    """Return a function's checks. An engine error fails only this check."""
    try:
        check = work()
        return [check] if isinstance(check, Check) else list(check)
    except FirewallError as error:
        return [failed(name, error)]


def _running(comparison: Comparison, sibling: Sibling) -> str:
    observed = comparison.observed.siblings.get(sibling)
    return observed.container.id if observed and observed.container.running else ""


def telemetry_obstacle(observed: Observed, desired: Desired, live: str) -> str:
    """Return why nothing is sent to the collector, or "". `live` is why the loaded certificates are unusable."""
    if observed.absent:
        return f"the stack {desired.project} is not up"
    if lacking := [sibling.value for sibling in Sibling if not _has_loaded(observed.siblings.get(sibling))]:
        return f"{' and '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} loaded no certificate"
    running = destination({sibling: view.files for sibling, view in observed.siblings.items()})
    if live or running is None:
        return live
    endpoint, name = running
    intended = destination({sibling: spec.hot for sibling, spec in desired.siblings.items()})
    if intended is None or intended == running:
        return ""
    return f"Envoy and CoreDNS send to {endpoint}{f' only if it is {name}' if intended[0] == endpoint else ''}"


def _has_loaded(sibling: ObservedSibling | None) -> bool:
    """Whether a container was made for telemetry and reports that it loaded its certificate."""
    if sibling is None or sibling.probe is None or sibling.container.labels.get(INFRA_CERTS_READY) != "true":
        return False
    return certificates(sibling.sibling, sibling.files) is not None and is_live(
        sibling.sibling, sibling.files, sibling.probe.live
    )
