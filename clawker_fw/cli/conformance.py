"""The command that attacks the user's own stack."""

import typer

from clawker_fw.cli.app import app
from clawker_fw.cli.parameters import Format, FormatOption, Options
from clawker_fw.cli.session import print_json, print_report, writing
from clawker_fw.errors import ExitCode


@app.command()
def conformance(context: typer.Context, *, format_: FormatOption = Format.TEXT) -> None:
    """Attack your own firewall, and show what held.

    Each line is an attack, which must be stopped, or a control: an allowed request, which must get through. A
    test container looks up names, connects to addresses and sends requests that no rule allows. It is removed
    after some seconds. Other agents, rules, Envoy and CoreDNS stay as they are. Nothing is sent to third parties.
    Exit 0 if everything held, else 1.

    Example: clawker-fw conformance --json | jq '.attempts[] | select(.held | not)'
    """
    chosen: Options = context.obj
    with writing(chosen) as (engine, _, seen):
        from clawker_fw.agents.attachment import require_serving
        from clawker_fw.diagnose.conformance.run import perform
        from clawker_fw.report import checks as report

        require_serving(seen.desired.project, seen.observed, seen.diff)
        tried = perform(engine, seen)
        held = all(each.held for each in tried)
        answer = report.ConformanceAnswer(project=seen.desired.project, held=held, attempts=tried)
        if format_ is Format.JSON:
            print_json(answer)
        else:
            print_report(report.conformance_report(answer))
    if not held:
        raise typer.Exit(ExitCode.DRIFT)
