"""Whether a stack may be given a new agent. Pure.

An agent relies on the firewall from its first packet, so this is stricter than looking for a network and two
containers: nothing may have been changed by hand. Changed settings and upgrades don't matter: what serves is then
something that we made and proved, with the rules that are live.
"""

from collections.abc import Iterator

from clawker_fw.errors import RefusedError
from clawker_fw.model import RELAYING, Cause, Diff, Finding, Observed


def require_serving(project: str, observed: Observed, found: Diff) -> None:
    """Require that a stack confines and serves an agent that is attached to it now.

    Raises:
        RefusedError: when it is not up, or differs from what we made, with the differences.
    """
    if observed.absent:
        raise RefusedError(
            "not-up", f"The stack {project} is not up.", hint="Start it with `clawker-fw run`, then the agent."
        )
    if obstacles := tuple(_obstacles(found)):
        raise RefusedError(
            "not-serving",
            f"The stack {project} can't take an agent now, because it differs from what clawker-fw made.",
            context=[f"{each.sibling}: {each.layer} {each.field} ({each.cause})" for each in obstacles],
            hint="`clawker-fw drift` shows what differs, `clawker-fw run` repairs it. Then start the agent.",
        )


def _obstacles(found: Diff) -> Iterator[Finding]:
    """Yield what makes a stack unfit: tampering, silence, and networks other than those that flags would name.

    The relay of another agent is no reason.
    """
    for each in (each for each in found.findings if each.action not in RELAYING):
        if each.cause is Cause.TAMPER or each.field.startswith("networks."):
            yield each
