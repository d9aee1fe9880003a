"""Compare Envoy's secrets with the desired ones, by HMAC under a one-time key that is never stored or shown."""

import hmac
import secrets
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from clawker_fw.agents.exposure import Exposure, exposures
from clawker_fw.engine.port import EngineReader, EngineWriter
from clawker_fw.errors import EngineError, RefusedError
from clawker_fw.fwctl import KEY_BYTES, Helper, digest_of_secret
from clawker_fw.model.observed import Observed
from clawker_fw.model.secrets import HeldSecrets, SecretDifference
from clawker_fw.model.stacks import Sibling
from clawker_fw.reconcile.advice import Advice
from clawker_fw.stack.labels import sibling_of

if TYPE_CHECKING:
    from clawker_fw.settings.secrets.vault import Vault  # only rules that inject need these
    from clawker_fw.settings.secrets.wanted import WantedSecret

ANOTHER, UNLOADED = "another secret", "what Envoy had before"
_GIVEN, _THIS = "given", "this secret"
PLACES = {False: "in memory alone", True: "at rest, too"}


def secret_differences(
    held: HeldSecrets | None, wanted: "tuple[WantedSecret, ...]", vault: "Vault | None"
) -> tuple[SecretDifference, ...]:
    """Return the differences of Envoy's secrets by their ids, except those that can't be obtained."""
    if held is None:
        return ()
    by_id = held.by_id
    values = vault.values(wanted) if vault else {}
    resting = {secret.identity: secret.at_rest for secret in _still_wanted(wanted, vault)}
    differences = [
        SecretDifference(identity, running=None, desired=_GIVEN) for identity in values.keys() - by_id.keys()
    ]
    for identity, held_secret in by_id.items():
        if identity not in resting:
            differences.append(SecretDifference(identity, running=_GIVEN, desired=None))
        elif identity in values and not hmac.compare_digest(
            held_secret.digest, digest_of_secret(held.key, identity, values[identity])
        ):
            differences.append(SecretDifference(identity, running=ANOTHER, desired=_THIS))
        elif held_secret.at_rest != resting[identity]:
            running, desired = PLACES[held_secret.at_rest], PLACES[resting[identity]]
            differences.append(SecretDifference(identity, running, desired, same_value=True))
    for identity in held.unloaded - {difference.identity for difference in differences}:
        meant = _GIVEN if identity in by_id else None
        differences.append(SecretDifference(identity, running=UNLOADED, desired=meant, loaded=False))
    return tuple(sorted(differences))


def require_unreachable(observed: Observed, vault: "Vault") -> None:
    """Require that no agent can certainly change the file that says where secrets go.

    Raises:
        RefusedError: if one can.
    """
    for exposure in exposures(observed, [vault.path]):
        if exposure.certain:
            raise _exposed(exposure)


def possible_exposures(observed: Observed, vault: "Vault | None") -> "Iterator[Advice]":
    """Yield a warning per mount that may lead to the file of secrets. Agents' links must not stop a run."""
    for exposure in exposures(observed, [vault.path] if vault else ()):
        if not exposure.certain:
            error = _exposed(exposure)
            yield Advice(error.code, f"Perhaps {error.message} {error.hint}")


def _exposed(exposure: Exposure) -> RefusedError:
    return RefusedError(
        "secrets-exposed",
        f"{exposure}, so it could have secrets sent anywhere.",
        hint="Make the mount read-only, or move the file out of it and name it with --secrets.",
    )


def give(
    engine: EngineWriter, container: str, wanted: "tuple[WantedSecret, ...]", vault: "Vault | None"
) -> frozenset[str]:
    """Send Envoy all secrets that can be obtained, leave it the others that it should have, and remove the rest.

    Returns the ids of secrets whose previous value Envoy still uses.

    Raises:
        EngineError: if Envoy can't be given them.
    """
    values = vault.values(wanted) if vault else {}
    resting = {secret.identity: secret.at_rest for secret in _still_wanted(wanted, vault)}
    key, keep = secrets.token_bytes(KEY_BYTES), resting.keys() - values.keys()
    at_rest = [identity for identity, rests in resting.items() if rests]
    return Helper(engine, container).give_secrets(key, values, keep, at_rest).unloaded


def _still_wanted(wanted: "tuple[WantedSecret, ...]", vault: "Vault | None") -> "Iterator[WantedSecret]":
    """Yield the secrets that are not too old for Envoy to have."""
    return (secret for secret in wanted if vault and secret.name not in vault.expired)


def envoys(engine: EngineReader, project: str) -> tuple[str, ...]:
    """Return the ids of Envoy's containers, running ones first: an unfinished run may have left two.

    Raises:
        RefusedError: if none exists.
    """
    envoys = [container for container in engine.listing() if sibling_of(container, project) is Sibling.ENVOY]
    if not envoys:
        raise RefusedError("not-up", f"The stack {project} has no Envoy, so it has no secrets.")
    return tuple(envoy.id for envoy in sorted(envoys, key=lambda envoy: envoy.status != "running"))


def take_away(engine: EngineWriter, container: str, name: str | None) -> tuple[str, ...]:
    """Remove one secret or all from Envoy, and return the ids of those that it had.

    Raises:
        EngineError: if that fails, or Envoy goes on using the previous value of one.
    """
    helper, key = Helper(engine, container), secrets.token_bytes(KEY_BYTES)
    held = helper.secrets(key).by_id
    gone = _called(name, held)
    at_rest = {identity for identity, secret in held.items() if secret.at_rest}
    left = helper.give_secrets(key, {}, keep=held.keys() - gone, at_rest=at_rest - {*gone})
    if unloaded := _called(name, left.unloaded):  # also those that were taken away before
        raise EngineError(
            "secret-not-loaded",
            f"Envoy goes on using what it had before of {', '.join(sorted(unloaded))}.",
            hint="Replace it with `clawker-fw run --force-recreate`.",
        )
    return tuple(sorted(gone))


def _called(name: str | None, identities: Iterable[str]) -> list[str]:
    return [identity for identity in identities if name in {None, identity.partition("#")[0]}]
