"""Verdicts as lines for people.

A current stack needs no more; `rich` stays out of it, since importing it takes longer than what is left to do.
"""

import os
import sys

from clawker_fw.model import Diff, Verdict
from clawker_fw.reconcile.advice import Advice
from clawker_fw.reconcile.lock import Holder
from clawker_fw.report.terminal import visible

_BOLD = {Verdict.CURRENT: "\x1b[1;32m", Verdict.DRIFTED: "\x1b[1;33m", Verdict.UNKNOWN: "\x1b[1;31m"}
_STRONG, _PLAIN = "\x1b[1m", "\x1b[0m"


def line(verdict: Verdict, words: str) -> str:
    """Return the one word that matters, and what it is about."""
    return f"{_styled(verdict.value, _BOLD[verdict])}  {visible(words)}"


def busy(holder: Holder) -> str:
    """Return who is changing the stack just now: what is shown beside it may be half done."""
    who = f"{holder.user} on {holder.host}, process {holder.process}"
    return visible(f"Busy: `{holder.command}` is changing this stack since {holder.since} ({who}).")


def warning(advice: Advice) -> str:
    """Return one warning."""
    return f"{_styled('warning', _BOLD[Verdict.DRIFTED])}[{advice.code}]: {visible(advice.message)}"


def by_sibling(found: Diff) -> str:
    """Return a line for each sibling."""
    return "\n".join(
        f"{_styled(sibling.value, _STRONG)}  {_styled(verdict.value, _BOLD[verdict])}"
        for sibling, verdict in found.verdicts.items()
    )


def _styled(text: str, style: str) -> str:
    """Style a text for standard output by NO_COLOR, FORCE_COLOR and the terminal, as `rich` does for tables."""
    able = os.environ.get("TERM") not in {"dumb", "unknown"} and not os.environ.get("NO_COLOR")
    wanted = sys.stdout.isatty() or os.environ.get("FORCE_COLOR")
    return f"{style}{text}{_PLAIN}" if able and wanted else text
