"""Verdicts, warnings and open agents as lines."""

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from clawker_fw.agents.judge import Agent
from clawker_fw.model import Diff, Verdict
from clawker_fw.reconcile.advice import Advice
from clawker_fw.reconcile.lock import Holder
from clawker_fw.report.terminal import visible
from clawker_fw.report.text import styled_verdict


def head(
    verdict: Verdict,
    words: str,
    named: Callable[[str], str] = str,
    *,
    at_work: Holder | None = None,
    warnings: Sequence[Advice] = (),
    agents: Sequence[Agent] = (),
) -> RenderableType:
    """Return the verdict with what it is about, then a line for who is at work, each warning and each open agent.

    `named` returns a sentence with commands for the same stack.
    """
    return Group(
        Text.assemble(styled_verdict(verdict), f"  {visible(words)}"),
        *([busy(at_work)] if at_work else []),
        *(warning(each, named(each.message)) for each in warnings),
        *(_open_agent(each) for each in agents if each.openings),
    )


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


def _open_agent(agent: Agent) -> Text:
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
