"""The program with all its commands: each module registers its own with `app` when it is imported."""

from clawker_fw.cli import (  # noqa: F401 - each adds its commands
    agent,
    certs,
    checks,
    config,
    denials,
    editing,
    explain,
    fleet,
    init,
    observing,
    rules,
    schema,
    secrets,
    service,
    stack,
    status,
    watching,
)
from clawker_fw.cli.app import app as app  # noqa: PLC0414 - for those who run it
