"""The log record of a decision: fields for programs, and a line for a person who watches on a terminal."""

import logging
from typing import assert_never

from clawker_fw.errors import FirewallError
from clawker_fw.model.differences import Finding, Verdict
from clawker_fw.watch.agents import Admitted, OpenAgent, Presence
from clawker_fw.watch.decision import Decision, Reaction, RunOutcome
from clawker_fw.watch.reactions import OnOpen

LOG = logging.getLogger("clawker_fw")

_MOST_NAMED = 10
_MOST_SHOWN = 3
_IN_PASSING = "settings-changing"
"""The code of an error that every ordinary edit of the settings causes for a moment."""


def write(decision: Decision) -> None:
    """Log one decision: the findings, what was done about them, and the outcome."""
    fields: dict[str, object] = {
        "trigger": decision.trigger.value,
        "decision": decision.answer.value,
        "verdict": decision.verdict.value if decision.verdict else None,
        **_named("found", decision.findings),
    }
    if decision.answer is Reaction.HEAL:
        fields |= _named("healed", decision.healed)
        fields["actions"] = sorted({finding.action.value for finding in decision.healed})
        fields["outcome"] = decision.outcome.value if decision.outcome else None
    if decision.error:
        fields |= decision.error.fields
    if open_agents := [agent.name for agent in decision.agents if agent.openings]:
        fields["open_agents"] = open_agents
    if decision.warnings:
        fields["warnings"] = list(decision.warnings)
    if decision.unused:
        fields["settings_unused"] = {**decision.unused.fields, "hint": decision.unused.hint}
    fields["seconds"] = round(decision.seconds, 3)
    if decision.wait is not None:
        fields["wait"] = round(decision.wait, 3)
    LOG.log(_level(decision), "watch_decision", extra={"fields": fields, "line": _line(decision)})


def write_open(open_agent: OpenAgent) -> None:
    """Log an agent that has a way around the firewall, and what was done about it."""
    agent = open_agent.agent
    fields: dict[str, object] = {
        "agent": agent.name,
        "id": agent.id,
        "image": agent.image,
        "address": agent.address,
        "reasons": [{"code": opening.code, "text": opening.phrase} for opening in agent.openings],
        "action": open_agent.action.value,
    }
    if open_agent.error:
        fields["message"] = open_agent.error
    reasons = "; ".join(opening.phrase for opening in agent.openings)
    done = f"could not be handled: {open_agent.error}" if open_agent.error else _ACTED[open_agent.action]
    line = f"open  {agent.name}: {reasons}  {done}".rstrip()
    level = logging.ERROR if open_agent.error else logging.WARNING
    LOG.log(level, "agent_open", extra={"fields": fields, "line": line})


def write_admitted(admitted: Admitted) -> None:
    """Log a container that was attached to the agent network, or why it could not be."""
    container = admitted.container
    fields = {"agent": container.name, "id": container.id, "image": container.image}
    if admitted.error:
        fields["message"] = admitted.error
    done = f"could not be attached: {admitted.error}" if admitted.error else "has been attached"
    level = logging.ERROR if admitted.error else logging.INFO
    LOG.log(level, "agent_admitted", extra={"fields": fields, "line": f"agent  {container.name} {done}"})


def write_presence(presence: Presence) -> None:
    """Log that an agent has come, moved or left."""
    agent = presence.agent
    values = {
        "change": presence.change.value,
        "agent": agent.name,
        "id": agent.id,
        "image": agent.image,
        "address": agent.address,
        "address_before": presence.before,
        "since": agent.since,
    }
    fields = {name: value for name, value in values.items() if value}
    moved = f"from {presence.before} to " if presence.before else ""
    line = f"agent  {agent.name} {presence.change}  {moved}{agent.address}".rstrip()
    LOG.info("agent_presence", extra={"fields": fields, "line": line})


def write_uncounted(error: FirewallError) -> None:
    """Log that refusals can't be counted at the moment."""
    line = f"refusals are not counted  {error.message}"
    LOG.warning("refusals_uncounted", extra={"fields": error.fields, "line": line})


_ACTED = {OnOpen.WARN: "", OnOpen.DETACH: "taken off the network", OnOpen.STOP: "stopped"}


def _level(decision: Decision) -> int:
    if decision.error and decision.error.code == _IN_PASSING:
        return logging.INFO
    if decision.error and decision.outcome is not RunOutcome.STOPPED:
        return logging.ERROR
    if decision.unused and decision.unused.code != _IN_PASSING:
        return logging.ERROR
    quiet = decision.verdict is Verdict.CURRENT and decision.answer is not Reaction.HEAL and not decision.warnings
    return logging.INFO if quiet else logging.WARNING


def _named(name: str, findings: tuple[Finding, ...]) -> dict[str, object]:
    more = len(findings) - _MOST_NAMED
    fields = ("sibling", "layer", "field", "cause", "action")
    named = [{field: getattr(finding, field) for field in fields} for finding in findings[:_MOST_NAMED]]
    return {name: named, **({f"{name}_more": more} if more > 0 else {})}


def _line(decision: Decision) -> str:
    parts = [decision.verdict.value if decision.verdict else "unknown", _done(decision)]
    parts += [f"open: {agent.name}" for agent in decision.agents if agent.openings]
    parts += decision.warnings
    if decision.unused:
        parts.append(f"the settings are not used: {decision.unused.message}")
    if decision.wait is not None:
        parts.append(f"again in {decision.wait:.1f} s")
    return "  ".join(filter(None, parts))


def _done(decision: Decision) -> str:
    error = decision.error.message if decision.error else ""
    match decision.answer:
        case Reaction.NOTHING:
            return ""
        case Reaction.LEAVE:
            return f"left for `run`: {_listed(decision.findings)}"
        case Reaction.SETTLE:
            return f"a firewall container is starting: {_listed(decision.findings)}"
        case Reaction.HOLD:
            return f"waiting: {_listed(decision.findings)}"
        case Reaction.HEAL:
            words = f"heal {decision.outcome} after {decision.seconds:.1f} s: {_listed(decision.healed)}"
            return f"{words}  {error}".rstrip()
        case Reaction.RETRY:
            return error
        case _:
            assert_never(decision.answer)


def _listed(findings: tuple[Finding, ...]) -> str:
    shown = ", ".join(
        f"{finding.sibling} {finding.field} ({finding.action})" for finding in findings[:_MOST_SHOWN]
    )
    return shown + (f" and {len(findings) - _MOST_SHOWN} more" if len(findings) > _MOST_SHOWN else "")
