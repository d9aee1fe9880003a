"""Verdicts, warnings and open agents as lines."""

from rich.text import Text

from clawker_fw.agents.judge import Agent
from clawker_fw.model import Diff, Verdict
from clawker_fw.reconcile.advice import Advice
from clawker_fw.reconcile.lock import Holder
from clawker_fw.report.terminal import visible
from clawker_fw.report.text import styled_verdict


def line(verdict: Verdict, words: str) -> Text:
    """Return the verdict, followed by what it is about."""
    return Text.assemble(styled_verdict(verdict), f"  {visible(words)}")


def todo(whole: Verdict, siblings: Verdict) -> str:
    """Return what to do about the verdict on a stack, of which `siblings` is the part without agents, or ""."""
    close = ["close it with `clawker-fw run`"] if siblings is not Verdict.CURRENT else []
    return ", and ".join([*close, *(["stop the agents that bypass it"] if whole is Verdict.OPEN else [])])


def busy(holder: Holder) -> Text:
    """Return who is changing the stack at the moment, so that the answer may show a half-finished change."""
    who = f"{holder.user} on {holder.host}, process {holder.process}"
    return Text(visible(f"Busy: `{holder.command}` has been changing this stack since {holder.since} ({who})."))


def warning(advice: Advice, words: str) -> Text:
    """Return one warning, in these words."""
    return Text.assemble(("warning", "bold yellow"), visible(f"[{advice.code}]: {words}"))


def open_agent(agent: Agent) -> Text:
    """Return one line on an agent that has a way around the firewall."""
    reasons = "; ".join(each.phrase for each in agent.openings)
    return Text.assemble(styled_verdict(Verdict.OPEN), visible(f"[agent]: {agent.name}: {reasons}"))


def by_sibling(found: Diff) -> Text:
    """Return a line for each sibling."""
    lines = (
        Text.assemble((sibling.value, "bold"), "  ", styled_verdict(verdict))
        for sibling, verdict in found.verdicts.items()
    )
    return Text("\n").join(lines)
