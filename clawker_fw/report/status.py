"""What `status` knows: as a value, and as its JSON answer. `status_text.py` has the text for people.

Without settings that can be read there is nothing to compare with, but much to see: what runs, which rules are
live, who the agents are.
"""

import functools
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from clawker_fw.agents import judge
from clawker_fw.agents.attachment import Attachment
from clawker_fw.agents.exposure import engine_ways
from clawker_fw.agents.judge import Agent
from clawker_fw.agents.names import own_names
from clawker_fw.denials.refusal import Counted
from clawker_fw.errors import SettingsError
from clawker_fw.model import Observed, Role, Rules, Sibling, Verdict
from clawker_fw.reconcile.advice import Advice
from clawker_fw.reconcile.lock import Holder, at_work
from clawker_fw.reconcile.pipeline import Comparison, summary_of
from clawker_fw.reconcile.summary import Summary
from clawker_fw.report import documents, sources, summary
from clawker_fw.stack import rule_record
from clawker_fw.stack.topology import network_names

MOST_REFUSALS = 5
"""How many of the last refusals are shown. `denials` has all."""

_NO_LEFTOVERS: Mapping[str, list[str]] = {"containers": [], "images": [], "volumes": []}


@dataclass(frozen=True)
class Status:
    """The state of a stack at one moment.

    `attached` is how agents are attached. `wanted` are the rules of the settings, `ending` those that end, with
    the seconds left of each. `unread` is why the settings can't be read: then there is no comparison.
    `said` is what the next run would mean, if anything but the rules differs; `summary` is all of it, for
    programs. `refusals` are those of the last hour, the latest last. `sources` and `source_lines` say which
    settings and which engine this is about.
    """

    project: str
    observed: Observed
    verdict: Verdict
    verdicts: Mapping[Sibling, Verdict]
    attached: Attachment
    agents: tuple[Agent, ...]
    wanted: Rules | None = None
    ending: Sequence[tuple[str, float]] = ()
    leftovers: Mapping[str, list[str]] = field(default_factory=lambda: _NO_LEFTOVERS)
    busy: Holder | None = None
    warnings: Sequence[Advice] = ()
    unread: SettingsError | None = None
    said: Sequence[str] = ()
    summary: Sequence[str] = ()
    refusals: Sequence[Counted] = ()
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source_lines: Sequence[str] = ()

    @property
    def live(self) -> Rules | None:
        """The rules that the siblings serve, or None if that is unknown."""
        return documents.live_rules(self.observed)

    @property
    def protocols(self) -> Mapping[str, int]:
        """How many of the live rules there are of each protocol; empty if that is unknown."""
        resolver = self.observed.siblings.get(Sibling.COREDNS)
        rules = rule_record.recorded(resolver.files) if resolver and self.live else None
        return Counter(rule.split(" ")[0] for rule in rules or ())

    @functools.cached_property
    def refused(self) -> Mapping[str, int]:
        """How often each agent was refused something in the last hour since it was started, by its address."""
        counts: Counter[str] = Counter()
        for each in self.refusals:
            if self.agent_of(each):
                counts[each.refusal.agent] += each.times
        return counts

    @property
    def own(self) -> Mapping[str, str]:
        """The names of the siblings by the addresses from which they ask."""
        network = self.observed.networks.get(Role.AGENTS)
        return own_names(self.project, network.subnets if network else ())

    def agent_of(self, refused: Counted) -> str:
        """Return the name of the agent that was refused something, or "" if none of now had the address then."""
        when = datetime.fromisoformat(refused.last)
        had = self._since.get(refused.refusal.agent, ())
        return next((name for since, name in had if since <= when), "")

    def whose(self, refused: Counted) -> str:
        """Return the name of the agent or sibling that was refused something, or "" if none of now is known."""
        return self.agent_of(refused) or self.own.get(refused.refusal.agent, "")

    @functools.cached_property
    def _since(self) -> Mapping[str, Sequence[tuple[datetime, str]]]:
        """From when on which agents have an address, by the address."""
        found: defaultdict[str, list[tuple[datetime, str]]] = defaultdict(list)
        for each in self.agents:
            if each.address:
                found[each.address].append((datetime.fromisoformat(each.since), each.name))
        return found

    @property
    def attachable(self) -> bool:
        """Whether agents can be attached: the stack is up, at the addresses that the settings ask for."""
        return documents.attachable(self.observed) and self.attached.dns == judge.running_resolver(self.observed)


