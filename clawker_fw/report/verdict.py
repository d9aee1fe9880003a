"""Verdicts as plain lines, without `rich`.

A current stack needs nothing more, and importing `rich` would take longer than the rest of the work.
"""

import os
import sys

from clawker_fw.agents.judge import Agent
from clawker_fw.model import Diff, Verdict
from clawker_fw.reconcile.advice import Advice
from clawker_fw.reconcile.lock import Holder
from clawker_fw.report.terminal import visible

_BOLD = {
    Verdict.CURRENT: "\x1b[1;32m",
    Verdict.DRIFTED: "\x1b[1;33m",
    Verdict.UNKNOWN: "\x1b[1;31m",
    Verdict.OPEN: "\x1b[1;31m",
}
_STRONG, _PLAIN = "\x1b[1m", "\x1b[0m"


def line(verdict: Verdict, words: str) -> str:
    """Return the verdict, followed by what it is about."""
    return f"{_styled(verdict.value, _BOLD[verdict])}  {visible(words)}"


def todo(whole: Verdict, siblings: Verdict) -> str:
    """Return what to do about the verdict on a stack, of which `siblings` is the part without agents, or ""."""
    close = ["close it with `clawker-fw run`"] if siblings is not Verdict.CURRENT else []
    return ", and ".join([*close, *(["stop the agents that bypass it"] if whole is Verdict.OPEN else [])])


def busy(holder: Holder) -> str:
    """Return who is changing the stack at the moment, so that the answer may show a half-finished change."""
    who = f"{holder.user} on {holder.host}, process {holder.process}"
    return visible(f"Busy: `{holder.command}` has been changing this stack since {holder.since} ({who}).")


def warning(advice: Advice) -> str:
    """Return one warning."""
    return f"{_styled('warning', _BOLD[Verdict.DRIFTED])}[{advice.code}]: {visible(advice.message)}"


def open_agent(agent: Agent) -> str:
    """Return one line on an agent that has a way around the firewall."""
    reasons = "; ".join(each.phrase for each in agent.openings)
    return f"{_styled('open', _BOLD[Verdict.OPEN])}[agent]: {visible(f'{agent.name}: {reasons}')}"


def by_sibling(found: Diff) -> str:
    """Return a line for each sibling."""
    return "\n".join(
        f"{_styled(sibling.value, _STRONG)}  {_styled(verdict.value, _BOLD[verdict])}"
        for sibling, verdict in found.verdicts.items()
    )


def _styled(text: str, style: str) -> str:
    """Style a text for standard output. NO_COLOR, FORCE_COLOR and TERM work as in `rich`."""
    able = os.environ.get("TERM") not in {"dumb", "unknown"} and not os.environ.get("NO_COLOR")
    wanted = sys.stdout.isatty() or os.environ.get("FORCE_COLOR")
    return f"{style}{text}{_PLAIN}" if able and wanted else text
