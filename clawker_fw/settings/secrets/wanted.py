"""Determines which secrets rules inject, and checks that the user's file allows their hosts."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clawker_fw.errors import RefusedError
from clawker_fw.rules.paths import Form
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.ruleset import injecting
from clawker_fw.rules.upstream import Proxy
from clawker_fw.settings.secrets.declared import SecretsFile


@dataclass(frozen=True, slots=True, order=True)
class WantedSecret:
    """A secret in the form in which it is sent. With `at_rest`, Envoy's volume keeps it on disk."""

    name: str
    form: Form
    at_rest: bool = False

    @property
    def identity(self) -> str:
        """The name of the secret in Envoy and the signer."""
        return f"{self.name}#{self.form}"


def wanted(
    rules: Iterable[Rule], declared: SecretsFile, path: Path, proxy: Proxy | None = None
) -> tuple[WantedSecret, ...]:
    """Return the secrets that rules and the upstream proxy need, declared in the file at `path`.

    Raises:
        RefusedError: when a secret is not declared, or may not go to the rule's host or the proxy.
    """
    found = set()
    for rule, injection in injecting(rules):
        entry = declared.secrets.get(injection.secret)
        host = f"{rule.destination.name}:{rule.port or 0}"
        if entry is None or host not in entry.hosts:
            raise _refused(host, f"a rule{rule.located}", injection.secret, path, known=entry is not None)
        found.add(WantedSecret(injection.secret, injection.form_in(entry.header), entry.at_rest))
    if proxy and proxy.auth:
        name, host = proxy.auth, str(proxy)
        entry = declared.secrets.get(name)
        if entry is None or host not in entry.hosts:
            raise _refused(host, "`upstream.auth`", name, path, known=entry is not None)
        found.add(WantedSecret(name, Form.PROXY, entry.at_rest))
    return tuple(sorted(found))


def _refused(host: str, where: str, name: str, path: Path, *, known: bool) -> RefusedError:
    place = host.removesuffix(":443")
    if known:
        return RefusedError(
            "secret-not-for-host",
            f"The secret {name} may not go to {host}, where {where} would send it.",
            context=[f"{path} says to which hosts it may go"],
            hint=f"If it should, add {place} to the `hosts` of `{name}` there.",
        )
    return RefusedError(
        "secret-unknown",
        f"The secret {name}, which {where} sends to {place}, is not declared.",
        context=[f"{path} has the secrets of this user"],
        hint=f"Declare it there: `{name}: {{from: {{env: NAME}}, hosts: [{place}]}}` below `secrets:`.",
    )
