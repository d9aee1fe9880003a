"""The commands about secrets that Envoy puts into requests: `secrets list`, `check` and `forget`."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from clawker_fw.cli import session
from clawker_fw.cli.app import group
from clawker_fw.cli.parameters import Format, FormatOption, Options
from clawker_fw.cli.session import print_json, print_table, reading
from clawker_fw.errors import ExitCode, RefusedError, SettingsError
from clawker_fw.report import terminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clawker_fw.reconcile.pipeline import Comparison
    from clawker_fw.report.secrets import SecretsAnswer, State
    from clawker_fw.rules.ruleset import RuleSet
    from clawker_fw.settings.secrets.vault import Vault

secrets_app = group("secrets", "List, check and forget the secrets that Envoy adds to requests.")


@secrets_app.command("list")
def list_(context: typer.Context, *, format_: FormatOption = Format.TEXT) -> None:
    """List your secrets, and whether Envoy has them.

    They are declared in a file of your own (`--secrets`), which says where each comes from and to which hosts it
    may go. No value is ever shown.

    Example: clawker-fw secrets list
    """
    from clawker_fw.reconcile import inputs

    chosen: Options = context.obj
    _, comparison = reading(chosen)
    vault = inputs.vault(chosen)
    _answer(_listed(vault, comparison.blueprint.rules, _states(vault, comparison)), format_)


@secrets_app.command("check")
def check(context: typer.Context, *, format_: FormatOption = Format.TEXT) -> None:
    """Obtain every secret once, and say which can't be.

    Exit 3 if one can't. It also requires that each may go where a rule would send it. It needs no Docker
    engine, and Envoy gets nothing.

    Example: clawker-fw secrets check
    """
    from clawker_fw.reconcile import inputs
    from clawker_fw.report.secrets import State
    from clawker_fw.settings.secrets.sources import obtain_all
    from clawker_fw.settings.secrets.wanted import wanted

    chosen: Options = context.obj
    loaded = session.load(chosen)
    vault = inputs.vault(chosen)
    wanted(loaded.rules.rules, vault.declared, vault.path, loaded.rules.proxy)
    outcomes = obtain_all(vault.declared.secrets, vault.path.parent, os.environ)
    problems = {name: outcome.message for name, outcome in outcomes.items() if isinstance(outcome, SettingsError)}
    states = {name: State.UNAVAILABLE if name in problems else State.OBTAINED for name in outcomes}
    _answer(_listed(vault, loaded.rules, states, problems), format_)
    if problems:
        raise typer.Exit(ExitCode.SETTINGS)


@secrets_app.command("forget")
def forget(
    context: typer.Context,
    *,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Default: all secrets.")] = None,
) -> None:
    """Remove a secret from Envoy at once.

    For a secret that has leaked: requests that need it are refused from then on. Remove it from your file, too,
    or `run`, `reload` and `watch` send it again. It needs only Envoy's container, no settings and no file of
    secrets.

    Example: clawker-fw secrets forget github
    """
    from clawker_fw.reconcile.secrets_given import envoys, take_away

    chosen: Options = context.obj
    engine = session.connect_engine(chosen)
    gone = sorted(
        {
            identity
            for container in envoys(engine, chosen.project)
            for identity in take_away(engine, container, name)
        }
    )
    if name is not None and not gone:
        _require_known(chosen, name)
    terminal.answer(f"{chosen.project}: removed from Envoy: {', '.join(gone) or 'nothing'}")


def _require_known(chosen: Options, name: str) -> None:
    """Require that the user's file declares a secret that Envoy lacks: its name may be misspelt."""
    from clawker_fw.reconcile import inputs

    try:
        vault = inputs.vault(chosen)
        declared, where = vault.declared.secrets, str(vault.path)
    except (RefusedError, SettingsError) as error:
        declared, where = {}, error.message
    if name not in declared:
        raise RefusedError(
            "secret-unknown",
            f"Envoy has no secret {name}, and it is not declared either.",
            context=[where],
            hint=f"Declared are: {', '.join(declared) or 'none'}.",
        )


def _states(vault: "Vault", comparison: "Comparison") -> "Mapping[str, State]":
    from clawker_fw.model.stacks import Sibling
    from clawker_fw.report.secrets import State

    needed = {secret.name for secret in comparison.blueprint.wanted}
    envoy = comparison.observed.siblings.get(Sibling.ENVOY)
    asked = envoy is not None and envoy.probe is not None and not (envoy.probe.error or envoy.probe.signer)
    states = {name: State.GIVEN if name in needed else State.UNUSED for name in vault.declared.secrets}
    if not asked:
        states |= dict.fromkeys(needed, State.UNKNOWN)
    for difference in comparison.secrets:
        name = difference.identity.partition("#")[0]
        if name in needed and not difference.same_value:
            states[name] = State.ANOTHER if difference.running else State.ABSENT
    return states | dict.fromkeys(vault.problems, State.UNAVAILABLE)


def _listed(
    vault: "Vault",
    rules: "RuleSet",
    states: "Mapping[str, State]",
    problems: "Mapping[str, str] | None" = None,
) -> "SecretsAnswer":
    from clawker_fw.report.secrets import SecretRow, SecretsAnswer
    from clawker_fw.rules.ruleset import injecting

    messages = problems or {name: error.message for name, error in vault.problems.items()}
    uses: dict[str, list[str]] = {}
    for rule, injection in injecting(rules.rules):
        uses.setdefault(injection.secret, []).append(str(rule))
    if rules.proxy and rules.proxy.auth:
        uses.setdefault(rules.proxy.auth, []).append("upstream.auth")
    rows = [
        SecretRow(
            name=name,
            source=entry.source.kind,
            header=entry.header,
            hosts=entry.hosts,
            refresh=entry.refresh,
            at_rest=entry.at_rest,
            rules=uses.get(name, ()),
            state=states[name],
            problem=messages.get(name),
        )
        for name, entry in vault.declared.secrets.items()
    ]
    return SecretsAnswer(file=str(vault.path), secrets=rows)


def _answer(answer: "SecretsAnswer", format_: Format) -> None:
    from clawker_fw.report import secrets as report

    if format_ is Format.JSON:
        print_json(answer)
        return
    terminal.answer(report.secrets_verdict(answer))
    for secret in answer.secrets:
        if secret.problem:
            terminal.answer(secret.problem)
    if answer.secrets:
        print_table(*report.secret_table(answer))
