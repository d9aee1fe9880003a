"""Determines which secrets rules inject, and checks that the user's file allows their hosts."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clawker_fw.errors import RefusedError
from clawker_fw.rules.paths import Form
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.ruleset import injecting
from clawker_fw.rules.upstream import Proxy
from clawker_fw.settings.secrets.declared import SecretEntry, SecretsFile


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

    def entry_for(secret: str, host: str, user: str) -> SecretEntry:
        entry = declared.secrets.get(secret)
        if entry is None or host not in entry.hosts:
            raise _refused(host, user, secret, path, is_declared=entry is not None)
        return entry

    secrets = set()
    for rule, injection in injecting(rules):
        host = f"{rule.destination.name}:{rule.port or 0}"
        entry = entry_for(injection.secret, host, f"a rule{rule.located}")
        secrets.add(WantedSecret(injection.secret, injection.form_in(entry.header), entry.at_rest))
    if proxy and proxy.auth:
        entry = entry_for(proxy.auth, str(proxy), "`upstream.auth`")
        secrets.add(WantedSecret(proxy.auth, Form.PROXY, entry.at_rest))
    return tuple(sorted(secrets))


def _refused(host: str, user: str, name: str, path: Path, *, is_declared: bool) -> RefusedError:
    place = host.removesuffix(":443")
    if is_declared:
        return RefusedError(
            "secret-not-for-host",
            f"The secret {name} may not go to {host}, where {user} would send it.",
            context=[f"{path} says to which hosts it may go"],
            hint=f"If it should, add {place} to the `hosts` of `{name}` there.",
        )
    return RefusedError(
        "secret-unknown",
        f"The secret {name}, which {user} sends to {place}, is not declared.",
        context=[f"{path} has the secrets of this user"],
        hint=f"Declare it there: `{name}: {{from: {{env: NAME}}, hosts: [{place}]}}` below `secrets:`.",
    )
