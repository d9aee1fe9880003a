"""What an answer is about: the settings file and the engine, who chose them, and who can write the settings."""

from clawker_fw.agents.exposure import HINT, exposures
from clawker_fw.model import Observed
from clawker_fw.reconcile import origin as origins
from clawker_fw.reconcile.desired import Blueprint
from clawker_fw.report.terminal import visible


def unread_lines(observed: Observed) -> tuple[str, ...]:
    """Return the lines about settings and engine when the settings can't be used."""
    return (
        "Settings  can't be used, so differences from them are unknown",
        f"Engine    {observed.engine.endpoint} ({observed.engine.named_by})",
        *(f"Made from {each}" for each in origins.recorded(observed)),
    )


def lines(blueprint: Blueprint, observed: Observed) -> tuple[str, ...]:
    """Return the lines about settings and engine in the text answer of `status`."""
    now, engine = blueprint.origin, blueprint.engine
    path = (now.path if now else "") or "none: only environment variables"
    found = exposures(observed, blueprint.files)
    return (
        f"Settings  {path} ({blueprint.named_by})",
        f"Engine    {engine.endpoint} ({engine.named_by})",
        *(f"Made from another settings file: {each}" for each in origins.others(observed, now)),
        *(visible(f"The settings are open: {each}.") for each in found),
        *([HINT] if found else []),
    )
