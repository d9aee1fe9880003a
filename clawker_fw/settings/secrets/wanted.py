"""Which secrets rules put into requests, and whether the user's file lets them go there."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clawker_fw.errors import RefusedError
from clawker_fw.rules.paths import Form
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.ruleset import injecting
from clawker_fw.settings.secrets.declared import SecretsFile


@dataclass(frozen=True, slots=True, order=True)
class WantedSecret:
    """A secret in the form in which it is sent. `identity` is what Envoy and the signer call it.

    `at_rest` says whether it outlives Envoy's container, on the disk.
    """

    name: str
    form: Form
    at_rest: bool = False

    @property
    def identity(self) -> str:
        """Return the id."""
        return f"{self.name}#{self.form}"


def wanted(rules: Iterable[Rule], declared: SecretsFile, path: Path) -> tuple[WantedSecret, ...]:
    """Return the secrets that rules need. `path` is that of the file that declares them.

    Raises:
        RefusedError: when the user's file has not got one, or does not let it go to the host of a rule.
    """
    found = set()
    for rule, injection in injecting(rules):
        entry = declared.secrets.get(injection.secret)
        if entry is None or not entry.may_go_to(rule.destination.name, rule.port or 0):
            raise _refused(rule, injection.secret, path, known=entry is not None)
        found.add(WantedSecret(injection.secret, injection.form_in(entry.header), entry.at_rest))
    return tuple(sorted(found))


def _refused(rule: Rule, name: str, path: Path, *, known: bool) -> RefusedError:
    host = f"{rule.destination.name}:{rule.port}"
    place = host.removesuffix(":443")
    if known:
        return RefusedError(
            "secret-not-for-host",
            f"The secret {name} may not go to {host}, where a rule would send it{rule.located}.",
            context=[f"{path} says to which hosts it may go"],
            hint=f"If it should, add {place} to the `hosts` of `{name}` there.",
        )
    return RefusedError(
        "secret-unknown",
        f"The secret {name}, which a rule puts into requests to {place}{rule.located}, is not declared.",
        context=[f"{path} has the secrets of this user"],
        hint=f"Declare it there: `{name}: {{from: {{env: NAME}}, hosts: [{place}]}}` below `secrets:`.",
    )
