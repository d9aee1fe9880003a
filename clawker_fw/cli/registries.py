"""Bundles and their registries, as every command uses them: asked once, told of, and shown with the settings."""

import logging
import os
import time
from typing import TYPE_CHECKING

from clawker_fw.cli.parameters import Options
from clawker_fw.errors import FirewallError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clawker_fw.settings.bundles.reference import Reference
    from clawker_fw.settings.bundles.registry import Login, Repository
    from clawker_fw.settings.bundles.state import BundleState
    from clawker_fw.settings.bundles.store import Store
    from clawker_fw.settings.bundles.taking import Bundles
    from clawker_fw.settings.loaded import Loaded

LOG = logging.getLogger("clawker_fw")

ASK_SECONDS = 5.0
"""How long a command waits for each answer of a registry."""


def store(chosen: Options) -> "Store":
    """Return where the bundles of the chosen project are kept."""
    from clawker_fw.private_files import state_folder
    from clawker_fw.settings.bundles.store import Store

    return Store(state_folder() / chosen.project / "bundles")


def bundles(chosen: Options) -> "Bundles":
    """Return the bundles of the chosen project."""
    from functools import partial

    from clawker_fw.settings.bundles.taking import Bundles
    from clawker_fw.settings.load import check_with

    return Bundles(store(chosen), opened, partial(check_with, chosen.config, os.environ))


def opened(reference: "Reference", *, writes: bool = False, seconds: float = ASK_SECONDS) -> "Repository":
    """Return the repository of a reference, with the user's login. Nothing is asked yet."""
    from clawker_fw.settings.bundles.http import Http
    from clawker_fw.settings.bundles.registry import Repository

    def login(registry: str) -> "Login | None":
        from clawker_fw.engine.registry_login import login_of  # only a registry that wants one needs it

        return login_of(registry, os.environ)

    return Repository(reference, login, Http(reference.host, os.environ, seconds), writes=writes)


def ask(chosen: Options) -> None:
    """Ask the registries of the settings, if they name bundles, and take what is new.

    A registry that can't be asked, and a bundle that is refused, is a warning while there is a last good one.

    Raises:
        SettingsError: when there is none, or a file can't be read.
    """
    from clawker_fw.cli import given
    from clawker_fw.settings.load import bundles_named

    named = bundles_named(chosen.config, given.kept(chosen))
    for reference in named.references if named.keys else ():
        known = bundles(chosen)
        try:
            if known.ask(reference, named.keys):
                told(reference, known.store)
        except FirewallError as error:
            kept = known.kept(reference, named.keys)
            if kept is None:
                from clawker_fw.settings.bundles.taking import unavailable

                raise unavailable(reference, error) from error
            warn(reference, error, time.time() - kept.confirmed)


def told(reference: str, kept_in: "Store") -> None:
    """Say that another bundle is in force."""
    kept = kept_in.read(reference)
    digest = kept.bundle.digest if kept else ""
    words = f"{reference} has other settings, which are in force now: {digest}."
    LOG.info("bundle_taken", extra={"words": words, "fields": {"reference": reference, "digest": digest}})


def warn(reference: str, error: FirewallError, age: float) -> None:
    """Warn that a bundle could not be confirmed, or that another one is refused. `age` is in seconds."""
    from clawker_fw.settings.bundles.state import aged

    fields: Mapping[str, str | Sequence[str]] = {
        "message": f"{reference}: {error.message} The last good one stays in force; it was last confirmed "
        f"{aged(age)} ago.",
        "reference": reference,
        "code": error.code,
        "context": list(error.context),
        "hint": error.hint,
    }
    LOG.warning("bundle_not_taken", extra={"fields": fields})


def states(chosen: Options, loaded: "Loaded") -> "tuple[BundleState, ...]":
    """Return the bundles that are in force, and what is known of them."""
    if not loaded.bundles:
        return ()
    from clawker_fw.settings.bundles.state import states_of

    return states_of(loaded.bundles, store(chosen))
