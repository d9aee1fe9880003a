"""Advice on how to allow what was refused. All advice comes from here.

Each command is simulated first. Advice prefers a command that allows only what was refused, then the next wider
one, and says what else that allows. If no command can, it says what to edit.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import Field

from clawker_fw.diagnose.explanation import Explanation
from clawker_fw.diagnose.simulation import Opened, Outcome, Wanted
from clawker_fw.model.json_types import OrNull
from clawker_fw.rules.destination import Destination, objection
from clawker_fw.rules.naming import parse_name
from clawker_fw.rules.own_page import is_ours
from clawker_fw.rules.paths import REFUSED_METHODS, Access, Repository
from clawker_fw.rules.reasons import Reason
from clawker_fw.rules.rule import ENGINE_PORTS, HOST, HOST_NAME, Protocol, Rule
from clawker_fw.rules.target import Request
from clawker_fw.rules.until import rfc3339
from clawker_fw.settings.edit.words import AllowCommand

AGAIN = "8h"
"""The duration that advice suggests for renewing an expired rule."""

_MEANT_SOMETHING = re.compile(r"[.^$*+?{}\[\]\\|()]")


@dataclass(frozen=True, slots=True)
class Remedy:
    """What would change a refusal."""

    text: OrNull
    """What to do, or why no rule would help; null if that is unknown."""
    command: OrNull = ""
    """The command that would allow it, if one is enough."""
    allow: Annotated[AllowCommand | None, Field(exclude=True)] = field(default=None, compare=False)
    """The command, also if its change is to be made by hand."""
    opens: Annotated[tuple[Opened, ...], Field(exclude=True)] = field(default=(), compare=False)
    """What else it allows."""


def remedy_of(explained: Explanation) -> Remedy | None:
    """Return the advice, or None if it is allowed or the rules are not the reason."""
    if explained.reason and is_ours(explained.target.name):
        return Remedy("No rule can be for this name.")
    rule, request = explained.rule, explained.request
    if rule and request and explained.reason is Reason.NO_WEBSOCKET:
        return Remedy(
            f"Allow WebSockets wherever it allows a request with `websocket: true` in the rule{rule.located}."
        )
    if rule and request and explained.reason in {Reason.PATH, Reason.BAD_REQUEST}:
        return _of_request(explained, rule, request)
    return _of_connection(explained)


def _of_connection(explained: Explanation) -> Remedy | None:
    if explained.reason in {None, Reason.BAD_NAME, Reason.NO_ADDRESS}:
        return None
    if sentence := _by_hand(explained):
        return Remedy(sentence)
    refused = _wanted(explained)
    outcome = _best(explained, refused, _commands(explained, refused))
    if outcome is None:
        return Remedy("No command can allow just this: other rules decide. Change them by hand.")
    how = _how(explained, outcome)
    if explained.reason is Reason.PRIVATE_ADDRESS:
        text = f"If this address is meant, allow it with {how}."
    elif explained.rule and explained.reason is Reason.DENIED:
        text = f"Make an exception with {how}, or change the rule that denies it{explained.rule.located}."
    elif outcome.command.until == AGAIN and _is_runnable(explained, outcome):
        text = f"Allow it again with {how}, or for good with `--until never`."
    else:
        text = f"Allow it with {how}."
    return _remedy(explained, text, outcome)


def _of_request(explained: Explanation, rule: Rule, request: Request) -> Remedy:
    """Return how to allow a request to an allowed host: only its method and path."""
    if explained.reason is Reason.BAD_REQUEST or request.method.upper() in REFUSED_METHODS:
        return Remedy("No rule can allow it: such requests are always refused.")
    if isinstance(explained.path, Repository):
        return Remedy(_of_git(rule, explained.path, request))
    deny = explained.path
    socket = rule.paths is not None and rule.paths.websocket and request.websocket
    refused = Wanted(explained.target, Request(request.method, request.path, socket), rule)
    # exactly its path, then everything below it as well
    paths = () if deny and deny.expression else (_exactly(request.path), request.path.rstrip("/") or "/")
    commands = (AllowCommand(_name_of(rule), path=path, method=request.method) for path in paths)
    outcome = _best(explained, refused, commands)
    if outcome is None and deny:
        return Remedy(f"Change `{deny}`{rule.located}, or remove it.")
    if outcome is None:
        return Remedy(f"Change the paths of the rule{rule.located}.")
    how = _how(explained, outcome)
    text = f"Make an exception with {how}, or change `{deny}`{rule.located}." if deny else f"Allow it with {how}."
    remedy = _remedy(explained, text, outcome)
    if request.websocket and not socket:
        return replace(remedy, text=f"{remedy.text} A WebSocket also needs `websocket: true` in the rule.")
    return remedy


def _best(explained: Explanation, refused: Wanted, commands: Iterator[AllowCommand]) -> Outcome | None:
    if explained.simulator is None:
        return None
    outcomes = [explained.simulator.outcome(command, refused) for command in commands]
    usable = [outcome for outcome in outcomes if outcome.allows]
    return min(usable, key=_width, default=None)


def _width(outcome: Outcome) -> tuple[bool, bool]:
    return not {*outcome.opens} <= {Opened.TRANSPORT}, outcome.elsewhere is not None or bool(outcome.by_hand)


def _is_runnable(explained: Explanation, outcome: Outcome) -> bool:
    return not (explained.variable or outcome.elsewhere or outcome.by_hand)


def _remedy(explained: Explanation, text: str, outcome: Outcome) -> Remedy:
    secret = f"Envoy adds the secret `{outcome.secret}`." if outcome.secret else ""
    made = Remedy(text, _line(outcome), outcome.command, outcome.opens)
    made = replace(made, text=" ".join(filter(None, (text, also(made), secret))))
    return made if _is_runnable(explained, outcome) else replace(made, command="")


def also(made: Remedy, subject: str = "This") -> str:
    """Return a sentence about what else a command allows; "" if nothing."""
    if not (made.opens and made.allow):
        return ""
    name = parse_name(made.allow.name).dst
    *others, last = (opened.value.format(name=name) for opened in made.opens)
    return f"{subject} also allows {' and '.join(filter(None, (', '.join(others), last)))}."


def _line(outcome: Outcome) -> str:
    return shlex.join(("clawker-fw", *outcome.command.words))


def _how(explained: Explanation, outcome: Outcome) -> str:
    line, rule = f"`{_line(outcome)}`", outcome.elsewhere
    place = explained.variable or outcome.by_hand
    if rule and not place and rule.preset:
        return f"a rule of your own, which replaces that of the preset{rule.located}"
    place = place or (f"the rule{rule.located}" if rule else "")
    return f"an edit by hand in {place}, to the same effect as {line}" if place else line


def _wanted(explained: Explanation) -> Wanted:
    rule = explained.rule if explained.rule and not explained.rule.denies else None
    base = rule or (explained.simulator.base(explained.target) if explained.simulator else None)
    request = explained.request
    if request:
        socket = base is not None and base.paths is not None and base.paths.websocket and request.websocket
        request = Request(request.method, request.path, socket)
    return Wanted(explained.target, request, base, _guarded_fails(explained))


def _commands(explained: Explanation, refused: Wanted) -> Iterator[AllowCommand]:
    """Yield commands that may allow a connection, the narrowest first.

    A new rule for a name below a subtree would lose the paths of the subtree's rule, so that rule comes first.
    """
    usual, base, request = _usual(explained), refused.base, refused.request
    limited = base is not None and base.paths is not None
    of_request = replace(usual, path=_exactly(request.path), method=request.method) if request else None
    if limited and base and base != explained.own:
        if of_request:
            yield of_request
        if base == explained.rule:
            ended = AGAIN if explained.reason is Reason.EXPIRED else ""
            force = bool(objection(base.destination))
            yield AllowCommand(_name_of(base), private=refused.private, force=force, until=ended)
    yield usual
    if limited and of_request:
        yield of_request


def _usual(explained: Explanation) -> AllowCommand:
    """Return the command for exactly this name. It never narrows or outlasts an existing rule."""
    target, rule, expired = explained.target, explained.rule, explained.reason is Reason.EXPIRED
    name = Destination(target.name, subtree=False)
    before = rule if rule and not rule.denies else None  # the rule that it replaces or excepts
    again = expired or explained.own_ended
    until = AGAIN if again else rfc3339(before.until) if before and before.until and not explained.own else ""
    if before and before.protocol and expired and before.host:  # another rule for the name would lead elsewhere
        usual = not before.at_machine and before.port == before.protocol.default_port
        url = f"{before.protocol}://{before.host}" + ("" if usual else f":{before.written_port}")
        private = before.allow_private and not before.at_machine
        return AllowCommand(url, _name_at(before), private, before.reaches_engine, until)
    beside = (near.rule for near in explained.near if near.rule.covers(target.name))
    if machine := next((rule for rule in beside if rule.at_machine), None):
        url = f"{target.protocol}://{HOST}:{target.port}"
        return AllowCommand(url, _name_at(machine), force=target.port in ENGINE_PORTS, until=until)
    # A rule for exactly this name takes precedence over all rules for names above it.
    inherits = before is not None and before.allow_private and expired
    return AllowCommand(
        target.url, private=_guarded_fails(explained) or inherits, force=bool(objection(name)), until=until
    )


def _name_at(rule: Rule) -> str:
    """Return a rule's name for its address; "" for the default name."""
    name = str(rule.destination)
    return "" if rule.at_machine and name == HOST_NAME else name


