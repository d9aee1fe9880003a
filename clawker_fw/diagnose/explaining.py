"""Explains a connection: what the rules decide, where the name leads, and what an agent experiences.

The rules alone work without an engine. A stack adds the name's addresses as Envoy sees them and, on request, an
attempt from the agent network. Nothing here changes a stack.
"""

from dataclasses import dataclass

from clawker_fw.diagnose.explanation import Explanation
from clawker_fw.diagnose.trial import Attempted, attempt
from clawker_fw.engine.port import EngineReader
from clawker_fw.errors import EngineError, RefusedError
from clawker_fw.fwctl import HelperReader
from clawker_fw.model.desired import Rules
from clawker_fw.model.observed import Observed
from clawker_fw.model.stacks import Role, Sibling
from clawker_fw.rules.reasons import Reason
from clawker_fw.stack.topology import gateway

_OF_REQUESTS = frozenset({Reason.PATH, Reason.BAD_REQUEST, Reason.NO_WEBSOCKET})
"""Reasons to refuse a request in an allowed connection."""
_OF_CONNECTIONS = frozenset({Reason.NO_RULE, Reason.WRONG_PORT, Reason.DENIED, Reason.EXPIRED, Reason.BAD_NAME})
_OF_RULES = _OF_CONNECTIONS | (_OF_REQUESTS - {Reason.BAD_REQUEST})
"""Reasons that depend only on the rules."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""
_OUR_STEPS = frozenset({"resolve", "connect", "datagram"})
"""Steps of an attempt that can fail only at Envoy or CoreDNS."""


@dataclass(frozen=True, slots=True)
class ConnectionAnswer:
    """The answer about a connection.

    `rules` are the settings' rules. `unasked` says why the stack (`observed`) could not tell everything. `sent`
    has the method and path that were `attempted`, if any.
    """

    explanation: Explanation
    rules: Rules
    observed: Observed | None = None
    attempted: Attempted | None = None
    unasked: str = ""
    sent: tuple[str, ...] = ()

    @property
    def unsent(self) -> bool:
        """Whether the attempt used another request than the user's."""
        asked = self.explanation.request
        return self.attempted is not None and asked is not None and self.sent != (asked.method, asked.target)

    @property
    def unproven(self) -> bool:
        """Whether the host got nothing: with TLS inspection, Envoy answers the connection itself."""
        rule = self.explanation.rule
        inspected = self.explanation.allowed and rule is not None and rule.paths is not None
        return self.attempted is not None and self.attempted.passed and inspected and not self.sent

    @property
    def contradicted(self) -> bool:
        """Whether the attempt contradicts the rules."""
        if self.attempted is None:
            return False
        if not self.explanation.allowed:
            return self.attempted.passed and not (self.unsent and self.explanation.reason in _OF_REQUESTS)
        last = self.attempted.trial.steps[-1]
        return self.attempted.reason in _OF_RULES or (not last.ok and last.name in _OUR_STEPS)

    @property
    def good(self) -> bool:
        """Whether the connection is allowed and, if it was tried, succeeded."""
        tried = self.attempted is None or (self.attempted.passed and not self.unproven)
        return self.explanation.allowed and tried


def ask(
    reader: EngineReader,
    observed: Observed,
    explained: Explanation,
    rules: Rules,
    *,
    live: bool,
    served: Rules | None = None,
) -> ConnectionAnswer:
    """Add what a stack knows to an explanation. `served` are the rules that it has loaded.

    Raises:
        RefusedError: when an attempt is requested and Envoy or CoreDNS does not run.
        EngineError: when the attempt itself fails.
    """
    running = {sibling for sibling, view in observed.siblings.items() if view.container.running}
    idle = [sibling for sibling in Sibling if sibling not in running]
    if live and idle:
        raise RefusedError(
            "not-up",
            f"Nothing can be tried: {' and '.join(idle)} of the stack does not run.",
            hint="Start it with `clawker-fw run`.",
        )
    unasked = ""
    if Sibling.ENVOY in idle:
        unasked = "the stack is not up" if observed.absent else "envoy does not run"
    elif explained.looks_up and not explained.is_own_page:
        try:
            envoy = observed.siblings[Sibling.ENVOY].container.id
            leads_to = explained.leads_to(address_of_host(observed))
            explained = explained.with_addresses(HelperReader(reader, envoy).lookup(leads_to))
        except EngineError as error:  # the helper of an earlier release can't look up names
            unasked = " ".join((error.message, *"\n".join(error.context).splitlines()[:1]))
    sent = _sent(explained, same_rules=served == rules) if live else ()
    tried = attempt(reader, observed, explained.target, *sent) if live else None
    return ConnectionAnswer(explained, rules, observed, tried, unasked, sent)


def _sent(explained: Explanation, *, same_rules: bool) -> tuple[str, ...]:
    """Return the method and path to try; empty to try only the connection.

    A request that may change something is sent only if Envoy surely refuses it, by permanent rules that it has
    loaded. Otherwise, another allowed request shows whether the host answers.
    """
    asked, rule = explained.request, explained.rule
    if asked and not asked.websocket:
        refused = same_rules and explained.reason in _OF_REQUESTS and rule is not None and rule.until is None
        if refused or asked.method in _SAFE:
            return asked.method, asked.target
    if explained.allowed and rule and rule.paths:
        return rule.paths.allowed_request() or ()
    return ()


def address_of_host(observed: Observed) -> str:
    """Return the Docker host's address on the egress network, or "" without that network."""
    egress = observed.networks.get(Role.EGRESS)
    return str(gateway(egress.subnets[0])) if egress and egress.subnets else ""
