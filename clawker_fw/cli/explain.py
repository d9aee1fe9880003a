"""The command that explains what happens to one connection."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import session, stacks
from clawker_fw.cli.app import app
from clawker_fw.cli.parameters import Format, FormatOption, Options
from clawker_fw.cli.stacks import Answer
from clawker_fw.errors import EngineError, ExitCode, RefusedError

if TYPE_CHECKING:
    from clawker_fw.diagnose.explaining import ConnectionAnswer
    from clawker_fw.diagnose.explanation import Explanation
    from clawker_fw.model.desired import Rules
    from clawker_fw.rules.target import Request, Target


@app.command()
def explain(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="HOST, HOST:PORT, or a URL: https://, http://, tcp://, ssh://, udp://, wss:// or ws://.",
        ),
    ],
    *,
    method: Annotated[
        str | None,
        typer.Option("--method", metavar="METHOD", help="The method of the request. Default: GET."),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Also try it from the agents' network: the TLS handshake, HEAD /, or an empty datagram; where a "
            "rule inspects TLS, the request itself.",
        ),
    ] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Explain what happens when an agent wants to reach a host.

    The answer says which rule decides, and what to do.

    If the stack is up, the name is resolved as Envoy does it, and the answer says which addresses the rule may
    reach. Exit 0 when allowed (`--live`: and got through), else 1.

    Example: clawker-fw explain https://api.example.com
    """
    from clawker_fw.rules.target import parse_request, parse_target

    try:
        target = parse_target(what)
    except ValueError as error:
        raise typer.BadParameter(f"This can't be explained: {error}") from None
    request = parse_request(what, method)
    stacks.answer(context.obj, lambda chosen: _explained(chosen, target, request, live=live), format_)


def _explained(chosen: Options, target: "Target", request: "Request | None", *, live: bool) -> Answer:
    from clawker_fw.model.desired import Rules

    loaded = session.load(chosen)
    now = time.time()
    current = loaded.rules.at(now)
    rules = Rules(len(current.rules), current.digest)
    explained = session.explainer(chosen, loaded, now, observing=True).explain(target, request)
    answer = _ask_stack(chosen, explained, rules, live=live)
    from clawker_fw.report import explaining as report

    return Answer(
        lambda: report.ExplainDocument.of(answer),
        lambda: [report.explanation_report(answer)],
        lambda: report.explanation_line(chosen.project, answer),
        ExitCode.CURRENT if answer.good else ExitCode.DRIFT,
    )


def _ask_stack(chosen: Options, explained: "Explanation", rules: "Rules", *, live: bool) -> "ConnectionAnswer":
    """Return the answer of rules and stack. Without a stack, the rules alone answer, except with `live`."""
    from clawker_fw.diagnose import explaining

    if explained.target.mistake:
        return explaining.ConnectionAnswer(explained, rules)
    from clawker_fw.reconcile.observe import observe

    try:
        engine = session.connect_reader(chosen)
        observed = observe(engine, chosen.project)
    except (EngineError, RefusedError) as error:
        if live:
            raise
        return explaining.ConnectionAnswer(explained, rules, unasked=error.message)
    from clawker_fw.report.facts import live_rules

    return explaining.ask(engine, observed, explained, rules, live=live, served=live_rules(observed))
