"""Explaining what happens to a connection: what the rules say, what the name leads to, and what an agent meets.

The rules alone give an answer without an engine. A stack adds the addresses of the name, as Envoy sees them at the
moment, and, if asked to, an attempt from the agents' network. Nothing here changes a stack.
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
"""Reasons why a request is refused in a connection that is allowed."""
_OF_CONNECTIONS = frozenset({Reason.NO_RULE, Reason.WRONG_PORT, Reason.DENIED, Reason.EXPIRED, Reason.BAD_NAME})
_OF_RULES = _OF_CONNECTIONS | (_OF_REQUESTS - {Reason.BAD_REQUEST})
"""Reasons that follow from the rules alone."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""
_OUR_STEPS = frozenset({"resolve", "connect", "datagram"})
"""Steps of an attempt that fail only at the siblings."""


@dataclass(frozen=True, slots=True)
class ConnectionAnswer:
    """What is known about a connection.

    `rules` are those of the settings. `observed` is the stack, and `unasked` says why it could not be asked for
    everything. `sent` are the method and path of the request that was `attempted`, if one was.
    """

    explanation: Explanation
    rules: Rules
    observed: Observed | None = None
    attempted: Attempted | None = None
    unasked: str = ""
    sent: tuple[str, ...] = ()

    @property
    def unsent(self) -> bool:
        """Whether something else was tried than the request that was asked for."""
        asked = self.explanation.request
        return self.attempted is not None and asked is not None and self.sent != (asked.method, asked.target)

    @property
    def unproven(self) -> bool:
        """Whether nothing was sent to the host: Envoy itself answers the connection to one that is looked into."""
        rule = self.explanation.rule
        inspected = self.explanation.allowed and rule is not None and rule.paths is not None
        return self.attempted is not None and self.attempted.passed and inspected and not self.sent

    @property
    def contradicted(self) -> bool:
        """Whether the attempt shows something else than what the rules say."""
        if self.attempted is None:
            return False
        if not self.explanation.allowed:
            return self.attempted.passed and not (self.unsent and self.explanation.reason in _OF_REQUESTS)
        last = self.attempted.trial.steps[-1]
        return self.attempted.reason in _OF_RULES or (not last.ok and last.name in _OUR_STEPS)

    @property
    def good(self) -> bool:
        """Whether the connection is allowed and, if it was tried, gets through."""
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
    """Complete the explanation for a host name with what a stack knows. `served` are the rules that it has loaded.

    Raises:
        RefusedError: when an attempt is wanted and a sibling does not run.
        EngineError: when the attempt fails otherwise than for an agent.
    """
    running = {each for each, seen in observed.siblings.items() if seen.container.running}
    idle = [each for each in Sibling if each not in running]
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
    sent = _sent(explained, same_rules=served == rules) if live else ()
    tried = attempt(reader, observed, explained.target, *sent) if live else None
    return ConnectionAnswer(explained, rules, observed, tried, unasked, sent)


def _sent(explained: Explanation, *, same_rules: bool) -> tuple[str, ...]:
    """Return the method and path to try, or nothing where only the connection is tried.

    A request that could change something is sent only if Envoy surely refuses it: the rules that it has loaded do.
    A rule that ends might give way to another one meanwhile, and a name might get another address. In place of one
    that is allowed and not sent, or of none, another one that the rule allows shows whether the host answers.
    """
    asked, rule = explained.request, explained.rule
    if asked and not asked.websocket:
        refused = same_rules and explained.reason in _OF_REQUESTS and rule is not None and rule.until is None
        if refused or asked.method in _SAFE:
            return asked.method, asked.target
    if explained.allowed and rule and rule.paths:
        return rule.paths.allowed_request() or ()
    return ()


def _machine(observed: Observed) -> str:
    egress = observed.networks.get(Role.EGRESS)
    return str(gateway(egress.subnets[0])) if egress and egress.subnets else ""
