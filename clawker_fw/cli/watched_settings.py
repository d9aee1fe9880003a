"""A watcher's settings, read again for each comparison, and the last good ones, for the next watcher."""

import dataclasses
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from clawker_fw.cli import session
from clawker_fw.cli.parameters import Options
from clawker_fw.errors import FirewallError
from clawker_fw.reconcile import inputs
from clawker_fw.settings.environment import variables
from clawker_fw.settings.find import FILE_NAME, users_file
from clawker_fw.settings.validation import validated
from clawker_fw.watch import last_good
from clawker_fw.watch.last_good import Texts
from clawker_fw.watch.trusted_settings import Steady

if TYPE_CHECKING:
    from clawker_fw.model.engines import EngineFacts
    from clawker_fw.reconcile.desired_state import Blueprint
    from clawker_fw.stack.release import Release

LOG = logging.getLogger("clawker_fw")


class WatchedSettings:
    """The settings of the chosen project. It is a `Memory` of the last good ones."""

    def __init__(self, chosen: Options, release: "Release") -> None:
        self._chosen = chosen
        self._release = release
        self._steady = Steady(time.monotonic)
        self.path = last_good.path_of(chosen.project)
        """The file with the last good settings."""
        self.groups: tuple[str, ...] = ()
        """The groups in the settings that were used last, if they are those above the groups."""
        self._texts = Texts(sources=(), located="", variables=())
        """The texts of the last blueprint."""
        self._files: tuple[Path, ...] = (chosen.config or Path(FILE_NAME), users_file())
        """The files that were read last, or would be if they existed."""
        self._kept: Texts | None = None
        self._unkept = ""

    def blueprint(self, facts: "EngineFacts") -> "Blueprint":
        """Return the blueprint for the current settings."""
        loaded = session.load(self._chosen)
        self._files = self._files[:2] + loaded.files
        self._steady.require(loaded.files)
        made = inputs.blueprint(self._chosen, loaded, self._release, facts, keeps=True)
        secrets = inputs.SecretsText(made.vault.path, made.vault.content) if made.vault else None
        self._files += (made.vault.path,) if made.vault else ()
        self._texts = Texts(
            secrets,
            made.authorities,
            made.proxy_authorities,
            sources=loaded.read,
            located=loaded.located,
            variables=variables(os.environ),
        )
        self.groups = tuple(loaded.settings.groups)
        return made

    def files(self) -> tuple[Path, ...]:
        """Return the settings files, including those that don't exist yet."""
        return self._files

    def keep(self, applied: frozenset[str]) -> None:
        """Save the settings that were read last, if they differ from the saved ones."""
        texts = dataclasses.replace(self._texts, applied=applied)
        if texts == self._kept:
            return
        try:
            last_good.write(self.path, texts)
        except OSError as error:
            self._warn(f"The last good settings can't be kept for the next watcher: {error}.")
        else:
            self._kept, self._unkept = texts, ""

    def recall(self, facts: "EngineFacts") -> "tuple[Blueprint, frozenset[str]] | None":
        """Return the blueprint for an earlier watcher's saved settings, checked again."""
        try:
            texts = last_good.read(self.path)
            if texts is None:
                return None
            loaded = validated(texts.sources, texts.located, dict(texts.variables), self._chosen.group)
            made = inputs.blueprint(self._chosen, loaded, self._release, facts, keeps=True, texts=texts)
        except (FirewallError, OSError) as error:
            self._warn(f"The last good settings that were kept can't be used: {error}.")
            return None
        self.groups = tuple(loaded.settings.groups)
        return made, texts.applied

    def _warn(self, message: str) -> None:
        if message != self._unkept:
            self._unkept = message
            fields = {"message": message, "file": str(self.path)}
            LOG.warning("last_good_settings", extra={"words": message, "fields": fields})
