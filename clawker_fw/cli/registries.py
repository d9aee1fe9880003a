"""Bundles and their registries, as every command uses them: asked once, told of, and shown with the settings."""

import logging
import os
import time
from typing import TYPE_CHECKING

from clawker_fw.cli.parameters import Options
from clawker_fw.errors import FirewallError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clawker_fw.settings.bundles.reference import Reference
    from clawker_fw.settings.bundles.registry import Login, Repository
    from clawker_fw.settings.bundles.state import BundleState
    from clawker_fw.settings.bundles.store import Store
    from clawker_fw.settings.bundles.taking import Asked, Bundles
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
    """Ask the registries of the settings, if they name bundles, and take what is new. Each is asked once.

    A registry that can't be asked, and a bundle that is refused, is a warning while there is a last good one.

    Raises:
        SettingsError: when there is none, or a file can't be read.
    """
    for each in asked(chosen, once=True):
        if each.error and store(chosen).read(each.reference) is None:
            from clawker_fw.settings.bundles.taking import unavailable

            raise unavailable(each.reference, each.error) from each.error
        if each.error or each.taken:
            report(chosen, each)


def asked(chosen: Options, *, once: bool = False) -> "Sequence[Asked]":
    """Ask for each bundle that the settings name, and return what came of it.

    With `once`, nobody is asked again. A command does so; a watcher goes on while the settings can't be read.

    Raises:
        SettingsError: with `once`, when the settings that name them can't be read.
    """
    from clawker_fw.settings.load import bundles_named

    try:
        named = bundles_named(chosen.config, os.environ)
    except SettingsError:
        if once:
            raise
        return ()
    if not (named.references and named.keys) or (once and chosen.asked.issuperset(named.references)):
        return ()
    chosen.asked.update(named.references)
    from clawker_fw.settings.bundles.taking import Asked

    known, found = bundles(chosen), []
    for reference in named.references:
        try:
            found.append(Asked(reference, taken=known.ask(reference, named.keys)))
        except FirewallError as error:
            found.append(Asked(reference, error=error))
    return found


def report(chosen: Options, asked: "Asked") -> None:
    """Log what came of asking for a bundle: another one is in force, the last good one stays, or is confirmed."""
    from clawker_fw.settings.bundles.state import aged

    kept, error = store(chosen).read(asked.reference), asked.error
    fields: dict[str, object] = {"reference": asked.reference, "digest": kept.bundle.digest if kept else None}
    if error:
        stays = "None is kept here."
        if kept:
            age = aged(time.time() - kept.confirmed)
            stays = f"The last good one stays in force, which was last confirmed {age} ago."
        message = f"{asked.reference}: {error.message} {stays}"
        fields |= {"message": message, "code": error.code, "context": list(error.context), "hint": error.hint}
        LOG.warning("bundle_not_taken", extra={"fields": fields, "line": message})
        return
    words = "has other settings, which are in force now" if asked.taken else "is confirmed again"
    words = f"{asked.reference} {words}: {fields['digest']}."
    LOG.info("bundle_taken" if asked.taken else "bundle_confirmed", extra={"words": words, "fields": fields})


def known(chosen: Options) -> "Sequence[BundleState]":
    """Return what is known of the bundles that the settings name and that are in force."""
    from clawker_fw.settings.bundles.state import states_of
    from clawker_fw.settings.load import bundles_named

    try:
        named, kept_in = bundles_named(chosen.config, os.environ), store(chosen)
    except SettingsError:
        return ()
    found = [kept.bundle for each in named.references if (kept := kept_in.read(each))]
    return states_of(found, kept_in)


def states(chosen: Options, loaded: "Loaded") -> "tuple[BundleState, ...]":
    """Return the bundles that are in force, and what is known of them."""
    if not loaded.bundles:
        return ()
    from clawker_fw.settings.bundles.state import states_of

    return states_of(loaded.bundles, store(chosen))
