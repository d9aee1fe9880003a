"""A watcher's metrics in the Prometheus format. Only this module imports `prometheus_client`."""

import itertools
from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector, Summary, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from clawker_fw.agents.judge import Confinement
from clawker_fw.model.differences import Cause, Layer, Verdict
from clawker_fw.model.stacks import Sibling
from clawker_fw.watch.decision import Decision, Reaction, RunOutcome

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_GROUP = "group"
"""The label of the group that a stack belongs to, "" for the stack above the groups."""


class Metrics:
    """The metrics of one watcher, for all stacks that it keeps."""

    def __init__(self, version: str, build_sha: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        build = Info("clawker_fw_build", "The running release", registry=self._registry)
        build.info({"version": version, "stack_build_sha": build_sha})
        self._verdict = self._gauge(
            "verdict", "1 for the last verdict on Envoy or CoreDNS, else 0", "sibling", "verdict"
        )
        self._findings = self._gauge("findings", "Differences that remain", "sibling", "layer", "cause")
        self._addresses = self._gauge("agent_info", "1 for each attached agent", "agent", "client_address")
        self._last_comparison = self._gauge(
            "last_look_timestamp_seconds", "Time of the last successful comparison"
        )
        self._current = self._gauge(
            "last_current_timestamp_seconds", "Time of the last comparison that found the stack current"
        )
        self._healed = self._gauge("last_heal_timestamp_seconds", "Time of the last successful heal")
        self._comparisons = self._counter("looks", "Comparisons, by trigger and decision", "trigger", "decision")
        self._heals = self._counter("heals", "Heals, by action and outcome", "action", "outcome")
        self._refusals = self._counter(
            "refusals", "Refusals since the watcher started, by container and reason", "sibling", "reason"
        )
        self._seconds = Summary(
            "clawker_fw_look_seconds",
            "Duration of comparisons, including heals",
            (_GROUP,),
            registry=self._registry,
        )
        self._agents = self._gauge("agents", "Agents, by how well they are confined", "confinement")

    def _gauge(self, name: str, help_: str, *labels: str) -> Gauge:
        return Gauge(f"clawker_fw_{name}", help_, (*labels, _GROUP), registry=self._registry)

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(f"clawker_fw_{name}", help_, (*labels, _GROUP), registry=self._registry)

    def watched(self, group: str) -> None:
        """Add a group's stack, whose verdict is still unknown."""
        for sibling in Sibling:
            self._set_verdict(group, sibling, None)

    def forget(self, group: str) -> None:
        """Remove what describes a group's stack, which is no longer watched. Counters stay."""
        stands = (self._verdict, self._findings, self._addresses, self._agents)
        for gauge in (*stands, self._last_comparison, self._current, self._healed):
            gauge.remove_by_labels({_GROUP: group})

    def _set_verdict(self, group: str, sibling: Sibling, verdict: Verdict | None) -> None:
        for candidate in set(Verdict) - {Verdict.OPEN}:  # which only a stack can be
            gauge = self._verdict.labels(sibling.value, candidate.value, group)
            gauge.set(candidate is (verdict or Verdict.UNKNOWN))

    def report(self, group: str, decision: Decision) -> None:
        """Count a decision about a group's stack."""
        self._comparisons.labels(decision.trigger.value, decision.answer.value, group).inc()
        self._seconds.labels(group).observe(decision.seconds)
        for sibling in Sibling:
            self._set_verdict(group, sibling, (decision.verdicts or {}).get(sibling))
        if decision.answer is Reaction.HEAL and decision.outcome:
            for action in {finding.action for finding in decision.healed}:
                self._heals.labels(action.value, decision.outcome.value, group).inc()
        if decision.verdict is not None:
            self._last_comparison.labels(group).set_to_current_time()
            tally = Tally((finding.sibling, finding.layer, finding.cause) for finding in decision.left)
            for key in itertools.product(Sibling, Layer, Cause):
                self._findings.labels(*(part.value for part in key), group).set(tally[key])
            for confinement in Confinement:
                number = sum(agent.confinement is confinement for agent in decision.agents)
                self._agents.labels(confinement.value, group).set(number)
            self._addresses.remove_by_labels({_GROUP: group})
            for agent in decision.agents:
                self._addresses.labels(agent.name, agent.address, group).set(1)
        if decision.verdict is Verdict.CURRENT:
            self._current.labels(group).set_to_current_time()
        if decision.outcome is RunOutcome.DONE:
            self._healed.labels(group).set_to_current_time()

    def refused(self, group: str, sibling: Sibling, reason: str, times: int) -> None:
        """Count refusals of a group's stack."""
        self._refusals.labels(sibling.value, reason, group).inc(times)

    def page(self) -> bytes:
        """Return all metrics in the text format."""
        return generate_latest(self._registry)
