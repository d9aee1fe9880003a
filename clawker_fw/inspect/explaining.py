"""Explaining what happens to a connection: what the rules say, what the name leads to, and what an agent meets.

The rules alone give an answer without an engine. A stack adds the addresses of the name, as Envoy sees them at the
moment, and, if asked to, an attempt from the agents' network. Nothing here changes a stack.
"""

from dataclasses import dataclass

from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import EngineError, RefusedError
from clawker_fw.fwctl.client import HelperReader
from clawker_fw.inspect.explanation import Explanation
from clawker_fw.inspect.trial import Attempted, attempt
from clawker_fw.model import Observed, Role, Rules, Sibling
from clawker_fw.rules.reasons import Reason
from clawker_fw.stack.topology import gateway

_OF_RULES = frozenset(
    {
        Reason.NO_RULE,
        Reason.WRONG_PORT,
        Reason.DENIED,
        Reason.EXPIRED,
        Reason.BAD_NAME,
        Reason.PATH,
        Reason.NO_WEBSOCKET,
    }
)
"""Reasons that follow from the rules alone."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OUR_STEPS = frozenset({"resolve", "connect", "datagram"})
"""Steps of an attempt that fail only at the siblings."""


@dataclass(frozen=True, slots=True)
class ConnectionAnswer:
    """What is known about a connection.

    `rules` are those of the settings. `observed` is the stack, and `unasked` says why it could not be asked for
    everything.
    """

    explanation: Explanation
    rules: Rules
    observed: Observed | None = None
    attempted: Attempted | None = None
    unasked: str = ""

    @property
    def contradicted(self) -> bool:
        """Whether the attempt shows something else than what the rules say."""
        if self.attempted is None:
            return False
        if not self.explanation.allowed:
            return self.attempted.passed and self.explanation.reason is not Reason.NO_WEBSOCKET
        last = self.attempted.trial.steps[-1]
        return self.attempted.reason in _OF_RULES or (not last.ok and last.name in _OUR_STEPS)

    @property
    def good(self) -> bool:
        """Whether the connection is allowed and, if it was tried, gets through."""
        return self.explanation.allowed and (self.attempted is None or self.attempted.passed)


def ask(
    reader: EngineReader, observed: Observed, explained: Explanation, rules: Rules, *, live: bool
) -> ConnectionAnswer:
    """Complete the explanation for a host name with what a stack knows.

    Raises:
        RefusedError: when an attempt is wanted and a sibling does not run.
        EngineError: when the attempt fails otherwise than for an agent.
    """
    idle = [each for each in Sibling if not _runs(observed, each)]
    if live and idle:
        raise RefusedError(
            "not-up",
            f"Nothing can be tried: {' and '.join(idle)} of the stack does not run.",
            hint="Start it with `clawker-fw run`.",
        )
    unasked = ""
    if Sibling.ENVOY in idle:
        unasked = "the stack is not up" if observed.absent else "envoy does not run"
    elif not explained.is_own_page:
        try:
            envoy = observed.siblings[Sibling.ENVOY].container.id
            leads_to = explained.leads_to(_machine(observed))
            explained = explained.with_addresses(HelperReader(reader, envoy).lookup(leads_to))
        except EngineError as error:  # the helper of an earlier release knows no lookups
            unasked = " ".join((error.message, *"\n".join(error.context).splitlines()[:1]))
    tried = attempt(reader, observed, explained.target, *_tried(explained)) if live else None
    return ConnectionAnswer(explained, rules, observed, tried, unasked)


def _tried(explained: Explanation) -> tuple[str, ...]:
    """Return the method and path to try: what the rules refuse, or what changes nothing (RFC 9110, 9.2.1).

    Of any other request, and of a WebSocket, only the connection is tried.
    """
    asked = explained.request
    if asked is None or asked.websocket or (explained.allowed and asked.method not in _SAFE):
        return ()
    return asked.method, asked.target


def _machine(observed: Observed) -> str:
    """Return the address of the engine's machine for Envoy."""
    egress = observed.networks.get(Role.EGRESS)
    return str(gateway(egress.subnets[0])) if egress and egress.subnets else ""


def _runs(observed: Observed, sibling: Sibling) -> bool:
    seen = observed.siblings.get(sibling)
    return seen is not None and seen.container.running