def _name_of(rule: Rule) -> str:
    return f"{rule.destination}" + ("" if rule.port == Protocol.HTTPS.default_port else f":{rule.port}")


def _exactly(path: str) -> str:
    return "~" + _MEANT_SOMETHING.sub(r"\\\g<0>", path)


def _of_git(rule: Rule, repository: Repository, request: Request) -> str:
    place = rule.located
    if "/info/lfs/" in f"{request.path}/":
        return f"Allow large files of all its repositories with `lfs: true` in the rule{place}."
    if repository.access is Access.READ and "git-receive-pack" in request.target:
        return f"Allow pushing with `git: {{{repository.name}: write}}` in the rule{place}."
    return "No rule can allow it: git itself does not ask in this way."


def _by_hand(explained: Explanation) -> str:
    rule, lookup = explained.rule, explained.lookup
    if explained.forbidden:
        return f"No rule may allow it: `{explained.forbidden}` is promised ({explained.forbidden.place})."
    if lookup and _guarded_fails(explained) and not lookup.open_to("exempt"):
        return "No rule can allow it: no rule may reach any of its addresses."
    if rule and rule.denies and not rule.destination.subtree and rule.covers(explained.target.name):
        return f"Change or remove the rule that denies it{rule.located}."
    renewed = rule if rule and rule.host and explained.reason is Reason.EXPIRED else None
    if (claiming := explained.claimed_by) and claiming != renewed:
        return f"First change or remove `{claiming}`{claiming.located}: the two can't share a port."
    return ""


def _guarded_fails(explained: Explanation) -> bool:
    lookup = explained.lookup
    return lookup is not None and bool(lookup.addresses) and not lookup.open_to("guarded")