def of_comparison(seen: Comparison, now: float) -> Status:
    """Return the status that follows from a comparison. `now` is in seconds since 1970."""
    said = summary_of(seen) if seen.diff.findings else None
    return Status(
        project=seen.desired.project,
        observed=seen.observed,
        verdict=seen.verdict,
        verdicts=seen.diff.verdicts,
        attached=Attachment(seen.desired.networks[Role.AGENTS].name, str(seen.desired.service_address)),
        agents=seen.agents,
        wanted=seen.desired.rules,
        ending=seen.blueprint.rules.ending(now),
        leftovers=documents.leftovers(seen.observed, seen.desired),
        busy=seen.busy,
        warnings=seen.advice,
        said=_said(said),
        summary=summary.lines(said) if said else (),
        sources=sources.document(seen.blueprint, seen.observed),
        source_lines=sources.lines(seen.blueprint, seen.observed),
    )


def _said(said: Summary | None) -> Sequence[str]:
    """Return what the next run would mean. Changed rules have a line of their own in every status."""
    if said is None or said.absent:
        return ()
    return () if summary.is_about_rules(said) else summary.lines(said, rules=False)


def without_settings(observed: Observed, project: str, unread: SettingsError) -> Status:
    """Return what can be known of a stack whose settings can't be read."""
    resolver = judge.running_resolver(observed)
    agents = judge.judge(
        observed, project, engine_ways(observed.engine.endpoint), (), judge.resolving(observed, time.time())
    )
    return Status(
        project=project,
        observed=observed,
        verdict=judge.verdict(Verdict.UNKNOWN, agents),
        verdicts=dict.fromkeys(Sibling, Verdict.UNKNOWN),
        attached=Attachment(network_names(project)[Role.AGENTS], resolver),
        agents=agents,
        leftovers={
            **_NO_LEFTOVERS,
            "containers": documents.left_containers(observed),
            "volumes": list(observed.orphans),
        },
        busy=at_work(observed.lock),
        unread=unread,
        sources=sources.unread(observed),
        source_lines=sources.unread_lines(observed),
    )


def _refusal(counted: Counted, who: str) -> dict[str, Any]:
    refusal = counted.refusal
    return {
        "agent": who or None,
        "address": refusal.agent,
        "last": counted.last,
        "times": counted.times,
        "sibling": refusal.sibling.value,
        "protocol": refusal.protocol,
        "name": refusal.name or None,
        "port": refusal.port,
        "reason": refusal.reason,
    }


def document(status: Status) -> dict[str, Any]:
    """Return the answer of `status`. `agent` is null while the stack can't take agents."""
    observed, live = status.observed, status.live
    unread = status.unread
    return {
        "schema": documents.SCHEMA,
        "verdict": status.verdict.value,
        "summary": list(status.summary),
        **documents.notices(status.busy, status.warnings),
        "project": status.project,
        "engine": {
            "version": observed.engine.version,
            "architecture": observed.engine.architecture,
            **status.sources["engine"],
        },
        "settings": dict(status.sources["settings"]),
        "agent": {
            "network": status.attached.network,
            "dns": status.attached.dns,
            "attached": sorted(observed.attached.get(Role.AGENTS, ())),
        }
        if status.attachable
        else None,
        "agents": [
            {**each, "refused": status.refused.get(each["address"] or "", 0)}
            for each in documents.agents_document(status.agents)
        ],
        "refusals": [_refusal(each, status.whose(each)) for each in status.refusals[-MOST_REFUSALS:]],
        "siblings": [
            documents.sibling_status(sibling, observed, status.attached.network, status.verdicts[sibling])
            for sibling in Sibling
        ],
        "rules": status.wanted.count if status.wanted else None,
        "live_rules": None if live is None else live.count,
        "live_protocols": dict(sorted(status.protocols.items())),
        "ending": [{"rule": rule, "seconds": round(seconds)} for rule, seconds in status.ending],
        "other_rules": None if live is None or status.wanted is None else live != status.wanted,
        "leftovers": dict(status.leftovers),
        "unread": {"code": unread.code, "message": unread.message} if unread else None,
    }
