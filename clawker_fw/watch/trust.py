"""Which settings a watcher works by: those of now, unless an agent could have written them."""

import dataclasses

from clawker_fw.errors import SettingsError
from clawker_fw.model import EngineFacts, Observed
from clawker_fw.reconcile import origin as origins
from clawker_fw.reconcile.desired import Blueprint
from clawker_fw.reconcile.exposure import HINT, Exposure, exposures


class Trust:
    """Remembers the last settings that were good, and by which mounts an agent could have written others since."""

    def __init__(self) -> None:
        """Begin without any."""
        self._good: Blueprint | None = None
        self._open: tuple[Exposure, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether an agent can write the settings, or could since they were last known to be a person's."""
        return bool(self._open)

    def good(self, facts: EngineFacts) -> Blueprint | None:
        """Return the last good settings, for an engine as it is now: the very same object, when it can be."""
        if self._good is not None and self._good.engine != facts:
            self._good = dataclasses.replace(self._good, engine=facts)
        return self._good

    def notice(self, observed: Observed, blueprint: Blueprint) -> None:
        """Take in who can write the settings now. One who has written and gone is remembered."""
        self._open = exposures(observed, blueprint.files) or self._open

    def accept(self, fresh: Blueprint, observed: Observed) -> None:
        """Take settings for good.

        What a person has applied with `run` or `reload` is good, wherever its file lies.

        Raises:
            SettingsError: when they have changed, and an agent could have changed them.
        """
        self.notice(observed, fresh)
        applied = {each.digest for each in origins.recorded(observed)}
        digest = fresh.origin.digest if fresh.origin else None
        before = self._good.origin.digest if self._good and self._good.origin else None
        if self._open and digest not in {*applied, before}:
            raise SettingsError(
                "settings-open",
                "The settings have been changed where an agent can change them, so the change is not applied.",
                context=[str(each) for each in self._open],
                hint=f"{HINT} If the change is wanted, apply it with `clawker-fw reload`.",
            )
        if digest in applied and not exposures(observed, fresh.files):
            self._open = ()
        self._good = fresh
